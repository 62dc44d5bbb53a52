"""How well a reader tells doubt: by what was said of each exemplar while it was held out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from honestproxy.backends.local.exemplars import KINDS, NONE, Exemplar

if TYPE_CHECKING:
    from honestproxy.backends.local.reader import Array, Reader

FALSE_ALARMS: Final = 0.05
BINS: Final = 10
ENOUGH: Final = 20
"""Exemplars of the user's own from which they are judged alone…"""
SOME: Final = 5
"""… if so many of them are doubtful, and so many are not."""


def enough(exemplars: Sequence[Exemplar]) -> bool:
    """Whether figures of these alone would say something."""
    plain = sum(exemplar.kind == NONE for exemplar in exemplars)
    return len(exemplars) >= ENOUGH and min(plain, len(exemplars) - plain) >= SOME


def figures(reader: Reader, exemplars: Sequence[Exemplar], rows: Sequence[int]) -> dict[str, Any]:
    """Figures of some of the exemplars, by their positions, ready for JSON."""
    import numpy as np
    from sklearn.metrics import roc_auc_score

    chances = reader.held[list(rows)]
    doubts = reader.doubts(chances)
    kinds = [exemplars[row].kind for row in rows]
    doubtful = np.array([kind != NONE for kind in kinds])
    plain = float(np.quantile(doubts[~doubtful], 1 - FALSE_ALARMS))
    bins = _reliability(doubts, doubtful)
    return {
        "exemplars": len(rows),
        "doubtful": int(doubtful.sum()),
        "auroc": float(roc_auc_score(doubtful, doubts)),
        "recall_at_5_percent": _share(doubts[doubtful] > plain),
        "recall": _share(doubts[doubtful] > reader.threshold),
        "false_alarms": _share(doubts[~doubtful] > reader.threshold),
        "confusion": _confusion(kinds, _read_as(reader, chances)),
        "reliability": bins,
        "brier": float(((doubts - doubtful) ** 2).mean()),
        "ece": sum(b["n"] * abs(b["predicted"] - b["doubtful"]) for b in bins) / len(rows),
    }


def _share(found: Array) -> float:
    return float(found.mean())


def _read_as(reader: Reader, chances: Array) -> list[str]:
    """The kind that each would have been taken for; `none` up to the threshold."""
    classes = reader.kinds.classes
    only = chances.copy()
    only[:, classes.index(NONE)] = -1
    likeliest = [classes[i] for i in only.argmax(1)]
    above = reader.doubts(chances) > reader.threshold
    return [kind if said else NONE for kind, said in zip(likeliest, above, strict=True)]


def _confusion(kinds: Sequence[str], read_as: Sequence[str]) -> dict[str, dict[str, int]]:
    """How often exemplars of a kind were read as which: the true kinds are the rows."""
    counts = Counter(zip(kinds, read_as, strict=True))
    names = [name for name in (*KINDS, NONE) if name in {*kinds, *read_as}]
    return {true: {name: counts[true, name] for name in names} for true in names}


def _reliability(doubts: Array, doubtful: Array) -> list[dict[str, Any]]:
    """By predicted probability: how many, what was predicted, and how many were doubtful."""
    import numpy as np

    at = np.minimum((doubts * BINS).astype(int), BINS - 1)
    rows = [(number, at == number) for number in range(BINS)]
    return [
        {
            "from": number / BINS,
            "to": (number + 1) / BINS,
            "n": int(inside.sum()),
            "predicted": float(doubts[inside].mean()),
            "doubtful": _share(doubtful[inside]),
        }
        for number, inside in rows
        if inside.any()
    ]
