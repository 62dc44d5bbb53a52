"""Several upstreams, and settings that hold for some models: which of them a name is for."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from fnmatch import fnmatchcase
from functools import lru_cache, partial
from typing import Any, Final, Protocol

from honestproxy.backends.upstreams import Upstreams
from honestproxy.errors import HonestProxyError, UpstreamTimeout
from honestproxy.pipeline import AnyRun, Pipeline
from honestproxy.settings import DEFAULT_NAME, Settings
from honestproxy.templates import Prompts
from honestproxy.types import Backend, ChatRequest, ChatResponse, Chunk

log = logging.getLogger(__name__)

_REMEMBERED: Final = 1024
_LONGEST: Final = 256
"""Names whose way is remembered, and how long they may be: clients can make any up."""

_LISTED_WITHIN: Final = 4.0
"""Seconds that each of several upstreams is given to list its models."""

_WILD: Final = frozenset("*?[")
Patterns = tuple[tuple[str, tuple[str, ...]], ...]
"""Names, each with patterns of models, in the order in which they are tried."""

Way = tuple[str | None, str | None]
"""The upstream that answers for a model, and the pattern whose settings hold for it."""


class Pipelines(Backend, Protocol):
    """What answers for any model: one pipeline, or several. Itself a backend."""

    prompts: Prompts
    default_strategy: str
    is_routed: bool
    """Whether it depends on a request's model which upstream it is for."""

    def of(self, model: str) -> Pipeline:
        """The pipeline that answers for a model of that name."""
        ...

    def run(self, request: ChatRequest) -> AnyRun:
        """One turn, not begun yet."""
        ...

    async def load(self) -> None:
        """Load what takes its time."""
        ...

    async def settled(self) -> None:
        """Return once all is deleted upstream that is to be."""
        ...


def routed(upstreams: Upstreams, settings: Settings) -> Pipelines:
    """One pipeline where that is all the settings need, or else a router."""
    if settings.models or _patterns(settings):
        return Router(upstreams, settings)
    return Pipeline(upstreams.named(None), settings)


class Router:
    """A pipeline for each upstream and each rule for models; requests go by their model's name.

    The first upstream with a pattern that fits answers, in the order of the settings; where none
    does, the one that `upstream` names. The first rule that fits holds. Raises as `Pipeline` and
    `Upstreams` do, at once.
    """

    def __init__(self, upstreams: Upstreams, settings: Settings) -> None:
        self._upstreams = upstreams
        patterns = _patterns(settings)
        rules = tuple((pattern, (pattern,)) for pattern in settings.models)
        self._way = partial(_way, patterns, rules)
        self._known = lru_cache(_REMEMBERED)(self._way)
        self._literals = {name: [p for p in ps if not _WILD & set(p)] for name, ps in patterns}
        self.is_routed = bool(patterns)
        self.prompts = Prompts(settings.prompts)
        self.prompts.check()
        self._pipelines: dict[Way, Pipeline] = {}
        for name in (None, *(name for name, _ in patterns)):
            backend, own = upstreams.named(name), settings.alone(name or DEFAULT_NAME)
            for rule in (None, *settings.models):
                ruled = _ruled(rule, own)
                self._pipelines[name, rule] = Pipeline(backend, ruled, self.prompts)
        self.default_strategy = self.of(settings.model or "").default_strategy

    def of(self, model: str) -> Pipeline:
        """The pipeline that answers for a model of that name."""
        way = self._known if len(model) <= _LONGEST else self._way
        return self._pipelines[way(model)]

    def run(self, request: ChatRequest) -> AnyRun:
        """One turn, not begun yet. Raises InvalidRequest where it asks for what isn't there."""
        return self.of(request.model).run(request)

    async def complete(self, request: ChatRequest) -> ChatResponse:
        """The honest answer, whole."""
        return await self.run(request).complete()

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Chunk, None]:
        """The honest answer as it is made."""
        async with aclosing(self.run(request).stream()) as chunks:
            async for chunk in chunks:
                yield chunk

    async def models(self, headers: Mapping[str, str] | None = None) -> list[dict[str, Any]]:
        """Of each upstream the models that are routed to it; one that is down leaves its own out.

        Raises what was wrong with the first where none could be listed.
        """
        names = [name for name, rule in self._pipelines if rule is None]
        if names == [None]:
            return await self._pipelines[None, None].models(headers)
        asked = (self._listed(name, headers) for name in names)
        told = await asyncio.gather(*asked, return_exceptions=True)
        failed = [each for each in told if isinstance(each, BaseException)]
        for error in failed:
            if len(failed) == len(told) or not isinstance(error, HonestProxyError):
                raise error
            log.warning("an upstream's models are left out: %s", error.message)
        return [model for each in told if not isinstance(each, BaseException) for model in each]

    async def load(self) -> None:
        """Load every upstream that takes its time."""
        for (_, rule), pipeline in self._pipelines.items():
            if rule is None:
                await pipeline.load()

    async def aclose(self) -> None:
        """Close every upstream, once what is to be deleted there is."""
        await self.settled()
        await self._upstreams.aclose()

    async def settled(self) -> None:
        """Return once all is deleted upstream that is to be."""
        await asyncio.gather(*(pipeline.settled() for pipeline in self._pipelines.values()))

    async def _listed(
        self, name: str | None, headers: Mapping[str, str] | None
    ) -> list[dict[str, Any]]:
        try:
            async with asyncio.timeout(_LISTED_WITHIN):
                found = await self._pipelines[name, None].models(headers)
        except TimeoutError:
            who = "the default upstream" if name is None else f"upstream {name!r}"
            message = f"{who} lists no models within {_LISTED_WITHIN:g} s"
            raise UpstreamTimeout(message) from None
        if not found:
            found = [_model(literal, name) for literal in self._literals.get(name or "", ())]
        return [model for model in found if self._way(str(model.get("id")))[0] == name]


def _patterns(settings: Settings) -> Patterns:
    upstreams = settings.upstreams.items()
    return tuple((name, each.models) for name, each in upstreams if each.models)


def _way(upstreams: Patterns, rules: Patterns, model: str) -> Way:
    return _first(upstreams, model), _first(rules, model)


def _first(patterns: Patterns, model: str) -> str | None:
    for name, several in patterns:
        if any(fnmatchcase(model, pattern) for pattern in several):
            return name
    return None


def _ruled(pattern: str | None, settings: Settings) -> Settings:
    """The settings with what a rule for models says instead."""
    if pattern is None:
        return settings
    rule = settings.models[pattern].model_dump(exclude_none=True)
    return settings.model_copy(update=rule)


def _model(name: str, upstream: str | None) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": upstream}
