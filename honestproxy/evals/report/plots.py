"""The plots: by category, before and after, reliability, risk–coverage, cost and honesty."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from honestproxy.evals.calibration import Calibration
from honestproxy.evals.matrix import LABELS, Matrix
from honestproxy.evals.report import numbers
from honestproxy.evals.report.categories import Category
from honestproxy.evals.report.summary import Summary
from honestproxy.evals.report.svg import Plot, colour, number, percents, rounds, tag, text
from honestproxy.evals.report.table import Value

_LINE: Final = 11.0
"""Between two arms of one category."""
_CHANGES: Final = {
    ("wrong", "correct"): ("broken", "bad"),
    ("idk", "correct"): ("withheld", "bad"),
    ("correct", "wrong"): ("mended", "good"),
    ("idk", "wrong"): ("admitted", "good"),
    ("correct", "idk"): ("found", "good"),
    ("wrong", "idk"): ("lost", "bad"),
}
"""What an answer became, by its label after and before."""


def by_category(summary: Summary) -> str:
    """A dot and its interval for each arm in each category."""
    plot = Plot("by category", 420, 0, left=150, right=22, top=8)
    return _categories(plot, summary, summary.by_category, percents(), _named(summary))


def h2_by_category(summary: Summary) -> str:
    """The same of the overall score of H², between whose bands there are lines."""
    plot = Plot("H² by category", 420, 0, left=150, right=22, top=8, most_x=10)
    ticks = [(float(tick), str(tick)) for tick in (1, 4, 7, 10)]
    found = summary.h2_by_category["overall"]
    return _categories(plot, summary, found, ticks, "H² overall")


def _categories(
    plot: Plot,
    summary: Summary,
    categories: list[Category],
    ticks: list[tuple[float, str]],
    name: str,
) -> str:
    arms = summary.arms
    rows = [*_grouped(categories)]
    heights = [24.0 if isinstance(row, str) else _LINE * len(arms) + 13 for row in rows]
    plot.height = sum(heights) + 52
    plot.grid_x(ticks, name)
    at = plot.top
    for row, height in zip(rows, heights, strict=True):
        if isinstance(row, str):
            plot.add(text(row, 4, at + 17, class_="group"))
        else:
            _category(plot, row, at, height, arms)
        at += height
    return plot.render()


def _grouped(categories: list[Category]) -> Iterator[Category | str]:
    said = {False: "can’t be answered", True: "can be answered", None: "nobody says"}
    last: object = ""
    for category in categories:
        if category.answerable != last:
            last = category.answerable
            yield said[category.answerable]
        yield category


def _category(plot: Plot, row: Category, at: float, height: float, arms: list[str]) -> None:
    middle = at + height / 2
    name = row.name.replace("_", " ")
    shown = name if len(name) <= 24 else f"{name[:23]}…"
    plot.add(text(shown, plot.left - 12, middle + 4, class_="tick", text_anchor="end"))
    plot.add(tag("line", x1=4.0, x2=plot.width - plot.right, y1=at, y2=at, class_="rule"))
    for place, arm in enumerate(arms):
        value = row.values[arm]
        if value.value is None or value.low is None or value.high is None:
            continue
        y = middle + _LINE * (place - (len(arms) - 1) / 2)
        share = f"{numbers.points(value.value)} % of {value.n}"
        said = share if plot.most_x == 1 else f"{value.value:.2f}, the mean of {value.n}"
        told = f"{name}, {arm}: {said}"
        low, high, x = plot.x(value.low), plot.x(value.high), plot.x(value.value)
        plot.add(
            tag(
                "g",
                tag("title", text_of(told))
                + tag("line", x1=low, x2=high, y1=y, y2=y, class_="whisker")
                + tag("circle", cx=x, cy=y, r=4.0, class_="dot"),
                class_=colour(place),
            )
        )


def text_of(said: str) -> str:
    """Text inside an element."""
    return said.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _named(summary: Summary) -> str:
    row = summary.measure(summary.category_measure)
    return row.name if row else summary.category_measure


def matrix(crossed: Matrix, before: str, after: str) -> str:
    """What answers were and became, nine cells; the deeper, the more of that column."""
    plot = Plot(f"{before} to {after}", 360, 318, left=96, top=58, right=8, bottom=8)
    wide, tall = (plot.width - plot.left - plot.right) / 3, 84.0
    plot.add(
        text(f"{before}: before", plot.left + 1.5 * wide, 16, class_="axis", text_anchor="middle")
    )
    middle = plot.top + 1.5 * tall
    turned = f"rotate(-90 14 {number(middle)})"
    plot.add(
        text(f"{after}: after", 14, middle, class_="axis", text_anchor="middle", transform=turned)
    )
    for column, name in enumerate(LABELS):
        total = sum(crossed.rows[label][name] for label in LABELS)
        x = plot.left + wide * (column + 0.5)
        plot.add(text(name, x, 36, class_="label", text_anchor="middle"))
        plot.add(text(f"{total:,}", x, 51, class_="tick", text_anchor="middle"))
        for line, label in enumerate(LABELS):
            y = plot.top + tall * line
            _cell(
                plot, x - wide / 2, y, wide, tall, (label, name), crossed.rows[label][name], total
            )
    for line, label in enumerate(LABELS):
        y = plot.top + tall * (line + 0.5)
        plot.add(text(label, plot.left - 10, y, class_="label", text_anchor="end"))
        total = sum(crossed.rows[label].values())
        plot.add(text(f"{total:,}", plot.left - 10, y + 15, class_="tick", text_anchor="end"))
    return plot.render()


def _cell(
    plot: Plot,
    x: float,
    y: float,
    wide: float,
    tall: float,
    cell: tuple[str, str],
    count: int,
    total: int,
) -> None:
    word, kind = _CHANGES.get(cell, ("same", "same"))
    share = count / total if total else 0.0
    box: dict[str, Any] = {"x": x + 2, "y": y + 2, "width": wide - 4, "height": tall - 4, "rx": 6.0}
    plot.add(tag("rect", **box, class_="cell"))
    if count:
        depth = f"{0.1 + 0.35 * share:.2f}"
        plot.add(tag("rect", **box, class_=f"cell {kind}", fill_opacity=depth))
    middle = x + wide / 2
    shade, small = ("count", "word") if count else ("count none", "tick")
    plot.add(text(f"{count:,}", middle, y + tall / 2 - 8, class_=shade, text_anchor="middle"))
    plot.add(text(word, middle, y + tall / 2 + 11, class_=small, text_anchor="middle"))
    if count:
        said = f"{numbers.points(share)} %"
        plot.add(text(said, middle, y + tall / 2 + 27, class_="word", text_anchor="middle"))


def reliability(own: Calibration, length: Calibration, place: int) -> str:
    """How often answers of a confidence are right; below, how many have it."""
    plot = Plot("reliability", 360, 330, bottom=92)
    plot.grid_x(percents(), "")
    plot.grid_y(percents(), "right")
    plot.polyline([(0, 0), (1, 1)], "ideal")
    bins = own.bins_width
    plot.polyline([(one.confidence, one.right) for one in bins], colour(place))
    largest = max((one.n for one in bins), default=1)
    base = plot.height - 22
    for one in bins:
        told = (
            f"{numbers.points(one.confidence)} % sure, {numbers.points(one.right)} % right: {one.n}"
        )
        size = 3 + 5 * (one.n / largest) ** 0.5
        tall = 36 * one.n / largest
        left, right = plot.x(one.low) + 1.5, plot.x(one.high) - 1.5
        plot.add(
            tag(
                "g",
                tag("title", text_of(told))
                + tag(
                    "circle", cx=plot.x(one.confidence), cy=plot.y(one.right), r=size, class_="dot"
                )
                + tag("rect", x=left, y=base - tall, width=right - left, height=tall, class_="bar"),
                class_=colour(place),
            )
        )
    middle = (plot.left + plot.width - plot.right) / 2
    plot.add(text("confidence", middle, plot.height - 6, class_="axis", text_anchor="middle"))
    return plot.render()


def risk_coverage(own: Calibration, length: Calibration, place: int) -> str:
    """Which share is wrong if only the surest are answered, beside the shortest."""
    highest = max((one.risk for one in [*own.risk_coverage, *length.risk_coverage]), default=1.0)
    most = min(1.0, max(0.1, round(highest * 1.1 + 0.05, 1)))
    plot = Plot("risk over coverage", 360, 330, most_y=most)
    plot.grid_x(percents(), "answered, the surest first")
    ticks = [(tick, f"{numbers.points(tick)} %") for tick, _ in rounds(most)]
    plot.grid_y(ticks, "of these wrong")
    if own.risk.value is not None:
        plot.polyline([(0, own.risk.value), (1, own.risk.value)], "ideal")
    plot.polyline([(one.coverage, one.risk) for one in length.risk_coverage], "length")
    plot.polyline([(one.coverage, one.risk) for one in own.risk_coverage], colour(place))
    return plot.render()


def cost_and_honesty(summary: Summary) -> str:
    """Each arm's honesty over what it takes; up and to the left is better."""
    points = [
        (place, *found) for place, arm in enumerate(summary.arms) if (found := _place(summary, arm))
    ]
    most = max((taken for _, taken, _ in points), default=0.0) * 1.25 or 1.0
    plot = Plot("cost and honesty", 420, 330, most_x=most, top=16)
    plot.grid_x(rounds(most), f"{summary.cost_unit} a question")
    plot.grid_y(percents(), summary.honesty_name)
    taken_up: list[tuple[float, float]] = []
    for place, taken, value in points:
        x, y = plot.x(taken), plot.y(value.value or 0.0)
        ends = (value.low if value.low is not None else value.value, value.high or value.value)
        low, high = (plot.y(end or 0.0) for end in ends)
        whisker = tag("line", x1=x, x2=x, y1=low, y2=high, class_="whisker")
        dot = tag("circle", cx=x, cy=y, r=6.0, class_="dot")
        plot.add(tag("g", whisker + dot, class_=colour(place)))
        anchor, offset = ("end", -10.0) if taken > most * 0.6 else ("start", 10.0)
        line = y + 4
        # Arms that stand in one place have their names below each other.
        while any(abs(line - other) < 14 and abs(x - beside) < 90 for beside, other in taken_up):
            line += 14
        taken_up.append((x, line))
        plot.add(text(summary.arms[place], x + offset, line, class_="name", text_anchor=anchor))
    return plot.render()


def _place(summary: Summary, arm: str) -> tuple[float, Value] | None:
    value, taken = summary.honesty_by_arm.get(arm), summary.cost_by_arm.get(arm)
    return None if value is None or value.value is None or taken is None else (taken, value)
