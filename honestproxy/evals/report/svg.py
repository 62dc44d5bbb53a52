"""Small drawings: an area with axes, and marks in it, as inline SVG that a style sheet colours."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from html import escape

ARMS = 8
"""Colours that the style sheet has for arms; beyond, they come again."""


def number(value: float) -> str:
    """A coordinate, the same on every machine."""
    return f"{round(value, 1):g}"


def tag(name: str, inside: str | None = None, **attributes: object) -> str:
    """An element; `_` in a name is `-`, and a trailing one is dropped (`class_`)."""
    told = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(_said(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return f"<{name}{told}/>" if inside is None else f"<{name}{told}>{inside}</{name}>"


def text(said: str, x: float, y: float, **attributes: object) -> str:
    """A line of text."""
    return tag("text", escape(said), x=x, y=y, **attributes)


def colour(place: int) -> str:
    """The class that colours an arm by its place."""
    return f"arm{place % ARMS}"


def _said(value: object) -> str:
    return number(value) if isinstance(value, float) else str(value)


@dataclass(slots=True)
class Plot:
    """A drawing with an area for data inside; both axes run from 0 to what is given.

    `label` says what it shows to those who can't see it.
    """

    label: str
    width: float
    height: float
    left: float = 58
    top: float = 12
    right: float = 16
    bottom: float = 40
    most_x: float = 1.0
    most_y: float = 1.0
    parts: list[str] = field(default_factory=list)

    def x(self, value: float) -> float:
        """Where a value stands from the left."""
        return self.left + (self.width - self.left - self.right) * value / (self.most_x or 1)

    def y(self, value: float) -> float:
        """Where a value stands from the top."""
        inside = self.height - self.top - self.bottom
        return self.top + inside * (1 - value / (self.most_y or 1))

    def add(self, *parts: str) -> None:
        """Draw on top."""
        self.parts.extend(parts)

    def grid_x(self, ticks: Iterable[tuple[float, str]], name: str) -> None:
        """Lines across, their values and the axis's name below."""
        below = self.height - self.bottom
        for value, said in ticks:
            at = self.x(value)
            self.add(tag("line", x1=at, x2=at, y1=self.top, y2=below, class_="grid"))
            self.add(text(said, at, below + 15, class_="tick", text_anchor="middle"))
        middle = (self.left + self.width - self.right) / 2
        self.add(text(name, middle, self.height - 6, class_="axis", text_anchor="middle"))

    def grid_y(self, ticks: Iterable[tuple[float, str]], name: str) -> None:
        """The same for the axis that goes up."""
        end = self.width - self.right
        for value, said in ticks:
            at = self.y(value)
            self.add(tag("line", x1=self.left, x2=end, y1=at, y2=at, class_="grid"))
            self.add(text(said, self.left - 6, at + 4, class_="tick", text_anchor="end"))
        middle = (self.top + self.height - self.bottom) / 2
        turned = f"rotate(-90 12 {number(middle)})"
        self.add(text(name, 12, middle, class_="axis", text_anchor="middle", transform=turned))

    def polyline(self, points: Iterable[tuple[float, float]], class_: str) -> None:
        """A curve through points."""
        there = " ".join(f"{number(self.x(x))},{number(self.y(y))}" for x, y in points)
        self.add(tag("polyline", points=there, class_=f"curve {class_}"))

    def render(self) -> str:
        """The whole drawing."""
        box = f"0 0 {number(self.width)} {number(self.height)}"
        inside = tag("title", escape(self.label)) + "".join(self.parts)
        return tag("svg", inside, viewBox=box, role="img", class_="plot")


def percents(step: int = 25) -> list[tuple[float, str]]:
    """Ticks of shares."""
    return [(value / 100, f"{value} %") for value in range(0, 101, step)]


def rounds(most: float) -> list[tuple[float, str]]:
    """Up to six round numbers from 0 to what is given."""
    step = next(
        base * 10**power
        for power in range(-4, 12)
        for base in (1, 2, 5)
        if base * 10**power * 5 >= most
    )
    ticks = [step * count for count in range(7) if step * count <= most]
    return [(tick, f"{round(tick, 4):,g}") for tick in ticks]
