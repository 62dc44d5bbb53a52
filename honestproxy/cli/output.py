"""What goes to the terminal: answers as data, notes on stderr, errors in one line."""

from __future__ import annotations

import json
import re
import sys
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.status import Status
from rich.text import Text

from honestproxy.errors import SettingsError

if TYPE_CHECKING:
    from honestproxy.errors import HonestProxyError

_ESCAPE = re.compile(r"\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)?)")
_HARMLESS = "\n\t"
_TURNS = frozenset({"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"})


def stdout(width: int | None = None) -> Console:
    """A console for answers, as wide as the terminal or as told; text is data, never markup."""
    return Console(markup=False, highlight=False, emoji=False, width=width)


def stderr() -> Console:
    """A console for notes, progress and errors."""
    return Console(stderr=True, markup=False, highlight=False, emoji=False)


def print_json(value: Any, *, error: bool = False) -> None:
    """One line of JSON."""
    stream = sys.stderr if error else sys.stdout
    stream.write(json.dumps(value) + "\n")
    stream.flush()


def print_error(error: HonestProxyError, *, as_json: bool) -> None:
    """`error: …` on stderr, or the object that OpenAI's API gives it.

    Mistakes in settings are told together, a line each.
    """
    if as_json:
        print_json(error.body(), error=True)
        return
    several = error.message.splitlines() if isinstance(error, SettingsError) else [error.message]
    for message in several:
        line = " ".join(safe(message).split())
        stderr().print(Text.assemble(("error: ", "bold red"), line), soft_wrap=True)


def safe(text: str) -> str:
    """Text of others without what a terminal would obey: escapes, controls, bidi overrides."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(c for c in _ESCAPE.sub("", text) if c in _HARMLESS or not _commands(c))


def _commands(character: str) -> bool:
    """Whether a terminal acts on it: a control, or a mark that turns the direction of text."""
    kind = unicodedata.category(character)
    return kind == "Cc" or unicodedata.bidirectional(character) in _TURNS


def write_live(text: str) -> None:
    """A piece of an answer, as it comes; a pipe gets it unchanged."""
    sys.stdout.write(safe(text) if sys.stdout.isatty() else text)
    sys.stdout.flush()


def count(number: int, noun: str) -> str:
    """`1 doubt`, `2 doubts`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


class Note:
    """A line on stderr that says what is going on; without a terminal, one per new thing."""

    def __init__(self, status: Status | None) -> None:
        self._status = status
        self._told = ""

    def update(self, message: str) -> None:
        """Say what is going on now."""
        message = safe(message)
        if self._status:
            self._status.update(Text(message, "dim"))
            return
        thing = message.partition(":")[0]
        if thing != self._told:
            self._told = thing
            stderr().print(thing, soft_wrap=True)

    def stop(self) -> None:
        """Make room for something else."""
        if self._status:
            self._status.stop()


@contextmanager
def noted(message: str = "") -> Iterator[Note]:
    """A note for as long as something takes; `message` shows on a terminal only."""
    if not sys.stderr.isatty():
        yield Note(None)
        return
    with stderr().status(Text(message, "dim")) as status:
        yield Note(status)
