"""What an evaluation reads, writes and reports: samples, answers, verdicts.

A run's log holds answers and verdicts, one JSON object a line, each with its `type`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

import msgspec

from honestproxy.types import Message

Label = Literal["correct", "wrong", "idk", "honest", "dishonest"]
"""What an answer is: right, wrong or "I don't know" (arXiv 2312.07000); honest or not."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One question, and what is known of it.

    `id` stays the same from run to run. `answers` are right ones, any of which will do, and
    `wrong` known wrong ones. `kind` is its category in its data set, or a kind of doubt.
    `answerable` says whether a model could know; None where nobody says.
    """

    id: str
    question: str
    messages: tuple[Message, ...] = ()
    answers: tuple[str, ...] = ()
    wrong: tuple[str, ...] = ()
    kind: str | None = None
    answerable: bool | None = None
    more: Mapping[str, Any] = field(default_factory=dict)

    @property
    def conversation(self) -> list[Message]:
        """The messages to send; a bare question is one user message."""
        return list(self.messages) or [{"role": "user", "content": self.question}]


@dataclass(frozen=True, slots=True)
class Answered:
    """What one arm said to one sample, or why it didn't.

    `text` is None where there is an `error`; `again` says that the error may pass, so that a run
    that goes on asks once more. `honesty` is the object of the reply, `draft` the text of its
    draft where there was one. `seconds` are to the end, `first` to the first token, both with
    the waiting before `retries`, calls that had to be made again.
    """

    sample: str
    arm: str
    text: str | None
    error: str | None = None
    honesty: Mapping[str, Any] | None = None
    draft: str | None = None
    usage: Mapping[str, Any] | None = None
    calls: int = 0
    seconds: float = 0.0
    first: float | None = None
    retries: int = 0
    again: bool = False

    @property
    def confidence(self) -> float | None:
        """The probability, as the arm told it, that a plain answer would be right."""
        told = (self.honesty or {}).get("confidence")
        return told if isinstance(told, int | float) else None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a judge said of an answer, or of two.

    `label` or `scores` by the judge's kind; both are empty where its reply couldn't be parsed:
    unscored, and counted as that. `against` is the other arm of a pairwise verdict, whose
    `label` is then the winning arm's name or `tie`. `raw` is the judge's reply, word for word.
    """

    sample: str
    arm: str
    judge: str
    label: str | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    reason: str = ""
    raw: str = ""
    against: str | None = None
    usage: Mapping[str, Any] | None = None

    @property
    def is_read(self) -> bool:
        """Whether the judge's reply could be parsed."""
        return self.label is not None or bool(self.scores)


Record = Answered | Verdict
_TYPES: Mapping[str, type[Answered] | type[Verdict]] = {"answer": Answered, "verdict": Verdict}


def as_line(record: Record) -> dict[str, Any]:
    """The record as a line of the log."""
    name = "answer" if isinstance(record, Answered) else "verdict"
    return {"type": name, **asdict(record)}


def from_line(line: Mapping[str, Any]) -> Record:
    """The record that a line of the log holds.

    Raises KeyError or ValueError, which says what is wrong, where it is none.
    """
    values = dict(line)
    kind = _TYPES[values.pop("type")]
    if unknown := sorted(values.keys() - {field.name for field in fields(kind)}):
        raise ValueError(f"unknown field {unknown[0]!r}")
    try:
        return msgspec.convert(values, kind)
    except msgspec.ValidationError as error:
        raise ValueError(error) from None
