"""What every benchmark of the proxy prints: progress, and values beside their bounds."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Bound:
    """A measured value, and what it is to keep."""

    what: str
    value: float | None
    bound: float
    unit: str = ""
    at_least: bool = False

    @property
    def ok(self) -> bool | None:
        """Whether it is kept; None where nothing was measured."""
        if self.value is None:
            return None
        return self.value >= self.bound if self.at_least else self.value <= self.bound

    def __str__(self) -> str:
        verdict = {True: "ok", False: "SHORT", None: "not measured"}[self.ok]
        value = "–" if self.value is None else shown(self.value)
        side = "≥" if self.at_least else "≤"
        return f"{self.what:<62} {value:>9} {side} {self.bound:g} {self.unit:<6} {verdict}"

    def json(self) -> dict[str, Any]:
        return {**asdict(self), "ok": self.ok}


def shown(value: float | None) -> str:
    """A number with three digits that say something."""
    if value is None:
        return "–"
    if isinstance(value, int):
        return f"{value:,}"
    size = abs(value)
    return f"{value:,.0f}" if size >= 100 else f"{value:.3g}" if size >= 1 else f"{value:.2f}"


def table(head: list[str], rows: list[list[str]]) -> str:
    """Rows of text in columns, the first one to the left."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if number else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in (head, *rows)
    )


def progress(text: str) -> None:
    """One line on stderr that is written over by the next."""
    sys.stderr.write(f"\r\x1b[K{text}" if sys.stderr.isatty() else f"{text}\n")
    sys.stderr.flush()
