"""A local model as a deployment of its own, and the backend that reaches it from the proxies.

Requests, answers and chunks travel as the JSON that they are, and errors as values: what one
raises, Serve logs as a failure of its own, with whatever its message quotes.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ray.exceptions import RayError, RayTaskError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from honestproxy import backends
from honestproxy.backends import Traits
from honestproxy.compatible import Compatible
from honestproxy.doubts import Scores
from honestproxy.errors import BackendError, HonestProxyError, UpstreamUnreachable
from honestproxy.evals.here import ready
from honestproxy.settings import load
from honestproxy.types import Backend, ChatRequest, ChatResponse, Chunk


@dataclass(frozen=True, slots=True)
class About:
    """What a model's backend says of itself; `reads`: it shows hidden states."""

    traits: Traits
    reads: bool


class Model:
    """The upstream that settings name. Serve makes replicas of it, each ready once loaded."""

    # Serve awaits it, and takes a replica for ready only then.
    async def __init__(self, config: Path | None, flags: Mapping[str, Any]) -> None:  # type: ignore[misc]
        self._backend: Backend = await ready(load(config, **flags))

    async def about(self) -> About:
        """What the backend says of itself; only chats travel here."""
        told = replace(backends.traits(self._backend), responses=False)
        return About(told, hasattr(self._backend, "read"))

    async def complete(self, request: bytes) -> bytes | HonestProxyError:
        """The whole answer."""
        try:
            return (await self._backend.complete(ChatRequest(request))).raw
        except HonestProxyError as error:
            return error.at_rest()

    async def stream(self, request: bytes) -> AsyncGenerator[bytes | HonestProxyError, None]:
        """The answer as it is made; ended where nobody hears it any more."""
        try:
            async with aclosing(self._backend.stream(ChatRequest(request))) as chunks:
                async for chunk in chunks:
                    yield chunk.raw
        except HonestProxyError as error:
            yield error.at_rest()

    async def read(self, request: bytes) -> Scores | HonestProxyError:
        """What the backend reads inside the model."""
        try:
            return await Compatible(self._backend).read(ChatRequest(request))
        except HonestProxyError as error:
            return error.at_rest()

    async def models(self) -> list[dict[str, Any]]:
        """The models it serves."""
        return await self._backend.models()

    async def __del__(self) -> None:
        """Let go of the model. Serve awaits it."""
        if hasattr(self, "_backend"):
            await self._backend.aclose()


class Remote:
    """A backend over the handle of a `Model`: its answers and streams."""

    def __init__(self, handle: DeploymentHandle, traits: Traits) -> None:
        self.traits = traits
        self._handle = handle
        self._streaming = handle.options(stream=True)

    async def complete(self, request: ChatRequest) -> ChatResponse:
        """The whole answer. Cancelling it stops the model."""
        return ChatResponse(await answered(self._handle.complete.remote(request.raw)))

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Chunk, None]:
        """The answer as it is made. Closing it stops the model."""
        pieces = self._streaming.stream.remote(request.raw)
        with _explained(), _ended(pieces):
            async for piece in pieces:
                yield Chunk(_good(piece))

    async def models(self, headers: Mapping[str, str] | None = None) -> list[dict[str, Any]]:
        """The models it serves. `headers` change nothing."""
        listed: list[dict[str, Any]] = await answered(self._handle.models.remote())
        return listed

    async def aclose(self) -> None:
        """Nothing to let go of: the model stays for the other proxies."""


class RemoteReading(Remote):
    """The same where the model shows hidden states."""

    async def read(self, request: ChatRequest) -> Scores:
        """What the model is read to doubt."""
        scores: Scores = await answered(self._handle.read.remote(request.raw))
        return scores


async def reached(handle: DeploymentHandle) -> Remote:
    """The backend behind a handle. Raises UpstreamUnreachable, BackendError."""
    about: About = await answered(handle.about.remote())
    return (RemoteReading if about.reads else Remote)(handle, about.traits)


async def answered(response: Any) -> Any:
    """What a handle's call returns. Raises what it raised there, or UpstreamUnreachable."""
    with _explained(), _ended(response):
        return _good(await response)


def _good(value: Any) -> Any:
    """What came back, unless it is an error."""
    if isinstance(value, HonestProxyError):
        raise value
    return value


@contextmanager
def _ended(call: Any) -> Iterator[None]:
    """Take a call back that is still under way at the end of the block."""
    done = False
    try:
        yield
        done = True
    finally:
        if not done:
            call.cancel()


@contextmanager
def _explained() -> Iterator[None]:
    """Ray's errors as ours."""
    try:
        yield
    except RayTaskError as error:
        what = type(error.cause).__name__
        raise BackendError(f"the model failed ({what}); its replica's log says why") from None
    except (RayError, RayServeException) as error:
        why = type(error).__name__
        raise UpstreamUnreachable(
            f"the model's replica can't be reached ({why}); Serve starts another: ask again"
        ) from None
