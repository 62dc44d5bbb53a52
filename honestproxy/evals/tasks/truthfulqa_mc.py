"""TruthfulQA, multiple choice: the same questions, scored by log-probabilities (MC1, MC2).

Paper: arXiv 2109.07958. Source: GitHub `sylinrl/TruthfulQA`. Licence: Apache-2.0.
Expected: `TruthfulQA.csv`, as for `truthfulqa`; or rows with `question`, `mc1_targets` and
`mc2_targets`, each `{"choices": […], "labels": […]}`, the right ones labelled 1, in any order.
The best answer, which MC1 looks for, comes first in `answers`: whoever shows choices must shuffle
them.
"""

from __future__ import annotations

from typing import Final

from honestproxy.evals.records import Sample
from honestproxy.evals.tables import Row
from honestproxy.evals.tasks import truthfulqa

HUB: Final = "truthfulqa/truthful_qa:multiple_choice:validation"


def sample(row: Row) -> Sample:
    """The best answer first among the right ones; which wrong ones count where, if they differ."""
    if row.get("mc1_targets") is None:
        return truthfulqa.sample(row)
    best = _labelled(row, "mc1_targets", 1)
    right = _labelled(row, "mc2_targets", 1)
    mc1, mc2 = (_labelled(row, f"{name}_targets", 0) for name in ("mc1", "mc2"))
    if len(best) != 1 or best[0] not in right:
        raise row.wrong("'mc1_targets' must have one right choice, which 'mc2_targets' has, too")
    right.remove(best[0])
    return Sample(
        "",
        row.text("question"),
        answers=(*best, *right),
        wrong=(*mc2, *(text for text in mc1 if text not in mc2)),
        kind=row.get("category"),
        answerable=True,
        more={} if sorted(mc1) == sorted(mc2) else {"mc1": mc1, "mc2": mc2},
    )


def _labelled(row: Row, name: str, label: int) -> list[str]:
    """The choices of one label, in their order."""
    targets = row.get(name)
    try:
        pairs = list(zip(targets["choices"], targets["labels"], strict=True))
    except (TypeError, KeyError, ValueError):
        raise row.wrong(f"{name!r} is no {{choices, labels}} of the same length") from None
    return [str(text) for text, one in pairs if one == label]
