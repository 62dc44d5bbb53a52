"""A backend that learns which of our parameters a model's upstream refuses.

Upstreams differ: some refuse `max_tokens`, some any `temperature`, some `stream_options`.
What a client sent is never touched; what we added ourselves is left out and remembered.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Mapping
from typing import Any, Final

from honestproxy.doubts import Scores
from honestproxy.errors import InvalidRequest, UpstreamError
from honestproxy.streams import closing
from honestproxy.types import Backend, ChatRequest, ChatResponse, Chunk

log = logging.getLogger(__name__)
IDEMPOTENCY: Final = "Idempotency-Key"
_REFUSED: Final = (400, 422)
_OTHER_NAME: Final = {"max_tokens": "max_completion_tokens"}
_IN_RESPONSES: Final = dict.fromkeys(("max_tokens", "max_completion_tokens"), "max_output_tokens")
_DISCARDED_WITHIN: Final = 10.0
"""Seconds that the deletion of an answer may take, and hold up the end."""


class Compatible:
    """Wraps a backend: the same answers, without parameters of ours that it refuses."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._refused: dict[str, frozenset[str]] = {}
        self._discarding: set[asyncio.Task[None]] = set()

    async def complete(self, request: ChatRequest) -> ChatResponse:
        """The whole answer; asks again where the upstream refused a parameter of ours."""
        while True:
            acceptable = self._acceptable(request)
            try:
                return await self._backend.complete(acceptable)
            except UpstreamError as error:
                self._learn(acceptable, error)

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Chunk, None]:
        """The answer as it is made; a refusal comes before the first chunk."""
        while True:
            acceptable = self._acceptable(request)
            begun = False
            try:
                async with closing(self._backend.stream(acceptable)) as chunks:
                    async for chunk in chunks:
                        begun = True
                        yield chunk
                return
            except UpstreamError as error:
                if begun:
                    raise
                self._learn(acceptable, error)

    @property
    def reads(self) -> bool:
        """Whether the backend sees inside its model."""
        return hasattr(self._backend, "read")

    async def read(self, request: ChatRequest) -> Scores:
        """What the backend reads inside its model. Raises InvalidRequest where it can't."""
        reader = getattr(self._backend, "read", None)
        if reader is None:
            raise InvalidRequest(
                "this upstream doesn't show what goes on inside its model, which 'introspect' "
                "reads: choose another strategy, such as 'gated', or a `local:` upstream",
                param="honesty.strategy",
                code="unsupported_strategy",
            )
        return await reader(request)  # type: ignore[no-any-return]

    def discard(self, request: ChatRequest, response: ChatResponse) -> None:
        """Have an answer deleted that may be stored, and that no client was given.

        Nobody waits for it but `aclose`; that it failed is only logged.
        """
        delete = getattr(self._backend, "discard", None)
        if delete is None or not request.get("store"):
            return
        task = asyncio.create_task(_discarded(delete(request, response)), name="discard")
        self._discarding.add(task)
        task.add_done_callback(self._discarding.discard)

    async def models(self, headers: Mapping[str, str] | None = None) -> list[dict[str, Any]]:
        """The backend's models; none where it doesn't say."""
        listed = getattr(self._backend, "models", None)
        return await listed(headers) if listed else []

    async def first_model(self) -> str:
        """The first model that it lists. Raises InvalidRequest where there is none."""
        listed = await self.models()
        if not listed:
            raise InvalidRequest("the upstream lists no models; name one with --model")
        return str(listed[0]["id"])

    async def settled(self) -> None:
        """Return once all is deleted that is to be."""
        await asyncio.gather(*self._discarding)

    async def aclose(self) -> None:
        """Close the backend, where it needs that, once all is deleted that is to be."""
        await self.settled()
        if close := getattr(self._backend, "aclose", None):
            await close()

    def _acceptable(self, request: ChatRequest) -> ChatRequest:
        if not self._refused:
            return request
        drop = self._refused.get(request.model, frozenset()) & request.ours
        if not drop:
            return request
        kept = request.replace(drop)
        kept.ours = request.ours - drop
        if key := kept.headers.get(IDEMPOTENCY):  # another body wants another key
            kept.headers = {**kept.headers, IDEMPOTENCY: f"{key}-less"}
        renamed = {_OTHER_NAME[n]: request.get(n) for n in drop if n in _OTHER_NAME}
        known = self._refused[request.model]
        return kept.adding(**{n: v for n, v in renamed.items() if n not in known})

    def _learn(self, request: ChatRequest, error: UpstreamError) -> None:
        """Remember what was refused; raise the error where it was nothing of ours."""
        refused = frozenset(name for name in request.ours if _names(error, name))
        if error.status not in _REFUSED or not refused:
            raise error
        known = self._refused.get(request.model, frozenset())
        self._refused[request.model] = known | refused


def _names(error: UpstreamError, parameter: str) -> bool:
    body = (error.upstream or {}).get("error") or {}
    named = body.get("param") or error.param
    said = f"{body.get('message')} {error.message}"
    names = {parameter, _IN_RESPONSES.get(parameter, parameter)}
    return named in names or (not named and any(name in said for name in names))


async def _discarded(deleting: Awaitable[None]) -> None:
    try:
        async with asyncio.timeout(_DISCARDED_WITHIN):
            await deleting
    except Exception as error:  # noqa: BLE001 - a user's backend may raise anything
        log.warning("an answer that no client was given is still stored upstream: %s", error)
