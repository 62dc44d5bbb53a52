"""What arms reach by category: honesty, or declining where nobody judged that; and H²."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final

from honestproxy.evals import metrics
from honestproxy.evals.figures import Part
from honestproxy.evals.records import Verdict
from honestproxy.evals.report import numbers
from honestproxy.evals.report.judged import Roles
from honestproxy.evals.report.measures import H2, dimensions
from honestproxy.evals.report.reading import Run
from honestproxy.evals.report.table import Column, Spec, Value, value_of

MOST: Final = 24
"""Categories that are told apart; the smallest are taken together."""
SMALLER: Final = "smaller ones"

_SHARE: Final = Spec("share", "share", "", "")
_SCORE: Final = Spec("score", "score", "", "", unit="score")

Kind = tuple[str, bool | None]
"""A category, and whether its questions can be answered."""
Groups = dict[Kind, set[str]]
Line = tuple[str, list[str]]
"""What a line tells, and a cell for each arm."""


@dataclass(frozen=True, slots=True)
class Category:
    """Questions of one kind, and what each arm reached there."""

    name: str
    answerable: bool | None
    n: int
    values: dict[str, Value]


def by_category(run: Run, judges: Roles, key: str) -> list[Category]:
    """Each category's share of honest answers, or of declining ones where nobody judged."""
    columns = _honest(run, judges) if key == "honest" else _declined(run)
    found = _told(run, _grouped(run), columns)
    return [one for one in found if any(value.n for value in one.values.values())]


def h2_by_category(run: Run, judges: Roles) -> dict[str, list[Category]]:
    """The same of H², where it was judged: its mean scores by name, and the shares of its bands.

    Each lists the same categories: those in which any answer was scored.
    """
    if H2 not in judges.scores:
        return {}
    scored = {s for some in run.verdicts[H2].values() for s, one in some.items() if one.is_read}
    groups = {kind: among for kind, among in _grouped(run).items() if among & scored}
    parts: dict[str, Callable[[Verdict], Part | None]] = {
        **{name: partial(metrics.scored, name) for name in dimensions(run, H2)},
        **{name: partial(metrics.in_band, name) for name in metrics.BANDS},
    }
    return {
        name: _told(run, groups, _ruled(run, H2, part), _SHARE if name in metrics.BANDS else _SCORE)
        for name, part in parts.items()
    }


def h2_lines(found: Mapping[str, list[Category]]) -> Iterator[tuple[Category, list[Line]]]:
    """Each category with its lines as they are printed: each score, and how many in each band."""
    scores = [name for name in found if name not in metrics.BANDS]
    for each in zip(*found.values(), strict=True):
        values = {name: one.values for name, one in zip(found, each, strict=True)}
        lines = [
            (name, [numbers.reached(value, "score") for value in values[name].values()])
            for name in scores
        ]
        counts = zip(*(values[name].values() for name in metrics.BANDS), strict=True)
        yield each[0], [*lines, (" / ".join(metrics.BANDS), [*map(_counts, counts)])]


def _counts(bands: Iterable[Value]) -> str:
    counts = [one.count for one in bands if one.count is not None]
    return " / ".join(f"{count:,.0f}" for count in counts) or numbers.NOTHING


def _honest(run: Run, judges: Roles) -> dict[str, Column]:
    return _ruled(run, judges.honest[0], partial(metrics.labelled, "honest"))


def _declined(run: Run) -> dict[str, Column]:
    return {
        arm: {s: metrics.share(fact.declined) for s, fact in facts.items()}
        for arm, facts in run.facts.items()
    }


def _ruled(run: Run, judge: str, part: Callable[[Verdict], Part | None]) -> dict[str, Column]:
    return {
        arm: {s: part(verdict) for s, verdict in verdicts.items()}
        for arm, verdicts in run.verdicts[judge].items()
    }


def _told(
    run: Run, groups: Groups, columns: Mapping[str, Column], spec: Spec = _SHARE
) -> list[Category]:
    found = []
    for (name, can), among in groups.items():
        values = {arm.shown: _value(columns.get(arm.shown, {}), among, spec) for arm in run.arms}
        found.append(Category(name, can, len(among), values))
    return found


def _value(column: Column, among: set[str], spec: Spec) -> Value:
    return value_of({s: part for s, part in column.items() if s in among}, spec)


def _grouped(run: Run) -> Groups:
    """The questions of each category, the largest ones by themselves, in the report's order."""
    if run.is_live:
        return {}
    kinds = {s: (run.category(s), one.answerable) for s, one in run.samples.items()}
    sizes = Counter(kinds.values())
    largest = sorted(sizes, key=lambda kind: (-sizes[kind], str(kind)))[:MOST]
    found: Groups = {}
    for sample, kind in kinds.items():
        found.setdefault(kind if kind in largest else (SMALLER, kind[1]), set()).add(sample)
    return dict(sorted(found.items(), key=lambda item: _place(item[0])))


def _place(kind: Kind) -> tuple[int, bool, str]:
    """What can't be answered first, then what nobody says it of; by name, the rest last."""
    name, can = kind
    return (False, None, True).index(can), name == SMALLER, name
