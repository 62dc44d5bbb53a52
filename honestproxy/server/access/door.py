"""The door of a proxy with keys: who comes in, and how often."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from honestproxy.errors import SettingsError, Unauthorized
from honestproxy.server.access import keys
from honestproxy.server.access.caller import CREDENTIALS, Access, Caller, Open
from honestproxy.server.access.keys import Key, Keys, Stamp
from honestproxy.server.access.limits import Meters

log = logging.getLogger(__name__)

_LOOKED_AT: Final = 0.5
"""Seconds between looks at the file: a key that is revoked opens nothing a second later."""

_CHALLENGE: Final = {"www-authenticate": 'Bearer realm="honestproxy"'}


class Door:
    """Opens to the keys of a file, and notices when that changes.

    Raises SettingsError where the file can't be used; one that breaks later leaves the keys in
    force that were read before.
    """

    has_keys = True

    def __init__(self, path: Path, meters: Meters | None = None) -> None:
        self.path = path
        self.meters = meters or Meters()
        self.refused = 0
        self._stamp: Stamp | None = keys.stamp(path)
        self._keys: Keys = keys.read(path)
        self._callers = _callers(self._keys)
        self._trouble: str | None = None
        self._watching: asyncio.Task[None] | None = None

    def caller(self, headers: Mapping[str, str]) -> Caller:
        """Whose request this is, by its headers. Raises Unauthorized."""
        given = _given(headers)
        key = keys.matching(self._keys, given, time.time())
        if key is None:
            self.refused += 1
            raise Unauthorized(_why(given), headers=_CHALLENGE)
        return self._callers[key.id]

    def admitted(self, caller: Caller) -> dict[str, str]:
        """Count a request; what its reply tells of the limits. Raises RateLimited."""
        key = self._keys.get(caller.id or "")
        return self.meters.admit(key) if key else {}

    def read(self) -> None:
        """Take the keys as the file has them now. Raises SettingsError, and keeps what it has."""
        stamp = keys.stamp(self.path)
        self._keys = found = keys.read(self.path)
        self._callers = _callers(found)
        self._stamp, self._trouble = stamp, None  # only now: until then each look tries again

    def look(self) -> None:
        """Read the file if it has changed; say so where it can't be read."""
        if keys.stamp(self.path) == self._stamp:
            return
        try:
            self.read()
        except SettingsError as error:
            self._tell(error.message)
        except Exception as error:  # noqa: BLE001 - a watch that ends would keep revoked keys
            self._tell(f"keys: {self.path} can't be read: {error!r}", error)
        else:
            log.info("keys: read %s again", self.path)

    async def start(self) -> None:
        """Begin to watch the file."""
        if self._watching is None:
            self._watching = asyncio.create_task(self._watch())

    async def aclose(self) -> None:
        """Watch no more."""
        if self._watching is not None:
            self._watching.cancel()
            with suppress(asyncio.CancelledError):
                await self._watching
            self._watching = None

    def _tell(self, trouble: str, error: Exception | None = None) -> None:
        """Log what is wrong with the file, once and not at each look."""
        if trouble != self._trouble:
            self._trouble = trouble
            log.error("%s; the keys read before stay in force", trouble, exc_info=error)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(_LOOKED_AT)
            self.look()


def door(path: Path | None, before: Access | None) -> Access:
    """The door that a setting asks for; what was counted at the one before stays counted."""
    if path is None:
        return Open()
    if not isinstance(before, Door):
        return Door(path)
    if before.path != path:
        return Door(path, before.meters)
    before.read()
    return before


def _callers(found: Mapping[str, Key]) -> dict[str, Caller]:
    return {k.id: Caller(k.id, k.models, k.strategies, k.admin) for k in found.values()}


def _given(headers: Mapping[str, str]) -> str:
    for name in CREDENTIALS:
        if value := headers.get(name, "").strip():
            scheme, _, rest = value.partition(" ")
            return rest.strip() if scheme.lower() == "bearer" else value
    return ""


def _why(given: str) -> str:
    """What to do; nothing of the key is repeated, and nothing tells how near it was."""
    if not given:
        return "this proxy has keys of its own: send one as `Authorization: Bearer hp-…`"
    return (
        "the key is not one of this proxy's, or has expired or been revoked; its operator makes "
        "keys with `honestproxy keys create`"
    )
