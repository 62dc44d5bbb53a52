"""Reads doubt from a model's hidden states: logistic regression, fitted on our exemplars.

What is fitted is kept as plain arrays under a digest of model, exemplars and settings. A
file in the cache is data: nothing in it is run.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
import zipfile
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from honestproxy.backends.local.exemplars import NONE, Exemplar
from honestproxy.doubts import Scores
from honestproxy.errors import BackendError, PromptError
from honestproxy.types import DoubtKind

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

VERSION: Final = 4
PENALTY: Final = 0.0012
"""C of the regression that tells kinds: what is asked of it looks little like its exemplars,
so it must generalise rather than remember them."""
SUB_PENALTY: Final = 0.02
"""C of those that tell what of a kind it is: by its topic, which exemplars show well."""
NEAR: Final = 0.5
"""Weight of a near miss: small models can't tell all of them, and lose other doubts trying."""
OWN: Final = 3.0
"""Weight of a user's own exemplar: few, but of what will be asked."""
PRIORS: Final = {"knowledge_gap": 0.3}
"""Odds against other kinds: what a small model doesn't know looks much like what it does."""
FALSE_ALARMS: Final = 0.028
"""Share of plain exemplars that may be taken for doubt, out of fold; of public sets' answerable
questions it was 1 to 4 % (`benchmarks/introspect.py`, the `report` half)."""
FOLDS: Final = 4
LEAST: Final = 2
"""Exemplars of a kind, so that each can be held out."""
INSTALL: Final = "reading doubt needs scikit-learn: pip install 'honestproxy[local]'"
_ARRAYS: Final = ("mean", "scale", "held", "directions")


@dataclass(frozen=True)
class Classifier:
    """Multinomial logistic regression, as arrays: its classes, weights and biases."""

    classes: tuple[str, ...]
    weights: Array
    biases: Array

    def chances(self, features: Array) -> Array:
        """Probabilities: (rows, classes)."""
        import numpy as np

        logits = features @ self.weights.T + self.biases
        grown = np.exp(logits - logits.max(-1, keepdims=True))
        return cast("Array", grown / grown.sum(-1, keepdims=True))

    def named(self, chances: Array) -> dict[str, float]:
        """Probabilities by class; chances: (1, classes), as it gives them."""
        return dict(zip(self.classes, map(float, chances[0]), strict=True))


@dataclass(frozen=True)
class Reader:
    """A fitted reader. `layers` are positions among those that features come from.

    Of each exemplar it keeps `held`, its chances of each class by a regression that hadn't seen
    it, and `directions`, its standardised features at unit length.
    """

    digest: str
    layers: tuple[int, ...]
    threshold: float
    slope: float
    shift: float
    mean: Array
    scale: Array
    kinds: Classifier
    held: Array
    directions: Array
    subs: Mapping[str, Classifier] = field(default_factory=dict)
    prefix: tuple[int, ...] = ()
    figures: Mapping[str, float] = field(default_factory=dict)

    def read(self, features: Array) -> Scores:
        """Scores of one conversation; features: (layers, width), of the reader's own layers."""
        vector = self._standard(features)
        found = self.kinds.chances(vector)
        doubt, chances = float(self.doubts(found)[0]), self.kinds.named(found)
        del chances[NONE]
        total = sum(chances.values()) or 1.0
        kinds = {cast("DoubtKind", k): v / total * doubt for k, v in chances.items()}
        forms = {
            cast("DoubtKind", kind): one.named(one.chances(vector))
            for kind, one in self.subs.items()
        }
        return Scores(kinds, self.threshold, forms)

    def doubts(self, chances: Array) -> Array:
        """The probability of any doubt; chances: (rows, classes), as the regression gives them."""
        none = self.kinds.classes.index(NONE)
        return cast("Array", _sigmoid(self.slope * _logit(1 - chances[:, none]) + self.shift))

    def nearest(self, features: Array, number: int) -> list[tuple[int, float]]:
        """The exemplars most like a conversation, each with the cosine of its angle to it."""
        import numpy as np

        cosines = self.directions.astype(np.float32) @ _unit(self._standard(features))[0]
        return [(int(i), float(cosines[i])) for i in np.argsort(-cosines, kind="stable")[:number]]

    def _standard(self, features: Array) -> Array:
        return cast("Array", ((features.reshape(-1) - self.mean) / self.scale)[None])


