"""One thread owns the model; whatever is asked at the same time is decoded together."""

from __future__ import annotations

import logging
import queue
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from honestproxy.backends.local.batch import Batch, Prefill, Watch
from honestproxy.backends.local.logprobs import Entry, Ledger
from honestproxy.backends.local.prefixes import LIMIT, Prefixes, reusable
from honestproxy.backends.local.quote import Lead
from honestproxy.backends.local.sampling import Picker, Sampling
from honestproxy.backends.local.text import Detokenizer, StopGuard
from honestproxy.errors import BackendError

MAX_ROWS: Final = 32
"""Answers decoded at the same time; more wait their turn."""

CLOSED: Final = "the local model is closed"

T = TypeVar("T")
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Piece:
    """News of one choice: text, and at its end why it ended and how many tokens it took.

    `logprobs` are those of the tokens that the text completes; None where nobody asked.
    """

    choice: int
    text: str
    finish_reason: str | None = None
    tokens: int = 0
    logprobs: list[Entry] | None = None


class Writer:
    """One answer being written: chooses its tokens, and says what text they make.

    `begun` are tokens that the answer already holds; `room` is for how many more. The `lead`
    says the next ones, while it has some. With a `ledger` it says how likely they were, too.
    """

    def __init__(
        self,
        choice: int,
        sampling: Sampling,
        room: int,
        decode: Callable[[Sequence[int]], str],
        ends: frozenset[int],
        begun: Sequence[int] = (),
        lead: Lead | None = None,
        ledger: Ledger | None = None,
    ) -> None:
        self.choice = choice
        self.token = -1
        self.room = room
        self.written: list[int] = []
        self._ends = ends
        self._picker = Picker(sampling, choice, begun)
        self._words = Detokenizer(decode)
        self._guard = StopGuard(sampling.stop, brief=sampling.brief)
        self._lead = lead or Lead()
        self._ledger = ledger

    def write(self, logits: Any) -> Piece:
        """Choose the next token."""
        given = self._lead.next(logits)
        self.token = self._picker.pick(logits) if given is None else self._picker.take(given)
        self.written.append(self.token)
        if self.token in self._ends:
            return self._end("", "stop")
        text, stopped = self._guard.add(self._heard(logits), given=given is not None)
        if stopped:
            return self._last(text, "stop")
        if len(self.written) >= self.room:
            return self._end(text, "length")
        told = self._ledger.out(text) if self._ledger else None
        return Piece(self.choice, text, logprobs=told)

    def _heard(self, logits: Any) -> str:
        """The text that the token completes."""
        text = self._words.add(self.token)
        if self._ledger:
            self._ledger.add(self.token, logits, text)
        return text

    def _end(self, text: str, reason: str) -> Piece:
        held = self._words.rest()
        more, stopped = self._guard.add(held)
        rest = "" if stopped else self._guard.rest()
        return self._last(text + more + rest, "stop" if stopped else reason, held)

    def _last(self, text: str, reason: str, held: str = "") -> Piece:
        told = self._ledger.close(held, text) if self._ledger else None
        return Piece(self.choice, text, reason, len(self.written), told)


@dataclass(eq=False, slots=True)
class Job:
    """A prompt, the answers to be written to it, and who is to be told.

    `tell` and `watch` are called in the engine's thread, `tell` with pieces or with one error.
    Without writers the prompt is only read.
    """

    ids: Sequence[int]
    writers: list[Writer]
    tell: Callable[[Piece | BackendError], None]
    watch: Watch | None = None
    cancelled: bool = False


@dataclass(eq=False, slots=True)
class _Task:
    """Something else to be done with the model, between two steps."""

    work: Callable[[Any, Prefixes], Any]
    changes: bool
    result: Future[Any] = field(default_factory=Future)


