"""Which models there are, and which strategy a model's name asks for."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from honestproxy.errors import HonestProxyError, InvalidRequest, UnknownModel
from honestproxy.pipeline import Pipeline
from honestproxy.settings import Settings
from honestproxy.strategies import STRATEGIES
from honestproxy.types import ChatRequest
from honestproxy.wire import reply
from honestproxy.wire.request import split_suffix

_FRESH: Final = 60.0
"""Seconds that the upstream's own list of models is trusted when a suffix is read."""


class Catalog:
    """The upstream's models and their variants `model@strategy`."""

    def __init__(self, pipeline: Pipeline, settings: Settings) -> None:
        self._pipeline = pipeline
        self._settings = settings
        self._known: frozenset[str] = frozenset()
        self._asked = -_FRESH

    def strategies(self) -> list[str]:
        """The strategies that a client may choose."""
        allowed = self._settings.strategies_allowed
        return [name for name in STRATEGIES if allowed is None or name in allowed]

    async def models(self, headers: Mapping[str, str]) -> dict[str, Any]:
        """OpenAI's list of models."""
        found = await self._pipeline.models(headers)
        self._known = frozenset(model["id"] for model in found)
        self._asked = time.monotonic()
        return reply.model_list(found, self.strategies() if self._settings.variants else [])

    async def model(self, name: str, headers: Mapping[str, str]) -> dict[str, Any]:
        """One model of the list. Raises UnknownModel, which lists what there is."""
        listed = (await self.models(headers))["data"]
        found = next((model for model in listed if model["id"] == name), None)
        if found is None:
            known = ", ".join(sorted(self._known)) or "none"
            message = f"there is no model {name!r}; here are {known}"
            raise UnknownModel(message, param="model")
        return dict(found)

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

    def _named(self, request: ChatRequest) -> ChatRequest:
        if request.model or self._settings.upstream.startswith("local:"):
            return request
        if self._settings.model is None:
            raise InvalidRequest("you must provide a 'model'", param="model")
        return request.replace(model=self._settings.model)

    async def _upstream_models(self, headers: Mapping[str, str]) -> frozenset[str]:
        if time.monotonic() - self._asked > _FRESH:
            self._asked = time.monotonic()
            try:
                await self.models(headers)
            except HonestProxyError:  # no list, no clash: the suffix is ours
                self._known = frozenset()
        return self._known
