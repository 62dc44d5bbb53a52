"""A measured number, with what a reader needs to trust it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

Part = tuple[float, float]
"""What a question adds above and below the line of a share; a mean has 1 below."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A value over `n` cases, or none where there was nothing to measure.

    `count` is what was counted where the value is a share. `unscored` are cases that had to be
    left out. `convention` is what a paper puts in the place of an undefined value.
    """

    value: float | None
    n: int
    count: float | None = None
    unscored: int = 0
    convention: float | None = None

    @classmethod
    def share(
        cls, count: float, n: int, *, unscored: int = 0, convention: float | None = None
    ) -> Figure:
        """`count` of `n`; undefined where `n` is 0."""
        return cls(count / n if n else None, n, count, unscored, None if n else convention)

    @classmethod
    def mean(cls, values: list[float], *, unscored: int = 0) -> Figure:
        """The arithmetic mean; undefined where there are no values."""
        return cls(sum(values) / len(values) if values else None, len(values), unscored=unscored)

    @classmethod
    def of(
        cls,
        parts: Iterable[Part | None],
        *,
        of_all: bool = False,
        convention: float | None = None,
    ) -> Figure:
        """What questions add up to, None being unscored; undefined with nothing below the line.

        `n` is what is below it where that counts questions. It is all that are scored where it
        doesn't, or where each bears on the value whatever it adds (`of_all`), as with F1.
        """
        every = list(parts)
        known = [part for part in every if part is not None]
        above, below = sum(part[0] for part in known), sum(part[1] for part in known)
        unscored = len(every) - len(known)
        if not below:
            return cls(None, 0, unscored=unscored, convention=convention)
        if not of_all and all(some in (0, 1) and of in (0, 1) for some, of in known):
            return cls(above / below, round(below), above, unscored)
        return cls(above / below, len(known), unscored=unscored)

    @property
    def conventional(self) -> float | None:
        """The value, or the paper's convention where it is undefined."""
        return self.convention if self.value is None else self.value

    def __str__(self) -> str:
        if self.value is not None:
            return f"{self.value:.3f}"
        return "undefined" if self.convention is None else f"undefined [{self.convention}]"
