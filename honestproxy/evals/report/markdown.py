"""The report as Markdown: the verdict, and a table that fits into a pull request."""

from __future__ import annotations

import re
from collections.abc import Iterator

from honestproxy.evals.report import numbers
from honestproxy.evals.report.categories import h2_lines
from honestproxy.evals.report.summary import Summary
from honestproxy.evals.report.table import Measure

_SPECIAL = re.compile(r"[\\`*|]|~~|(?<!\w)_|_(?!\w)|\](?=[(\[:])|<(?=[A-Za-z/!?])|&(?=#?\w+;)")
"""What Markdown would obey; a lone `[` or ` < ` it leaves alone, and so do we."""

_CAN = {True: "yes", False: "no", None: "?"}

MOST = 100
"""Changed answers that are listed."""
LONGEST = 160
"""Characters of a question there."""


def render(summary: Summary) -> str:
    """The whole text."""
    return "\n".join(_lines(summary)).rstrip() + "\n"


def _lines(summary: Summary) -> Iterator[str]:
    yield f"# {escaped(summary.name)}"
    yield from ("", f"**{escaped(summary.verdict)}**", "")
    for other in summary.verdicts:
        if other.sentence != summary.verdict:
            yield f"- {escaped(other.sentence)}"
    for remark in [*summary.remarks, *summary.limits, *summary.notes]:
        yield f"- {escaped(remark)}"
    if summary.differences:
        yield from ("", "## What differs", "")
        yield from (f"- {escaped(line)}" for line in summary.differences)
    yield from ("", *table(summary), "", numbers.KEY)
    yield from _matrices(summary)
    yield from _categories(summary)
    yield from _h2(summary)
    yield from _changed(summary)


def table(summary: Summary) -> Iterator[str]:
    """The table of measures: a column for each arm."""
    arms = summary.arms
    yield f"| | {' | '.join(map(escaped, arms))} | n | unscored |"
    yield f"|---|{'---|' * len(arms)}--:|--:|"
    group = ""
    for row in summary.measures:
        if row.group != group:
            group = row.group
            yield f"| **{escaped(group)}** |{' |' * (len(arms) + 2)}"
        cells = " | ".join(cell(row, arm) for arm in arms)
        name = escaped(row.name) + (" (gamed)" if row.gamed else "")
        yield f"| {name} | {cells} | {numbers.cases(row)} | {numbers.unscored(row)} |"


def cell(row: Measure, arm: str) -> str:
    """An arm's value and interval, and how it differs."""
    return " · ".join(escaped(part) for part in parts(row, arm))


def parts(row: Measure, arm: str) -> list[str]:
    """The value with its interval; the difference with its own; p."""
    found = row.values.get(arm)
    value = numbers.value(found, row.unit)
    beside = numbers.interval(found, row) if found else ""
    against = row.against(arm)
    told = (
        [numbers.difference(against, row.unit), numbers.probability(against.corrected)]
        if (against)
        else []
    )
    between = ", " if found and found.bound else " "
    return [between.join(filter(None, (value, beside))), *filter(None, told)]


def _matrices(summary: Summary) -> Iterator[str]:
    before = {one.after: one.before for one in summary.verdicts}
    for arm, matrix in summary.matrices.items():
        if not matrix.n:
            continue
        yield from ("", f"## {escaped(before[arm])} → {escaped(arm)}", "")
        names = list(matrix.rows)
        yield f"| after \\ before | {' | '.join(names)} |"
        yield f"|---|{'--:|' * len(names)}"
        for name, row in matrix.rows.items():
            yield f"| **{name}** | {' | '.join(str(row[one]) for one in names)} |"
        if matrix.unscored:
            yield from ("", f"{matrix.unscored} unscored, before or after.")


def _categories(summary: Summary) -> Iterator[str]:
    if not summary.by_category:
        return
    row = summary.measure(summary.category_measure)
    name = row.name if row else summary.category_measure
    yield from ("", f"## By category: {escaped(name)}", "")
    yield f"| | can be answered | {' | '.join(map(escaped, summary.arms))} | n |"
    yield f"|---|---|{'---|' * len(summary.arms)}--:|"
    for category in summary.by_category:
        cells = " | ".join(numbers.reached(category.values[arm], "share") for arm in summary.arms)
        can = _CAN[category.answerable]
        yield f"| {escaped(category.name)} | {can} | {cells} | {category.n} |"


def _h2(summary: Summary) -> Iterator[str]:
    if not summary.h2_by_category:
        return
    yield from ("", "## By category: H²", "")
    yield f"| | can be answered | | {' | '.join(map(escaped, summary.arms))} | n |"
    yield f"|---|---|---|{'---|' * len(summary.arms)}--:|"
    for category, lines in h2_lines(summary.h2_by_category):
        head = f"{escaped(category.name)} | {_CAN[category.answerable]}"
        for name, cells in lines:
            yield f"| {head} | {escaped(name)} | {' | '.join(cells)} | {category.n} |"


def _changed(summary: Summary) -> Iterator[str]:
    if not summary.changed:
        return
    yield from ("", f"## Changed answers: {len(summary.changed):,}", "")
    yield from ("| question | arm | before | after |", "|---|---|---|---|")
    for one in summary.changed[:MOST]:
        labels = f"{one.before or 'unscored'} | {one.after or 'unscored'}"
        yield f"| {escaped(one.question[:LONGEST])} | {escaped(one.arm)} | {labels} |"
    if len(summary.changed) > MOST:
        yield from ("", f"The first {MOST} of them; the page has all, both texts side by side.")


def escaped(text: str) -> str:
    """Text of others as Markdown that shows it, on one line."""
    return _SPECIAL.sub(r"\\\g<0>", " ".join(text.split()))
