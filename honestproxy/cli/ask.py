"""`honestproxy ask`: one question, answered in the terminal."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from honestproxy.cli import question
from honestproxy.cli.options import Json, with_settings
from honestproxy.cli.output import noted, print_json, safe, stderr, write_live
from honestproxy.cli.question import Answered, System, Words
from honestproxy.settings import Settings

if TYPE_CHECKING:
    from honestproxy.trace import Step
    from honestproxy.types import Message

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
    messages = question.conversation(words, system)
    answered = asyncio.run(_answer(settings, messages, live=not as_json))
    if as_json:
        print_json(answered.body() | ({"trace": _steps(answered)} if trace else {}))
        return
    sys.stdout.write("\n")
    _tell(answered, trace=trace)


async def _answer(settings: Settings, messages: list[Message], *, live: bool) -> Answered:
    async with question.opened(settings) as pipeline:
        model = await question.pick_model(pipeline, settings)
        with noted("thinking …") as note:

            def show(text: str) -> None:
                if text:
                    note.stop()
                    write_live(text)

            return await question.ask(pipeline, model, messages, live=show if live else None)


def _tell(answered: Answered, *, trace: bool) -> None:
    console = stderr()
    console.print(Text(answered.facts(), "dim"))
    for line in answered.doubts():
        console.print(Text(f"  {line}", "dim"))
    for step in answered.honesty.trace.steps if trace else ():
        console.print(Text(f"\n{_step_line(step)}", "bold"))
        console.print(Text(safe(_step_text(step))))


def _step_line(step: Step) -> str:
    seconds = f"{step.seconds:.1f} s" if step.seconds is not None else ""
    prompt = f"{step.prompt}.md {step.digest}" if step.prompt else ""
    return " · ".join(filter(None, [step.name, prompt, seconds, safe(step.error or "")]))


def _step_text(step: Step) -> str:
    return step.response.text if step.response else ""


def _steps(answered: Answered) -> list[dict[str, object]]:
    steps = answered.honesty.trace.steps
    return [step.summary() | {"text": _step_text(step)} for step in steps]
