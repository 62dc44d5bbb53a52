"""The server's life: it listens while a model loads, reloads its settings, and loses no request."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import signal
import socket
import struct
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from email.utils import formatdate
from functools import partial
from operator import attrgetter
from typing import Any, Final

from honestproxy.errors import HonestProxyError
from honestproxy.server.app import Proxy
from honestproxy.server.listening.cycle import Cycle
from honestproxy.server.listening.lines import is_readable
from honestproxy.server.listening.protocol import Connection, Listening
from honestproxy.server.seeing.logs import configure
from honestproxy.settings import Settings

log = logging.getLogger(__name__)

_KEPT: Final = 5.0
"""Seconds that a connection is kept open after an answer, and up to one more."""

_BACKLOG: Final = 2048
"""Clients that may wait to be accepted."""

_LAST_CALL: Final = 1.0
"""Seconds that an idle connection is kept at the end: its client may be about to ask.

So it is by Ctrl-C, when someone waits. Else it is kept for as long as it always is.
"""

_HANDSHAKES: Final = 0.1
"""Seconds that clients have who are just connecting when nobody else may any more."""

_LAST_WORDS: Final = 1.0
"""Seconds that requests have to say that they were cut off."""

_TICK: Final = 0.02

_FIXED: Final = ("host", "port")
"""Settings that hold from the start to the end."""

_SIGNALS: Final = ("SIGINT", "SIGTERM", "SIGBREAK")
_BY_CTRL_C: Final = 130

_ATTACH_FILTER: Final = 26  # SO_ATTACH_FILTER of Linux; Python doesn't name it
_NO_NEWCOMERS: Final = (
    (0x30, 0, 0, 13),  # load the byte that holds TCP's flags
    (0x45, 0, 1, 0x02),  # SYN?
    (0x06, 0, 0, 0),  # then drop the packet
    (0x06, 0, 0, 0xFFFFFFFF),  # else keep it
)
"""A packet filter (classic BPF) that lets nobody begin to connect, and those go on who have."""


class Server:
    """Serves the proxy until SIGTERM or SIGINT; a second SIGINT ends it at once.

    On SIGHUP the settings are loaded anew, by `load`; without one, and where the terminal that
    it was started in is gone, that ends it, too. `told` words what is wrong with them.
    """

    def __init__(
        self,
        app: Proxy,
        load: Callable[[], Settings] | None = None,
        told: Callable[[HonestProxyError], str] = attrgetter("message"),
    ) -> None:
        self._app = app
        self._load = load
        self._told = told
        self._listening = Listening(app, lambda: app.service.settings, self._count_head)
        self._stop = asyncio.Event()
        self._stopped_by = 0
        self._reloading = asyncio.Lock()
        self._reloads: set[asyncio.Task[None]] = set()
        self._has_terminal = _has_terminal()

    async def run_until_stopped(
        self, listener: socket.socket, ready: Callable[[], Awaitable[None]] | None = None
    ) -> int:
        """Serve; the signal that has ended it, or 0.

        `ready` is awaited while the server listens already, and says that it answers: until then
        requests wait, and `/readyz` says no. What it raises ends the server.
        """
        loop = asyncio.get_running_loop()
        with self._signals():
            self._tick()
            self._app.loading = asyncio.Event()
            made = partial(Connection, self._listening)
            accepting = await loop.create_server(made, sock=listener, backlog=_BACKLOG)
            try:
                await self._begin(ready or self._app.start)
            except BaseException:
                self._each(_broken_off)
                await _closed(accepting, listener)
                raise
            while not self._stop.is_set():
                self._tick()
                with suppress(TimeoutError):
                    async with asyncio.timeout(1.0):
                        await self._stop.wait()
            await self._end(accepting, listener)
        return self._stopped_by

    def stop(self, number: int = 0) -> None:
        """End; the second time by Ctrl-C, at once."""
        if self._stop.is_set() and number == signal.SIGINT:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(_BY_CTRL_C)
        self._stopped_by = self._stopped_by or number
        self._stop.set()

    def reload(self, _: int = 0) -> None:
        """Load the settings anew, after a reload that is under way; one that waits does for all."""
        is_hung_up = self._has_terminal and not _has_terminal()
        if self._load is None or is_hung_up:
            self.stop()
        elif not self._stop.is_set() and len(self._reloads) < 2:
            task = asyncio.get_running_loop().create_task(self._reload(self._load))
            self._reloads.add(task)
            task.add_done_callback(self._reloads.discard)

    async def _begin(self, ready: Callable[[], Awaitable[None]]) -> None:
        """Be ready, unless told to stop meanwhile."""
        async with self._reloading:  # none before there is something to reload
            readying = asyncio.ensure_future(ready())
            stop = asyncio.ensure_future(self._stop.wait())
            await asyncio.wait((readying, stop), return_when=asyncio.FIRST_COMPLETED)
            stop.cancel()
            if not readying.done():
                readying.cancel()
                await asyncio.wait((readying,))
            elif error := readying.exception():
                raise error
        assert self._app.loading is not None  # noqa: S101 - nobody else sets it
        self._app.loading.set()
        self._app.loading = None

    def _tick(self) -> None:
        """What is done each second: the date that answers carry, and connections left idle."""
        self._listening.date = f"date: {formatdate(usegmt=True)}\r\n".encode()
        self._each(Connection.close_idle, _KEPT)

    async def _end(self, accepting: asyncio.Server, listener: socket.socket) -> None:
        """Answer all that has come within `shutdown_timeout`, cut the rest off, and close."""
        self._app.stopping = True
        loop = asyncio.get_running_loop()
        until = loop.time() + self._app.service.settings.shutdown_timeout
        self._each(Connection.shutdown)
        await _drained(listener, until)
        await _closed(accepting, listener)
        by_hand = self._stopped_by == signal.SIGINT
        if not await self._gone(until, _LAST_CALL if by_hand else _KEPT):
            await self._cut_off()
        for task in list(self._reloads):
            task.cancel()
        await self._app.aclose()

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Have signals told to the loop, which they wake."""
        loop = asyncio.get_running_loop()
        told: dict[int, Callable[[int], None]] = {
            getattr(signal, name): self.stop for name in _SIGNALS if hasattr(signal, name)
        }
        if hasattr(signal, "SIGHUP"):
            told[signal.SIGHUP] = self.reload
        before = {number: signal.getsignal(number) for number in told}
        for number, tell in told.items():
            try:
                loop.add_signal_handler(number, tell, number)
            except NotImplementedError:  # Windows
                signal.signal(number, partial(_passed_on, loop, tell))
        try:
            yield
        finally:
            for number, handler in before.items():
                with suppress(NotImplementedError):
                    loop.remove_signal_handler(number)
                signal.signal(number, handler)

    def _count_head(self, error: HonestProxyError) -> None:
        if (metrics := self._app.service.metrics) is not None:
            metrics.head_refused(error.status)

    def _count_refused(self) -> None:
        if (metrics := self._app.service.metrics) is not None:
            metrics.reloaded(done=False)

    async def _reload(self, load: Callable[[], Settings]) -> None:
        async with self._reloading:
            before = self._app.service.settings
            try:
                wanted = load()
                fixed = [name for name in _FIXED if getattr(wanted, name) != getattr(before, name)]
                kept = {name: getattr(before, name) for name in fixed}
                settings = wanted.model_copy(update=kept)
                await self._app.reload(settings)
            except HonestProxyError as error:
                log.warning("not reloaded, all goes on as before: %s", self._told(error))
                self._count_refused()
            except Exception:
                log.exception("not reloaded, all goes on as before")
                self._count_refused()
            else:
                configure(settings)
                log.warning("reloaded: %s", _changes(before, settings, fixed))

    async def _gone(self, until: float, idle: float) -> bool:
        """Whether all requests have ended in time; connections idle for so long are closed."""
        state, loop = self._listening, asyncio.get_running_loop()
        while state.connections or state.cycles:
            if loop.time() >= until:
                return False
            self._each(Connection.hang_up, idle)
            await asyncio.sleep(_TICK)
        return True

    async def _cut_off(self) -> None:
        """End what is under way: a stream by an error in its midst, all else by a 503."""
        clock = asyncio.get_running_loop().time
        self._app.service.admission.end()
        cut = set[Cycle]()
        for _ in range(3):  # those that have just come begin first: they tell their clients, too
            await asyncio.sleep(0)
            for cycle in self._listening.cycles - cut:
                if cycle.task is not None and cycle.is_running:
                    cycle.task.cancel()
                    cut.add(cycle)
        if not await self._gone(clock() + _LAST_WORDS, 0.0):
            self._each(_broken_off)
            await self._gone(clock() + _LAST_WORDS, 0.0)

    def _each(self, do: Callable[..., Any], *given: Any) -> None:
        for connection in list(self._listening.connections):
            do(connection, *given)


