"""`honestproxy compare`: raw and wrapped answers side by side."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from honestproxy.cli import question
from honestproxy.cli.options import Json, with_settings
from honestproxy.cli.output import noted, print_json, safe, stdout
from honestproxy.cli.question import Answered
from honestproxy.errors import InvalidRequest
from honestproxy.settings import Settings

QUESTIONS = (
    "What is the price of gold right now?",
    "How does coffee taste to you?",
    "What is the capital of France?",
)
"""Asked where none are given: two that no model can answer, and one that any can."""

SIDE_BY_SIDE = 80
"""Columns from which two answers fit beside each other."""

Words = Annotated[
    list[str] | None,
    typer.Argument(metavar="QUESTION", help="Each one in quotes; a few of ours where none."),
]
File = Annotated[Path | None, typer.Option("--file", help="Questions, one per line.")]


@dataclass(frozen=True, slots=True)
class Compared:
    """One question, answered twice."""

    question: str
    raw: Answered
    wrapped: Answered

    def body(self) -> dict[str, Any]:
        """For `--json`."""
        both = {"raw": self.raw.body(), "wrapped": self.wrapped.body()}
        return {"question": self.question, **both}


@with_settings("prompts", "prompt_set", "threshold")
def compare(
    settings: Settings, words: Words = None, file: File = None, as_json: Json = False
) -> None:
    """Show what the proxy changes: each question raw and wrapped, side by side."""
    questions = _questions(words or [], file)
    asyncio.run(_print_all(settings, questions, as_json=as_json))


def _questions(words: list[str], file: Path | None) -> list[str]:
    try:
        lines = file.read_text("utf-8").splitlines() if file else []
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"{file}: can't be read: {error}") from None
    given = [text.strip() for text in [*words, *lines] if text.strip()]
    if not given and (words or file):
        raise InvalidRequest("the questions are empty", param="messages")
    return given or list(QUESTIONS)


async def _print_all(settings: Settings, questions: list[str], *, as_json: bool) -> None:
    console = stdout()
    async with aclosing(_compared(settings, questions)) as answers:
        async for answered in answers:
            if as_json:
                print_json(answered.body())
            else:
                console.print(shown(answered, console.width))


async def _compared(settings: Settings, questions: list[str]) -> AsyncGenerator[Compared, None]:
    # One after the other: on a local model, two at once would share the clock they are timed by.
    free = settings.model_copy(update={"strategies_allowed": None})
    async with question.opened(free) as pipeline:
        model = await question.pick_model(pipeline, settings)
        for number, text in enumerate(questions, 1):
            messages = [{"role": "user", "content": text}]
            both = []
            for name, strategy in (("raw", "raw"), ("wrapped", None)):
                with noted(f"question {number} of {len(questions)}: {name} …"):
                    asked = question.ask(pipeline, model, messages, strategy=strategy)
                    both.append(await asked)
            yield Compared(text, *both)


def shown(compared: Compared, width: int) -> RenderableType:
    """Both answers: in two columns where there is room, else one above the other."""
    sides = [_side("raw", compared.raw), _side("wrapped", compared.wrapped)]
    title = Text(safe(compared.question), "bold")
    if width < SIDE_BY_SIDE:
        return Group(title, *sides)
    table = Table.grid(expand=True)
    table.add_column(ratio=1)
    table.add_column(ratio=1)
    table.add_row(*sides)
    return Group(title, table)


def _side(name: str, answered: Answered) -> Panel:
    notes = [*answered.doubts(), answered.facts()]
    body = [Text(safe(answered.text).strip()), Text(), *(Text(line, "dim") for line in notes)]
    return Panel(Group(*body), title=Text(name), title_align="left", border_style="dim")
