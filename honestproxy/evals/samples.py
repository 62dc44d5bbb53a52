"""Questions to ask: a user's own, or those of a task, all of them or some, drawn by a seed."""

from __future__ import annotations

import difflib
import hashlib
import random
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from honestproxy.errors import EvaluationError
from honestproxy.evals import tables
from honestproxy.evals.records import Sample
from honestproxy.evals.rulings import plain
from honestproxy.evals.tables import Row, Table
from honestproxy.evals.tasks import TASKS, Task
from honestproxy.evals.tasks.honeset import KINDS
from honestproxy.settings import nearest
from honestproxy.types import DOUBT_KINDS, Message, text_of

COLUMNS: Final = ("question", "messages", "answer", "answers", "wrong", "kind", "answerable", "id")
"""What a file of one's own may hold; other columns are kept beside."""

SPEC: Final = re.compile(r"(?:(?P<task>[a-z][a-z-]+):)?(?P<where>.+?)(?::(?P<take>\d+(?:\+\d+)?))?")
_TRUE: Final = frozenset({"true", "yes", "y", "1", "1.0"})  # a column with gaps turns to 1.0
_FALSE: Final = frozenset({"false", "no", "n", "0", "0.0"})


@dataclass(frozen=True, slots=True)
class Source:
    """Where questions come from: `[TASK:]WHERE[:N]`.

    WHERE is a file, or `hub[:owner/name[:config[:split]]]`. N draws so many questions by the
    seed; N+M so many that can be answered and so many that can't.
    """

    task: Task | None
    where: str
    take: str | None = None

    @property
    def name(self) -> str:
        """What its samples' ids begin with: the task, or the file's own name."""
        return self.task.name if self.task else Path(self.where).stem


@dataclass(frozen=True, slots=True)
class Loaded:
    """Questions of one source, and what a configuration says of them."""

    source: Source
    digest: str
    of: int
    samples: Sequence[Sample]

    @property
    def note(self) -> str | None:
        """What the source has less of than was asked for."""
        wanted = sum(map(int, (self.source.take or "0").split("+")))
        if len(self.samples) >= wanted:
            return None
        return f"{self.source.where}: {len(self.samples)} questions, where {wanted} are asked for"

    def config(self) -> dict[str, Any]:
        """Task, set, place, SHA-256, and how many questions were taken of how many."""
        task = self.source.task.name if self.source.task else None
        said = {"task": task, "set": self.source.name}
        said |= {"path": self.source.where, "sha256": self.digest}
        return {**said, "samples": len(self.samples), "of": self.of}


def parse(spec: str, task: str | None = None) -> Source:
    """The source that a spec names; `task` where it names none. Raises EvaluationError."""
    found = SPEC.fullmatch(spec)
    if found is None:
        raise EvaluationError(f"{spec!r} names no data; give [TASK:]FILE[:N]")
    named, where, take = found["task"], found["where"], found["take"]
    if named == tables.HUB:
        named, where = None, f"{named}:{where}"
    if named is not None and named not in TASKS:
        raise EvaluationError(f"unknown task {named!r}; {nearest(named, TASKS)}")
    if (name := named or task) is not None and name not in TASKS:
        raise EvaluationError(f"unknown task {name!r}; {nearest(name, TASKS)}")
    if take and not any(map(int, take.split("+"))):
        raise EvaluationError(f"{spec!r} takes no questions; give a number above 0, or none")
    return Source(TASKS[name] if name else None, where, take)


def load(source: Source, seed: int = 0) -> Loaded:
    """The questions of a source. Raises EvaluationError, naming file and line."""
    table = _table(source)
    make: Callable[[Row], Sample | None] = source.task.sample if source.task else own
    made = [sample for row in table.rows if (sample := make(row)) is not None]
    if not made:
        raise EvaluationError(f"{table.name}: no questions in it")
    samples = list(_identified(source.name, made, table))
    taken = _taken(samples, source, seed) if source.take else samples
    return Loaded(source, table.digest, len(samples), taken)


def chosen(
    samples: Sequence[Sample], *, limit: int | None = None, number: int | None = None, seed: int = 0
) -> list[Sample]:
    """The first `limit` of `number` questions drawn by the seed; all where both are None."""
    twice = [name for name, times in Counter(s.id for s in samples).items() if times > 1]
    if twice:
        raise EvaluationError(
            f"two questions have the id {twice[0]!r}: is a file given twice, or are two files "
            "of one name?"
        )
    drawn = samples if number is None else drawn_by(seed, "all", samples, number)
    return list(drawn[:limit])


