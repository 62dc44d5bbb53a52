"""Rows on their way to the database: a bounded queue, and a thread that empties it."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from tenacity import RetryCallState, Retrying, retry_if_exception, wait_exponential

from honestproxy.store.database import why
from honestproxy.store.rows import is_away
from honestproxy.store.schema import Row

log = logging.getLogger(__name__)

_BATCH: Final = 500
_LOAD: Final = 5_000_000
"""Rows, and roughly bytes, that are written together."""

_GATHER: Final = 0.2
"""Seconds in which rows are gathered, to be written together."""

_GIVES_WAY: Final = 50_000
"""Roughly bytes after which the thread lets others have the interpreter."""

_HOUR: Final = 3600.0


class Entry(Protocol):
    """What is queued: a row in the making, and roughly how many bytes of texts it takes in."""

    id: str
    weight: int

    def row(self) -> Row:
        """The row; made in the writer's thread."""
        ...


class Writer:
    """Takes entries in without waiting, and writes them in batches in a thread of its own.

    While `add` fails because the database is away, entries wait; no more than `most` of them, and
    of no more than `room` in weight together. `chore` is done at the start and then hourly, and
    at once again as long as it returns true.
    """

    def __init__(
        self,
        add: Callable[[Sequence[Row]], None],
        name: str,
        *,
        chore: Callable[[], bool] = lambda: False,
        most: int = 10_000,
        room: int = 100_000_000,
    ) -> None:
        self._add, self._chore = add, chore
        self._name = name
        self._most, self._room = most, room
        # Each number is counted by one thread alone: the event loop's, or the writer's.
        self._taken = self._turned_away = self._weight_taken = 0
        self._written = self._refused = self._weight_settled = 0
        self._waiting: deque[Entry] = deque()
        self._in_hand: list[Entry] = []
        self._wake, self._hurry, self._ending = (threading.Event() for _ in range(3))
        self._settled = threading.Condition()
        self._end_by = 0.0
        self._is_away = False
        self._thread = threading.Thread(target=self._work, name="traces", daemon=True)

    @property
    def written(self) -> int:
        """Rows that are committed."""
        return self._written

    @property
    def shed(self) -> int:
        """Entries that found no room, that the database refused, or that the end cut off."""
        return self._turned_away + self._refused

    @property
    def pending(self) -> int:
        """Entries under way."""
        return self._taken - self._written - self._refused

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def put(self, entry: Entry) -> None:
        """Take an entry in, or count it as shed. Never waits; for one thread alone."""
        waiting = self._waiting
        weight = self._weight_taken - self._weight_settled + entry.weight
        if len(waiting) >= self._most or weight > self._room or self._ending.is_set():
            self._turned_away += 1
            return
        self._taken += 1
        self._weight_taken += entry.weight
        waiting.append(entry)
        number = len(waiting)
        if number == 1:
            self._wake.set()
        elif number == _BATCH:
            self._hurry.set()

    def find(self, name: str) -> Row | None:
        """The row of that id, if it is under way. Look here before you look in the database."""
        entries = [*self._waiting, *self._in_hand]  # in the order in which they pass
        return next((entry.row() for entry in entries if entry.id == name), None)

    def flush(self, seconds: float) -> bool:
        """Wait until all that was taken in is settled; whether it was in time."""
        taken = self._taken
        self._hurry.set()
        with self._settled:
            return self._settled.wait_for(lambda: self.pending <= self._taken - taken, seconds)

    def close(self, seconds: float) -> None:
        """Write what is there, within so many seconds; what is left is shed."""
        self._end_by = time.monotonic() + seconds
        for event in (self._ending, self._wake, self._hurry):
            event.set()
        self._thread.join(seconds + 1)
        if lost := self.pending:
            self._settle(refused=lost)
            log.warning("%s: %d traces could not be written before the end", self._name, lost)

    @property
    def _is_over(self) -> bool:
        return self._ending.is_set() and time.monotonic() >= self._end_by

    def _work(self) -> None:
        due = 0.0
        while not self._is_over:
            if time.monotonic() >= due:
                due = time.monotonic() + (0.0 if self._do_chore() else _HOUR)
            self._wake.clear()
            if not self._waiting:
                if self._ending.is_set():
                    return
                self._wake.wait(max(0.0, due - time.monotonic()))
            self._gather()
            if self._waiting and not self._is_over:
                self._write(self._batch())

    def _gather(self) -> None:
        """Wait a moment for more, but not where there is enough, or someone waits."""
        if 0 < len(self._waiting) < _BATCH and not self._ending.is_set():
            self._hurry.wait(_GATHER)
        self._hurry.clear()

    def _batch(self) -> list[Row]:
        """Rows made of the entries that have waited longest."""
        rows, weight, rested = [], 0, 0
        while self._waiting and len(self._in_hand) < _BATCH and weight < _LOAD:
            # In hand before it is taken out, so that `find` sees it all the time.
            self._in_hand.append(entry := self._waiting[0])
            self._waiting.popleft()
            weight += entry.weight
            try:
                rows.append(entry.row())
            except Exception:
                log.exception("a trace can't be made a row")
            if weight - rested >= _GIVES_WAY:
                rested = weight
                time.sleep(0)
        return rows

    def _write(self, rows: list[Row]) -> None:
        written = self._written_of(rows) if rows else 0
        if not self._is_over or written == len(rows):
            self._settle(written, len(self._in_hand) - written)

    def _written_of(self, rows: list[Row]) -> int:
        """How many of these rows could be written."""
        try:
            self._persist(rows)
        except Exception as error:  # noqa: BLE001 - one bad row, of which nobody else shall suffer
            if len(rows) > 1 and not is_away(error):
                return sum(self._written_of([row]) for row in rows)
            if not is_away(error):
                log.warning("%s refuses a trace: %s", self._name, type(error).__name__)
            return 0
        return len(rows)

    def _persist(self, rows: list[Row]) -> None:
        """Store rows; while the database is away, again and again until the end."""
        Retrying(
            retry=retry_if_exception(is_away),
            wait=wait_exponential(multiplier=0.1, max=5),
            stop=lambda _: self._is_over,
            sleep=self._pause,
            before_sleep=self._tell,
            reraise=True,
        )(self._add, rows)
        if self._is_away:
            self._is_away = False
            log.warning("%s is back: traces are written again", self._name)

    def _pause(self, seconds: float) -> None:
        if self._ending.wait(seconds):
            time.sleep(min(seconds, 0.1))

    def _tell(self, state: RetryCallState) -> None:
        """Say once that the database is away."""
        error = state.outcome.exception() if state.outcome else None
        if not self._is_away:
            self._is_away = True
            waits = "traces wait, and are shed where they are too many"
            log.warning("%s can't be written to (%s): %s", self._name, why(error), waits)

    def _settle(self, written: int = 0, refused: int = 0) -> None:
        with self._settled:
            self._weight_settled += sum(entry.weight for entry in self._in_hand)
            self._written += written
            self._refused += refused
            self._in_hand.clear()
            self._settled.notify_all()

    def _do_chore(self) -> bool:
        try:
            return self._chore()
        except Exception as error:  # noqa: BLE001 - no reason to stop writing
            log.warning("%s: old traces can't be purged: %s", self._name, why(error))
            return False
