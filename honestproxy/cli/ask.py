"""`honestproxy ask`: one question, answered in the terminal."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from honestproxy.cli import question
from honestproxy.cli.options import Json, with_settings
from honestproxy.cli.output import (
    doubt_lines,
    facts,
    noted,
    print_json,
    safe,
    stderr,
    write_live,
)
from honestproxy.errors import InvalidRequest
from honestproxy.settings import Settings

if TYPE_CHECKING:
    from honestproxy.trace import Honesty, Step
from honestproxy.types import Message

Words = Annotated[list[str], typer.Argument(metavar="QUESTION", help="`-` reads it from stdin.")]
System = Annotated[str | None, typer.Option("--system", help="A system message.")]
ShowTrace = Annotated[bool, typer.Option("--trace", help="Show each step: prompt and text.")]


@with_settings("prompts", "prompt_set", "threshold")
def ask(
    settings: Settings,
    words: Words,
    system: System = None,
    trace: ShowTrace = False,
    as_json: Json = False,
) -> None:
    """Ask one question; the answer goes to stdout, what was done to stderr."""
    messages = _messages(words, system)
    answer, honesty = asyncio.run(_answer(settings, messages, live=not as_json))
    if as_json:
        body = honesty.body() | ({"steps": _steps(honesty)} if trace else {})
        print_json({"answer": answer, "honesty": body, "usage": honesty.trace.usage})
        return
    sys.stdout.write("\n")
    _tell(honesty, trace=trace)


def _messages(words: list[str], system: str | None) -> list[Message]:
    text = sys.stdin.read() if words == ["-"] else " ".join(words)
    if not text.strip():
        raise InvalidRequest("the question is empty", param="messages")
    asked = {"role": "user", "content": text.strip()}
    return [{"role": "system", "content": system}, asked] if system else [asked]


async def _answer(
    settings: Settings, messages: list[Message], *, live: bool
) -> tuple[str, Honesty]:
    async with question.opened(settings) as pipeline:
        model = await question.pick_model(pipeline, settings)
        with noted("thinking …") as note:

            def show(text: str) -> None:
                if text:
                    note.stop()
                    write_live(text)

            return await question.ask(pipeline, model, messages, live=show if live else None)


def _tell(honesty: Honesty, *, trace: bool) -> None:
    console = stderr()
    console.print(Text(facts(honesty), "dim"))
    for line in doubt_lines(honesty):
        console.print(Text(f"  {line}", "dim"))
    for step in honesty.trace.steps if trace else ():
        console.print(Text(f"\n{_step_line(step)}", "bold"))
        console.print(Text(safe(_step_text(step))))


def _step_line(step: Step) -> str:
    seconds = f"{step.seconds:.1f} s" if step.seconds is not None else ""
    prompt = f"{step.prompt}.md {step.digest}" if step.prompt else ""
    return " · ".join(filter(None, [step.name, prompt, seconds, safe(step.error or "")]))


def _step_text(step: Step) -> str:
    return step.response.text if step.response else ""


def _steps(honesty: Honesty) -> list[dict[str, object]]:
    return [step.summary() | {"text": _step_text(step)} for step in honesty.trace.steps]