def fit(
    features: Array, exemplars: Sequence[Exemplar], digest: str, prefix: Sequence[int] = ()
) -> Reader:
    """Fit a reader; features: (exemplars, layers, width).

    The layer, or all together, is what tells doubts best from their near misses, out of fold.

    Raises what `check` raises.
    """
    check(exemplars)
    import numpy as np

    kinds = np.array([exemplar.kind for exemplar in exemplars])
    weights, doubtful, near, plain = _groups(exemplars)
    ways = _ways(features.shape[1])
    with ThreadPoolExecutor() as pool:  # numpy's work is done outside Python's lock
        parts = (_joined(features, layers) for layers in ways)
        every = list(pool.map(lambda part: _out_of_fold(part, kinds, weights), parts))
    hard = doubtful | near if near.any() else doubtful | plain
    aucs = [_auroc(held[hard], kinds[hard], kinds) for held in every]
    best = int(np.argmax(aucs))
    held, scores = every[best], _doubt(every[best], kinds)
    slope, shift = _calibrated(scores, doubtful)
    chances = _sigmoid(slope * _logit(scores) + shift)
    threshold = float(np.quantile(chances[plain], 1 - FALSE_ALARMS))
    recall = float((chances[doubtful] > threshold).mean())
    joined = _joined(features, ways[best])
    mean, scale = _standard(joined)
    vectors = (joined - mean) / scale
    return Reader(
        digest,
        ways[best],
        threshold,
        slope,
        shift,
        mean,
        scale,
        kinds=_kinds(vectors, kinds, weights),
        held=held.astype(np.float32),
        directions=_unit(vectors).astype(np.float16),
        subs=_sub_kinds(vectors, exemplars),
        prefix=tuple(prefix),
        figures={"auroc": _auroc(held, kinds, kinds), "auroc_near": aucs[best], "recall": recall},
    )


def _ways(number: int) -> list[tuple[int, ...]]:
    """The layers from which a reader may read: each alone, and all together."""
    alone: list[tuple[int, ...]] = [(layer,) for layer in range(number)]
    return alone if number == 1 else [*alone, tuple(range(number))]


def _joined(features: Array, layers: Sequence[int]) -> Array:
    """Of all layers' features those of some, side by side: (exemplars, layers × width)."""
    return cast("Array", features[:, list(layers)].reshape(len(features), -1))


def _groups(exemplars: Sequence[Exemplar]) -> tuple[Array, Array, Array, Array]:
    """Each exemplar's weight, and which are doubts, near misses, and plain."""
    import numpy as np

    doubtful = np.array([exemplar.kind != NONE for exemplar in exemplars])
    near = np.array([exemplar.near for exemplar in exemplars])
    weights = np.where(near, NEAR, np.where([e.own for e in exemplars], OWN, 1.0))
    plain = ~doubtful & ~near
    return weights, doubtful, near, plain if plain.any() else ~doubtful


def _doubt(chances: Array, kinds: Array) -> Array:
    """The chance of any doubt, where columns are the classes that `kinds` has, in order."""
    return cast("Array", 1 - chances[:, sorted({*kinds}).index(NONE)])


def _auroc(chances: Array, labels: Array, kinds: Array) -> float:
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(labels != NONE, _doubt(chances, kinds)))


def check(exemplars: Sequence[Exemplar]) -> None:
    """Raise PromptError where a reader can't be fitted on these, BackendError where not here."""
    try:
        import sklearn  # noqa: F401
    except ImportError:
        raise BackendError(INSTALL) from None
    counts = Counter(exemplar.kind for exemplar in exemplars)
    if NONE not in counts or len(counts) < 2:
        there = ", ".join(sorted(counts)) or "nothing"
        raise PromptError(f"a reader needs exemplars of doubt and of kind 'none': here is {there}")
    if lacking := [kind for kind, number in counts.items() if number < LEAST]:
        said = f"a reader needs at least {LEAST} exemplars of each kind: add some of"
        raise PromptError(f"{said} {', '.join(sorted(lacking))}, or leave that out")


def _sub_kinds(vectors: Array, exemplars: Sequence[Exemplar]) -> dict[str, Classifier]:
    import numpy as np

    subs = np.array([exemplar.sub for exemplar in exemplars])
    kinds = np.array([exemplar.kind for exemplar in exemplars])
    of_kind = {kind: (kinds == kind) & (subs != "") for kind in sorted({*kinds} - {NONE})}
    rows = {kind: rows for kind, rows in of_kind.items() if len({*subs[rows]}) > 1}
    return {kind: _regression(vectors[at], subs[at], SUB_PENALTY) for kind, at in rows.items()}


def _kinds(vectors: Array, labels: Array, weights: Array) -> Classifier:
    import numpy as np

    found = _regression(vectors, labels, PENALTY, weights)
    odds = np.log([PRIORS.get(name, 1.0) for name in found.classes])
    return replace(found, biases=(found.biases + odds).astype(np.float32))


def _regression(
    vectors: Array, labels: Array, penalty: float, weights: Array | None = None
) -> Classifier:
    import numpy as np
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=penalty, class_weight="balanced", max_iter=200, tol=1e-3)
    model.fit(vectors, labels, sample_weight=weights)
    weights, biases = model.coef_, model.intercept_
    if len(model.classes_) == 2:  # one row stands for both classes
        weights, biases = np.vstack([-weights, weights]) / 2, np.hstack([-biases, biases]) / 2
    names = tuple(map(str, model.classes_))
    return Classifier(names, weights.astype(np.float32), biases.astype(np.float32))