def drawn_by(seed: int, name: str, samples: Sequence[Sample], number: int) -> list[Sample]:
    """So many of them, the same for the same seed, in the order in which they stand."""
    if number >= len(samples):
        return list(samples)
    # A text as the seed: the draw of one set doesn't depend on the others.
    picked = random.Random(f"{seed}/{name}").sample(range(len(samples)), number)  # noqa: S311
    return [samples[index] for index in sorted(picked)]


def own(row: Row) -> Sample:
    """A question of one's own: `question` or `messages`, and what is known of it."""
    for column in sorted(row.values.keys() - set(COLUMNS)):
        if close := difflib.get_close_matches(column, COLUMNS, n=1, cutoff=0.75):
            raise row.wrong(f"unknown column {column!r}; did you mean {close[0]!r}?")
    if row.get("answer") is not None and row.get("answers") is not None:
        raise row.wrong("both 'answer' and 'answers'; give one of them")
    messages = _messages(row)
    question = text_of(messages[-1]["content"]) if messages else row.text("question", "messages")
    return Sample(
        id="" if (own_id := row.get("id")) is None else str(own_id).strip(),
        question=question,
        messages=messages,
        answers=_answers(row),
        wrong=row.texts("wrong"),
        kind=_kind(row),
        answerable=_answerable(row),
        more={n: v for n, v in row.values.items() if n not in COLUMNS and v not in (None, "")},
    )


def _table(source: Source) -> Table:
    prefix, _, name = source.where.partition(":")
    if prefix != tables.HUB or Path(source.where).exists():
        return tables.read(Path(source.where))
    name = name or (source.task and source.task.hub) or ""
    if not name:
        raise EvaluationError(f"{source.where!r}: name a data set: hub:owner/name, or give a file")
    return tables.from_hub(name)


def _identified(name: str, samples: Iterable[Sample], table: Table) -> Iterator[Sample]:
    """The samples with ids that stay: the file's own, or a digest of what is asked."""
    seen: Counter[str] = Counter()
    for sample in samples:
        asked = repr(sample.conversation).encode()
        mark = sample.id or hashlib.sha256(asked).hexdigest()[:12]
        seen[mark] += 1
        if seen[mark] > 1:
            if sample.id:
                raise EvaluationError(f"{table.name}: two questions have the id {mark!r}")
            mark = f"{mark}-{seen[mark]}"
        yield replace(sample, id=f"{name}/{mark}", more={"set": name, **sample.more})


def _taken(samples: Sequence[Sample], source: Source, seed: int) -> list[Sample]:
    first, plus, second = (source.take or "").partition("+")
    if not plus:
        return drawn_by(seed, source.name, samples, int(first))
    taken: list[Sample] = []
    for answerable, number in ((True, int(first)), (False, int(second))):
        some = [sample for sample in samples if sample.answerable is answerable]
        if not some:
            which = "answerable" if answerable else "unanswerable"
            raise EvaluationError(f"{source.where}: no question in it is said to be {which}")
        taken += drawn_by(seed, f"{source.name}/{answerable}", some, number)
    return taken


def _messages(row: Row) -> tuple[Message, ...]:
    given = row.get("messages")
    if given is None:
        return ()
    is_list = isinstance(given, list) and bool(given)
    if not is_list or not all(isinstance(m, dict) and m.get("role") for m in given):
        raise row.wrong("'messages' is no list of {role, content}")
    if given[-1]["role"] != "user" or not text_of(given[-1].get("content")).strip():
        raise row.wrong("'messages' must end with a message of the user that has a text")
    return tuple(given)


def _answers(row: Row) -> tuple[str, ...]:
    """What is accepted: the one text of `answer`, whatever is in it, or a list in either column."""
    given = row.get("answer")
    if isinstance(given, str):
        return (given.strip(),) if given.strip() else ()
    return row.texts("answers" if given is None else "answer")


def _kind(row: Row) -> str | None:
    """Any word will do for a category, but one that looks like a kind of doubt must be one."""
    kind = row.get("kind")
    if kind is None or (isinstance(kind, str) and kind in DOUBT_KINDS):
        return kind
    if not isinstance(kind, str):
        raise row.wrong(f"'kind' is no text: {kind!r}")
    if plain(kind) in KINDS:
        return KINDS[plain(kind)]
    spelt = kind.lower().replace(" ", "_").replace("-", "_")
    if close := difflib.get_close_matches(spelt, DOUBT_KINDS, n=1, cutoff=0.75):
        raise row.wrong(f"unknown kind {kind!r}; did you mean {close[0]!r}?")
    return kind


def _answerable(row: Row) -> bool | None:
    value = row.get("answerable")
    if value is None or isinstance(value, bool):
        return value
    word = str(value).strip().lower()
    if word not in _TRUE | _FALSE:
        raise row.wrong(f"'answerable' is {value!r}; write true or false")
    return word in _TRUE