async def _closed(accepting: asyncio.Server, listener: socket.socket) -> None:
    """Listen no more."""
    accepting.close()
    await asyncio.sleep(_TICK)  # the loop closes what it holds
    listener.close()


async def _drained(listener: socket.socket, until: float) -> None:
    """Let nobody begin to connect, and have all accepted who have: closing would drop them."""
    clock = asyncio.get_running_loop().time
    begun = clock()
    if _closed_to_newcomers(listener):
        wait, most = _HANDSHAKES, until
    else:
        listener.listen(0)
        wait, most = 0.0, min(begun + _LAST_CALL, until)
    while is_readable(listener) or clock() < begun + wait:
        if clock() > most:
            return
        await asyncio.sleep(_TICK / 10)


def _closed_to_newcomers(listener: socket.socket) -> bool:
    """Whether the kernel now drops what would begin a connection; only Linux can.

    Whoever is turned away so tries again a moment later, and finds the next server or none.
    """
    if sys.platform != "linux":
        return False
    code = b"".join(struct.pack("HBBI", *step) for step in _NO_NEWCOMERS)
    kept = ctypes.create_string_buffer(code)
    program = struct.pack("HP", len(_NO_NEWCOMERS), ctypes.addressof(kept))
    try:
        listener.setsockopt(socket.SOL_SOCKET, _ATTACH_FILTER, program)
    except OSError:
        return False
    return True


def _changes(before: Settings, after: Settings, fixed: Sequence[str]) -> str:
    """Which settings have another value now, and which want a restart; never the values."""
    names = type(after).model_fields
    changed = [name for name in names if getattr(before, name) != getattr(after, name)]
    told = f"{', '.join(changed)} changed" if changed else "nothing has changed"
    return f"{told}; {', '.join(fixed)}: only a restart changes that" if fixed else told


def _broken_off(connection: Connection) -> None:
    connection.transport.abort()


def _has_terminal() -> bool:
    """Whether this process belongs to a terminal that is still there."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True


def _passed_on(
    loop: asyncio.AbstractEventLoop, tell: Callable[[int], None], number: int, _: Any
) -> None:
    loop.call_soon_threadsafe(tell, number)