def _out_of_fold(features: Array, kinds: Array, weights: Array) -> Array:
    """The chances of each class, of each exemplar by a regression that hasn't seen it."""
    import numpy as np
    from sklearn.model_selection import StratifiedKFold

    classes, numbers = np.unique(kinds, return_counts=True)
    found = np.zeros((len(kinds), len(classes)))
    smallest = min(numbers)
    folds = StratifiedKFold(max(2, min(FOLDS, int(smallest))), shuffle=True, random_state=0)
    for train, test in folds.split(features, kinds):
        mean, scale = _standard(features[train])
        model = _kinds((features[train] - mean) / scale, kinds[train], weights[train])
        found[test] = model.chances((features[test] - mean) / scale)
    return found


def _calibrated(scores: Array, doubtful: Array) -> tuple[float, float]:
    """Slope and shift on the logit that make out-of-fold scores probabilities (Platt)."""
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(class_weight="balanced").fit(_logit(scores)[:, None], doubtful)
    return max(float(model.coef_[0, 0]), 1e-3), float(model.intercept_[0])


def _standard(features: Array) -> tuple[Array, Array]:
    return features.mean(0), features.std(0) + 1e-6


def _unit(vectors: Array) -> Array:
    import numpy as np

    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return cast("Array", vectors / np.maximum(lengths, 1e-12))


def _logit(chance: Any) -> Any:
    import numpy as np

    clipped = np.clip(chance, 1e-6, 1 - 1e-6)
    return np.log(clipped / (1 - clipped))


def _sigmoid(value: Any) -> Any:
    import numpy as np

    return 1 / (1 + np.exp(-value))


def digest(model: Mapping[str, Any], exemplars: Sequence[Exemplar]) -> str:
    """What a fitted reader depends on, as 16 hex digits."""
    rows = [[list(e.messages), e.kind, e.sub, e.near, e.own] for e in exemplars]
    settings = [VERSION, PENALTY, SUB_PENALTY, NEAR, OWN, PRIORS, FALSE_ALARMS, FOLDS]
    text = json.dumps([model, rows, settings], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def save(reader: Reader, path: Path) -> None:
    """Keep a reader; whole or not at all."""
    import numpy as np

    arrays: dict[str, Any] = {name: getattr(reader, name) for name in _ARRAYS}
    classifiers = {NONE: reader.kinds, **reader.subs}
    for name, one in classifiers.items():
        arrays |= {f"{name} weights": one.weights, f"{name} biases": one.biases}
    told = {
        "digest": reader.digest,
        "layers": reader.layers,
        "threshold": reader.threshold,
        "slope": reader.slope,
        "shift": reader.shift,
        "prefix": list(reader.prefix),
        "figures": dict(reader.figures),
        "classes": {name: list(one.classes) for name, one in classifiers.items()},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, made = tempfile.mkstemp(dir=path.parent, suffix=".npz")
    try:
        with os.fdopen(handle, "wb") as file:
            np.savez(file, told=np.array(json.dumps(told)), **arrays)
        Path(made).replace(path)
    finally:
        Path(made).unlink(missing_ok=True)


def load(path: Path, digest: str, width: int) -> Reader | None:
    """The reader kept at `path`; None where there is none, or one that is broken or another's."""
    import numpy as np

    broken = (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile)
    with contextlib.suppress(*broken):
        with path.open("rb") as file, np.load(file, allow_pickle=False) as kept:
            told = json.loads(str(kept["told"]))
            reader = _rebuilt(told, {name: kept[name] for name in kept.files})
        if reader.digest == digest and _sound(reader, width):
            return reader
    return None


def _rebuilt(told: Mapping[str, Any], arrays: Mapping[str, Any]) -> Reader:
    classifiers = {
        name: Classifier(tuple(classes), arrays[f"{name} weights"], arrays[f"{name} biases"])
        for name, classes in told["classes"].items()
    }
    return Reader(
        digest=told["digest"],
        layers=tuple(told["layers"]),
        threshold=float(told["threshold"]),
        slope=float(told["slope"]),
        shift=float(told["shift"]),
        **{name: arrays[name] for name in _ARRAYS},
        kinds=classifiers.pop(NONE),
        subs=classifiers,
        prefix=tuple(told["prefix"]),
        figures=told["figures"],
    )


def _sound(reader: Reader, width: int) -> bool:
    """Whether every array has the shape and the finite numbers that it must have."""
    import numpy as np

    rows, width = len(reader.held), width * len(reader.layers)
    one: list[tuple[Array, tuple[int, ...]]]
    one = [(reader.mean, (width,)), (reader.scale, (width,))]
    one += [(reader.held, (rows, len(reader.kinds.classes))), (reader.directions, (rows, width))]
    for classifier in (reader.kinds, *reader.subs.values()):
        number = len(classifier.classes)
        one += [(classifier.weights, (number, width)), (classifier.biases, (number,))]
    return all(array.shape == shape and np.isfinite(array).all() for array, shape in one)
