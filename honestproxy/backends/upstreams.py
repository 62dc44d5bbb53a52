"""All upstreams that settings name, each opened once, whoever asks for it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final

from honestproxy import backends
from honestproxy.errors import SettingsError
from honestproxy.settings import Settings, nearest
from honestproxy.types import Backend

DEFAULT: Final = "default"
"""What the setting `upstream` is called where upstreams are told apart."""


class Upstreams:
    """The upstreams of the settings, by name; connections and health are shared by all users.

    `default` stands in for the one that the setting `upstream` names.
    """

    def __init__(self, settings: Settings, default: Backend | None = None) -> None:
        self._settings = settings
        self._opened: dict[str, Backend] = {} if default is None else {DEFAULT: default}
        if DEFAULT in settings.upstreams:
            raise SettingsError(
                f"upstreams.{DEFAULT}: that is what the setting `upstream` is called; "
                "choose another name"
            )

    def named(self, name: str | None) -> Backend:
        """The upstream of that name, or the one that the setting `upstream` names.

        Raises SettingsError where there is none, BackendError where it can't be started.
        """
        return self._own(name or DEFAULT)

    def health(self) -> Mapping[str, str]:
        """Whether each upstream is asked: "closed" where it is, else "open" or "half-open"."""
        return dict.fromkeys((DEFAULT, *self._settings.upstreams), "closed")

    async def aclose(self) -> None:
        """Close each upstream that was opened."""
        closes = [getattr(backend, "aclose", None) for backend in self._opened.values()]
        await asyncio.gather(*(close() for close in closes if close))

    def _own(self, name: str) -> Backend:
        """The upstream itself, without its fallbacks."""
        if name not in self._opened:
            self._opened[name] = backends.opened(self._settings_of(name))
        return self._opened[name]

    def _settings_of(self, name: str) -> Settings:
        """The settings as if this were the only upstream."""
        if name == DEFAULT:
            return self._settings
        known = self._settings.upstreams
        if name not in known:
            raise SettingsError(f"there is no upstream {name!r}; {nearest(name, known)}")
        own = {"upstream": known[name].url, "upstream_key": known[name].key}
        return self._settings.model_copy(update=own)