class Engine:
    """Decodes jobs in a thread of its own until it is closed.

    A job whose `cancelled` is set leaves before the next token. An error ends the jobs that
    it concerns and nothing else.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._inbox: queue.SimpleQueue[Job | _Task | None] = queue.SimpleQueue()
        self._waiting: deque[Job] = deque()
        self._reading: tuple[Job, Prefill] | None = None
        self._rows: list[tuple[Job, Writer]] = []
        self._batch = Batch(model)
        self._prefixes = Prefixes(LIMIT if reusable(model) else 0)
        self._open = True
        self._door = threading.Lock()
        self._shut = False
        self._thread = threading.Thread(target=self._run, name="honestproxy-engine", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether its thread runs."""
        return self._thread.is_alive()

    def submit(self, job: Job) -> None:
        """Hand a job over; returns at once. Raises BackendError once it is closed."""
        self._put(job)

    def call(self, work: Callable[[Any], T]) -> Future[T]:
        """Do `work(model)` in the engine's thread, between two steps."""
        return self._do(_Task(lambda model, _: work(model), changes=True))

    def look(self, work: Callable[[Any, Prefixes], T]) -> Future[T]:
        """Do `work(model, prefixes)` there. It must not change the model: what is known stays."""
        return self._do(_Task(work, changes=False))

    def close(self, timeout: float = 10.0) -> None:
        """End the thread after the step in hand; jobs in flight get an error."""
        self._inbox.put(None)
        self._thread.join(timeout)

    def _do(self, task: _Task) -> Future[Any]:
        self._put(task)
        return task.result

    def _put(self, item: Job | _Task) -> None:
        with self._door:
            if self._shut:
                raise BackendError(CLOSED)
            self._inbox.put(item)

    def _run(self) -> None:
        import torch

        with torch.inference_mode():
            while self._open:
                self._receive()
                self._sweep()
                self._read()
                self._decode()
        self._give_up(BackendError(CLOSED))
        self._model = None
        self._batch = Batch(None)
        self._prefixes.clear()

    def _receive(self) -> None:
        """Take what has come; sleep while there is nothing to do."""
        idle = not (self._rows or self._reading or self._waiting)
        try:
            while self._open:
                self._take(self._inbox.get(block=idle))
                idle = False
        except queue.Empty:
            return

    def _take(self, item: Job | _Task | None) -> None:
        if item is None:
            self._open = False
        elif isinstance(item, Job):
            self._waiting.append(item)
        elif item.result.set_running_or_notify_cancel():
            if item.changes:
                self._prefixes.clear()  # the model may be another after it
            try:
                item.result.set_result(item.work(self._model, self._prefixes))
            except Exception as error:  # noqa: BLE001 -- it goes to whoever asked
                item.result.set_exception(error)

    def _sweep(self) -> None:
        """Let go of the jobs that nobody waits for any more."""
        self._waiting = deque(job for job in self._waiting if not job.cancelled)
        if self._reading and self._reading[0].cancelled:
            self._reading = None
        self._keep([row for row, (job, _) in enumerate(self._rows) if not job.cancelled])

    def _keep(self, rows: list[int]) -> None:
        self._batch.keep(rows)
        self._rows = [self._rows[row] for row in rows]

    def _read(self) -> None:
        """Read a piece of the oldest prompt that waits; a whole one joins the batch."""
        if self._reading is None and not self._start():
            return
        job, prompt = self._reading  # type: ignore[misc]
        try:
            logits = prompt.advance()
            if logits is not None:
                self._reading = None
                self._join(job, prompt, logits)
        except Exception as error:  # noqa: BLE001 -- whatever torch raises ends this job only
            self._reading = None
            self._prefixes.clear()  # it may have been for want of memory
            _fail([job], error)

    def _start(self) -> bool:
        if not self._waiting:
            return False
        if self._rows and len(self._rows) + len(self._waiting[0].writers) > MAX_ROWS:
            return False
        job = self._waiting.popleft()
        self._reading = job, Prefill(self._model, job.ids, self._prefixes, job.watch)
        return True

    def _join(self, job: Job, prompt: Prefill, logits: Any) -> None:
        going = [writer for writer in job.writers if _written(job, writer, logits)]
        if going:
            self._batch.join(prompt, len(going))
            self._rows += [(job, writer) for writer in going]

    def _decode(self) -> None:
        """One token for every row."""
        if not self._rows:
            return
        try:
            logits = self._batch.step([writer.token for _, writer in self._rows])
        except Exception as error:  # noqa: BLE001 -- the thread outlives whatever torch raises
            _fail([job for job, _ in self._rows], error)
            self._rows, self._batch = [], Batch(self._model)
            self._prefixes.clear()
            return
        self._keep([row for row in range(len(self._rows)) if self._goes_on(row, logits[row])])

    def _goes_on(self, row: int, logits: Any) -> bool:
        """Write one row's token; what an answer that has ended holds, its next turn begins with."""
        job, writer = self._rows[row]
        goes_on = _written(job, writer, logits)
        if not goes_on and writer.choice == 0:
            self._batch.store(row, [*job.ids, *writer.written[:-1]], logits, self._prefixes)
        return goes_on

    def _give_up(self, error: BackendError) -> None:
        reading = [self._reading[0]] if self._reading else []
        left: list[Job] = [*self._waiting, *reading, *(job for job, _ in self._rows)]
        with self._door:
            self._shut = True
            while not self._inbox.empty():
                item = self._inbox.get()
                if isinstance(item, Job):
                    left.append(item)
                elif item is not None:
                    item.result.cancel()
        for job in dict.fromkeys(left):
            job.tell(error)
        self._waiting, self._reading, self._rows = deque(), None, []


def _written(job: Job, writer: Writer, logits: Any) -> bool:
    """Write one token and pass on the news; whether this answer goes on."""
    try:
        piece = writer.write(logits)
    except Exception as error:  # noqa: BLE001 -- the other rows have nothing to do with it
        _fail([job], error)
        job.cancelled = True  # its other answers leave too
        return False
    if piece.text or piece.finish_reason or piece.logprobs:
        job.tell(piece)
    return piece.finish_reason is None


def _fail(jobs: Sequence[Job], error: Exception) -> None:
    _log.error("the local model failed", exc_info=error)
    said = f"{type(error).__name__}: {error}"
    for job in dict.fromkeys(jobs):
        job.tell(BackendError(f"the local model failed on this request ({said[:300]})"))
