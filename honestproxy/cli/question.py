"""A pipeline for as long as a command needs it, and one question to it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING

from honestproxy.cli.output import noted
from honestproxy.errors import InvalidRequest, SettingsError
from honestproxy.settings import nearest
from honestproxy.trace import Honesty
from honestproxy.types import ChatRequest, Message, Options

if TYPE_CHECKING:
    from honestproxy.pipeline import Pipeline
    from honestproxy.settings import Settings
    from honestproxy.types import Backend


def default_strategy(settings: Settings, backend: Backend) -> str:
    """The strategy where a request names none."""
    from honestproxy.backends import traits

    return settings.strategy or traits(backend).default_strategy


def check(settings: Settings) -> None:
    """Raise where a strategy or a prompt is wrong, before anything slow is loaded."""
    from honestproxy.strategies import STRATEGIES
    from honestproxy.templates import Prompts

    for name in (settings.strategy, *(settings.strategies_allowed or ())):
        if name is not None and name not in STRATEGIES:
            raise SettingsError(f"unknown strategy {name!r}; {nearest(name, STRATEGIES)}")
    Prompts(settings.prompts).check()


async def loaded(settings: Settings) -> Backend:
    """The backend that the settings name, ready to answer; a local model loads first."""
    from honestproxy.backends import load

    backend = load(settings)
    warm_up = getattr(backend, "load", None)
    if warm_up is not None:
        try:
            with noted(f"loading {settings.upstream} …") as note:
                await warm_up(note.update)
        except BaseException:
            await backend.aclose()
            raise
    return backend


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[Pipeline]:
    """The pipeline that the settings describe; closed with its backend at the end."""
    from honestproxy.pipeline import Pipeline

    check(settings)
    pipeline = Pipeline(await loaded(settings), settings)
    try:
        yield pipeline
    finally:
        await pipeline.aclose()


async def pick_model(backend: Backend, settings: Settings) -> str:
    """The model to ask: the one set, else the first that the upstream lists."""
    if settings.model:
        return settings.model
    listed = await backend.models()
    if not listed:
        raise InvalidRequest("the upstream lists no models; name one with --model")
    return str(listed[0]["id"])


async def ask(
    pipeline: Pipeline,
    model: str,
    messages: list[Message],
    *,
    strategy: str | None = None,
    live: Callable[[str], object] | None = None,
) -> tuple[str, Honesty]:
    """The answer and what was done to it; `live` gets each piece as it comes."""
    body = {"model": model, "messages": messages, "stream": True}
    run = pipeline.run(ChatRequest(body, options=Options(strategy=strategy)))
    pieces = []
    try:
        async with aclosing(run.stream()) as chunks:
            async for chunk in chunks:
                pieces.append(chunk.text)
                if live:
                    live(chunk.text)
    finally:
        await run.aclose()
    return "".join(pieces), run.honesty
