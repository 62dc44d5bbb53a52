"""Which models there are, and which strategy a model's name asks for."""

from __future__ import annotations

import asyncio
import difflib
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Final
from urllib.parse import quote

from honestproxy.errors import HonestProxyError, InvalidRequest, UnknownModel
from honestproxy.router import Pipelines
from honestproxy.server.access.caller import ANYONE, Caller
from honestproxy.server.access.guard import climbs
from honestproxy.settings import Settings
from honestproxy.strategies import STRATEGIES
from honestproxy.types import ChatRequest, read
from honestproxy.wire import reply
from honestproxy.wire.request import split_suffix

_FRESH: Final = 60.0
"""Seconds that the upstream's own list of models is trusted when a suffix is read."""

_NOT_THERE: Final = (404, 405, 501)
_FAILED: Final = 10.0
"""Seconds that a caller to whom the list was refused is not asked for again."""

_LISTED_WITHIN: Final = 5.0
"""Seconds that a request with a suffix waits for that list."""


class Catalog:
    """The upstream's models and their variants `model@strategy`."""

    def __init__(self, pipeline: Pipelines, settings: Settings) -> None:
        self._pipeline = pipeline
        self._settings = settings
        self._known: frozenset[str] = frozenset()
        self._fresh_until = 0.0
        self._failed_until: dict[str, float] = {}
        self._asking = asyncio.Lock()

    def strategies(self) -> list[str]:
        """The strategies that a client may choose, without one that the upstream can't have."""
        allowed, usual = self._settings.strategies_allowed, self._settings.model or ""
        reads = hasattr(self._pipeline.of(usual).backend, "read")
        known = [name for name in STRATEGIES if reads or name != "introspect"]
        return [name for name in known if allowed is None or name in allowed]

    async def models(self, headers: Mapping[str, str], caller: Caller = ANYONE) -> dict[str, Any]:
        """OpenAI's list of models: those that the caller may use."""
        found = await self._pipeline.models(headers)
        self._know(model["id"] for model in found)
        variants = self.strategies() if self._settings.variants else []
        allowed = [model for model in found if caller.may_use(model["id"])]
        return reply.model_list(allowed, caller.strategies_of(variants))

    async def model(
        self, name: str, headers: Mapping[str, str], caller: Caller = ANYONE
    ) -> dict[str, Any]:
        """One model of the list. Raises UnknownModel, which lists what there is."""
        caller.check_model(split_suffix(name, STRATEGIES)[0])
        try:
            listed = (await self.models(headers, caller))["data"]
        except HonestProxyError as error:
            if error.status not in _NOT_THERE:
                raise
            listed = []
        found = next((model for model in listed if model["id"] == name), None)
        found = found or await self._unlisted(name, headers)
        if found is None:
            known = ", ".join(filter(caller.may_use, sorted(self._known))) or "none"
            message = f"there is no model {name!r}; here are {known}"
            raise UnknownModel(message, param="model")
        return dict(found)

    async def _unlisted(self, name: str, headers: Mapping[str, str]) -> dict[str, Any] | None:
        """What the upstream itself says of a model that it doesn't list."""
        relay = getattr(self._pipeline.of(name).backend, "relay", None)
        if relay is None or climbs(name):
            return None
        exchange = await relay("GET", f"/models/{quote(name, safe='/:@')}", headers, None)
        try:
            found = read(await exchange.read()) if exchange.status == 200 else None
        except ValueError:
            return None
        finally:
            exchange.close()
        return found if isinstance(found, dict) and found.get("id") == name else None

    async def resolved(self, request: ChatRequest) -> ChatRequest:
        """The request with its model named, and a strategy from the name's suffix taken off it.

        A model that the upstream lists wins over a suffix; so does a strategy chosen otherwise.
        """
        request = self._named(request)
        model, strategy = split_suffix(request.model, STRATEGIES)
        if strategy is None or request.model in await self._upstream_models(request.headers):
            return request
        plain = request.replace(model=model)
        if plain.options.strategy is None:
            plain.options = replace(plain.options, strategy=strategy)
        return plain

    async def explained(
        self, error: HonestProxyError, request: ChatRequest, caller: Caller = ANYONE
    ) -> HonestProxyError:
        """The upstream's refusal of a model, with the names that are near."""
        if error.status != 404 or "model" not in str(error.body()):
            return error
        names = filter(caller.may_use, sorted(await self._upstream_models(request.headers)))
        near = difflib.get_close_matches(request.model, list(names), n=3, cutoff=0.4)
        return error.adding(f"near names here: {', '.join(near)}") if near else error

    def _named(self, request: ChatRequest) -> ChatRequest:
        if request.model or self._settings.upstream.startswith("local:"):
            return request
        if self._settings.model is None:
            raise InvalidRequest("you must provide a 'model'", param="model")
        return request.replace(model=self._settings.model)

    async def _upstream_models(self, headers: Mapping[str, str]) -> frozenset[str]:
        who = headers.get("Authorization", "")
        async with self._asking:  # whoever comes meanwhile wants the same list
            now = time.monotonic()
            if now > max(self._fresh_until, self._failed_until.get(who, 0.0)):
                await self._ask(headers)
                if now > self._fresh_until:
                    self._failed_until = {who: time.monotonic() + _FAILED}
        return self._known

    async def _ask(self, headers: Mapping[str, str]) -> None:
        """Without a list there is no clash, and the suffix is ours."""
        try:
            async with asyncio.timeout(_LISTED_WITHIN):
                await self.models(headers)
        except TimeoutError:
            self._know(())
        except HonestProxyError as error:
            # Not there is the same for everyone; refused or failed may be so for one caller.
            self._known = frozenset()
            if error.status in _NOT_THERE:
                self._know(())

    def _know(self, names: Iterable[str]) -> None:
        self._known = frozenset(names)
        self._fresh_until = time.monotonic() + _FRESH
