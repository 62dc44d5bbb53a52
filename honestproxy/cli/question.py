"""A pipeline for as long as a command needs it, and one question to it."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from honestproxy.cli.output import count, noted, safe
from honestproxy.errors import InvalidRequest, SettingsError
from honestproxy.settings import nearest
from honestproxy.settings.references import blotted
from honestproxy.trace import Honesty
from honestproxy.types import ChatRequest, Message, Options

if TYPE_CHECKING:
    from honestproxy.backends.upstreams import Upstreams
    from honestproxy.router import Pipelines
    from honestproxy.settings import Settings
    from honestproxy.types import Backend


Words = Annotated[list[str], typer.Argument(metavar="QUESTION", help="`-` reads it from stdin.")]
System = Annotated[str | None, typer.Option("--system", help="A system message.")]


@dataclass(frozen=True, slots=True)
class Answered:
    """One answer, what was done to it, and how long it took in all."""

    text: str
    honesty: Honesty
    seconds: float

    def body(self) -> dict[str, Any]:
        """For `--json`."""
        honesty = self.honesty.body() | {"seconds": round(self.seconds, 4)}
        return {"answer": self.text, "honesty": honesty, "usage": self.honesty.trace.usage}

    def facts(self) -> str:
        """One line: strategy, outcome, doubts, calls, tokens, seconds."""
        trace, doubts = self.honesty.trace, self.honesty.doubts
        tokens = trace.usage.get("total_tokens")
        parts = [
            trace.strategy,
            (self.honesty.outcome or "unknown").replace("_", " "),
            count(len(doubts.items), "doubt") if doubts else "",
            count(len(trace.steps), "call"),
            count(tokens, "token") if tokens else "",
            f"{self.seconds:.1f} s",
        ]
        return " · ".join(filter(None, parts))

    def doubts(self) -> Iterator[str]:
        """Each doubt on a line: its kind and statement."""
        for doubt in self.honesty.doubts.items if self.honesty.doubts else ():
            yield safe(f"{doubt.kind.replace('_', ' ')}: {doubt.statement}")


def conversation(words: list[str], system: str | None) -> list[Message]:
    """The messages that the command's words make. Raises InvalidRequest where they are empty."""
    text = sys.stdin.read() if words == ["-"] else " ".join(words)
    if not text.strip():
        raise InvalidRequest("the question is empty", param="messages")
    asked = {"role": "user", "content": text.strip()}
    return [{"role": "system", "content": system}, asked] if system else [asked]


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
    if "exemplars" in settings.model_fields_set and not settings.exemplars.is_dir():
        remedy = "`honestproxy introspect fit DATA.jsonl` makes it"
        raise SettingsError(f"exemplars: no folder {settings.exemplars}; {remedy}")


async def loaded(settings: Settings, upstreams: Upstreams | None = None) -> Backend:
    """The backend that the settings name, ready to answer; a local model loads first.

    It is opened among `upstreams`, where others may be asked as well.
    """
    from honestproxy.backends import load
    from honestproxy.compatible import Compatible
    from honestproxy.strategies import READING

    backend = upstreams.named(None) if upstreams else load(settings)
    warm_up = getattr(backend, "load", None)
    if warm_up is not None:
        try:
            with noted(f"loading {blotted(settings.upstream)} …") as note:
                await warm_up(note.update)
                if default_strategy(settings, backend) in READING:
                    # The first fit takes a while: better now than within the first answer.
                    await getattr(backend, "load_reader", warm_up)(note.update)
        except BaseException:
            await Compatible(backend).aclose()
            raise
    return backend


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[Pipelines]:
    """The pipeline that the settings describe, or several; closed with all upstreams at the end."""
    from honestproxy.backends.upstreams import Upstreams
    from honestproxy.router import routed

    check(settings)
    upstreams = Upstreams(settings)
    await loaded(settings, upstreams)
    pipeline = routed(upstreams, settings)
    try:
        if pipeline.is_routed and settings.model:
            await pipeline.of(settings.model).load()
        yield pipeline
    finally:
        await pipeline.aclose()


async def pick_model(backend: Backend, settings: Settings) -> str:
    """The model to ask: the one set, else the first that the upstream lists."""
    from honestproxy.compatible import Compatible

    return settings.model or await Compatible(backend).first_model()


async def ask(
    pipeline: Pipelines,
    model: str,
    messages: list[Message],
    *,
    strategy: str | None = None,
    live: Callable[[str], object] | None = None,
) -> Answered:
    """Ask, streaming; `live` gets each piece of the answer as it comes."""
    body: dict[str, Any] = {"model": model, "messages": messages, "stream": True}
    body["stream_options"] = {"include_usage": True}
    run = pipeline.run(ChatRequest(body, options=Options(strategy=strategy)))
    pieces = []
    async with aclosing(run.stream()) as chunks:
        async for chunk in chunks:
            pieces.append(chunk.text)
            if live:
                live(chunk.text)
    return Answered("".join(pieces), run.honesty, run.honesty.trace.seconds)
