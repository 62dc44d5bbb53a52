"""The trace store of a server: told of every request's end, asked for one trace or for sums."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, TypeVar

from honestproxy.errors import HonestProxyError
from honestproxy.server.account import Account
from honestproxy.server.origins import Origins
from honestproxy.server.traces.recording import Kept
from honestproxy.server.traces.redaction import Redaction
from honestproxy.server.traces.rows import Noted
from honestproxy.settings import Settings
from honestproxy.settings.references import blotted
from honestproxy.store.database import Database
from honestproxy.store.rows import PORTION, Rows, is_away, older_than
from honestproxy.store.writer import Writer

FLUSHED_WITHIN: Final = 5.0
"""Seconds that the end, or a deletion, waits for what is under way to be written."""

Found = TypeVar("Found")


class TraceStore:
    """One database for as long as the server lives, and a thread that writes to it.

    `days` is how long rows are kept; a reload may change it, once nothing can refuse that.
    Raises SettingsError for a URL that names none.
    """

    def __init__(self, url: str, days: float) -> None:
        self.url = url
        self.days = days
        self._database = Database(url)
        self._rows = Rows(self._database)
        self._writer = Writer(self._rows.add, self._database.name, chore=self._purge)
        self._is_open = False

    @property
    def written(self) -> int:
        """Rows that are committed since the start."""
        return self._writer.written

    @property
    def shed(self) -> int:
        """Traces that found no room, or that the database refused, since the start."""
        return self._writer.shed

    @property
    def pending(self) -> int:
        """Traces on their way."""
        return self._writer.pending

    async def start(self) -> None:
        """Open the database and bring it up to date. Raises SettingsError where it can't be."""
        if not self._is_open:
            await asyncio.to_thread(self._database.prepare)
            self._writer.start()
            self._is_open = True

    async def aclose(self) -> None:
        """Write what is there, within a few seconds, and let go of the database."""
        if self._is_open:
            await asyncio.to_thread(self._writer.close, FLUSHED_WITHIN)
        self._is_open = False
        self._database.close()

    def notes(self, settings: Settings, redaction: Redaction) -> TraceNotes:
        """Who tells the store of requests that are answered by these settings."""
        return TraceNotes(settings, self, redaction)

    def take(self, noted: Noted) -> None:
        """Take a request in; where nothing writes, nothing is kept."""
        if self._is_open:
            self._writer.put(noted)

    async def find(self, name: str) -> Kept | None:
        """The trace of that id, written or still under way."""
        row = self._writer.find(name) or await self._asked(lambda: self._rows.find(name))
        return Kept(row.told(), row.key_id) if row else None

    async def discard(self, name: str) -> bool:
        """Delete the trace of that id; whether there was one."""
        if not await asyncio.to_thread(self._writer.flush, FLUSHED_WITHIN):
            raise _unavailable()
        return await self._asked(lambda: self._rows.discard(name))

    async def spent(self, since: float) -> dict[str, int]:
        """Tokens by key since then, what is under way left out."""
        return await self._asked(lambda: self._rows.spent(since))

    async def _asked(self, ask: Callable[[], Found]) -> Found:
        try:
            return await asyncio.to_thread(ask)
        except Exception as error:
            if not is_away(error):
                raise
            raise _unavailable() from None

    def _purge(self) -> bool:
        """Delete a portion of what is too old; whether there is more."""
        return self._rows.purge_some(older_than(self.days)) == PORTION


class TraceNotes:
    """Tells the store of each request, as one set of settings wants it."""

    def __init__(self, settings: Settings, store: TraceStore, redaction: Redaction) -> None:
        self._store = store
        self._redaction = redaction
        self._origins = Origins(settings)
        self._shown = {s: _shown(s, redaction) for s in self._origins.specs.values()}
        self._has_texts = settings.traces == "texts"

    def note(self, account: Account) -> None:
        """Take the request in, unless anyone may fill the store so."""
        if account.is_strangers:
            return
        recording = account.recording if self._has_texts else None
        upstream = self._shown[self._origins.of(account)]
        self._store.take(Noted(account, recording, upstream, self._redaction))


def opened(url: str, days: float, before: TraceStore | None) -> TraceStore:
    """The store of that URL, which is the one `before` where that is the same.

    Raises SettingsError for a URL that names none.
    """
    if before is None or before.url != url:
        return TraceStore(url, days)
    return before


def _shown(spec: str, redaction: Redaction) -> str:
    """An upstream as it may be stored: without a password, and without a query."""
    return redaction.text(blotted(spec).partition("?")[0])


def _unavailable() -> HonestProxyError:
    message = "the trace store can't be reached just now; try again"
    return HonestProxyError(message, status=503, code="trace_store_unavailable")
