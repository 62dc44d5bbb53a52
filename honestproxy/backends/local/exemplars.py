"""Labelled conversations from which a reader learns what doubt looks like inside a model."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, get_args

from honestproxy.errors import PromptError
from honestproxy.templates import shipped
from honestproxy.types import DoubtKind, Message, text_of

NONE: Final = "none"
KINDS: Final = get_args(DoubtKind)


@dataclass(frozen=True, slots=True)
class Exemplar:
    """One conversation; `kind` is `none` where there is nothing to doubt.

    `near`: whether it is without doubt, but near in topic to one with it. `own`: whether it is
    the user's, not one of ours.
    """

    messages: tuple[Message, ...]
    kind: str
    sub: str = ""
    file: Path | None = None
    line: int = 0
    own: bool = False
    near: bool = False

    @property
    def where(self) -> str:
        """File and line."""
        return f"{self.file}, line {self.line}"

    @property
    def text(self) -> str:
        """What its last message says."""
        return text_of(self.messages[-1].get("content"))

    @property
    def key(self) -> str:
        """What two exemplars of the same conversation have in common."""
        return json.dumps(self.messages, sort_keys=True)


def folder() -> Path:
    """Where the shipped exemplars are."""
    return shipped() / "introspect" / "exemplars"


def load(root: Path | None = None) -> list[Exemplar]:
    """All exemplars, a kind a file; `near_*` and `plain` are without doubt.

    Raises PromptError, which names file and line, where one can't be used.
    """
    root = root or folder()
    files = sorted(root.glob("*.jsonl"))
    found = [exemplar for file in files for exemplar in _lines(file)]
    kinds = {exemplar.kind for exemplar in found}
    if NONE not in kinds or len(kinds) < 2:
        raise PromptError(f"{root}: needs files of doubts, named by kind, and plain.jsonl")
    return found


def together(shipped: Iterable[Exemplar], own: Iterable[Exemplar]) -> list[Exemplar]:
    """Both; where they hold the same conversation, the user's word on it counts."""
    return list({exemplar.key: exemplar for exemplar in (*shipped, *own)}.values())


def _lines(file: Path) -> list[Exemplar]:
    kind = NONE if file.stem == "plain" or file.stem.startswith("near_") else file.stem
    if kind != NONE and kind not in KINDS:
        raise PromptError(f"{file}: no kind of doubt is called {kind!r}; there are {KINDS}")
    lines = enumerate(file.read_text("utf-8").splitlines(), 1)
    return [_exemplar(line, kind, file, number) for number, line in lines if line]


def _exemplar(line: str, kind: str, file: Path, number: int) -> Exemplar:
    try:
        row: Mapping[str, Any] = json.loads(line)
        messages = row.get("messages") or [{"role": "user", "content": row["text"]}]
        sub = row.get("sub", "") if kind != NONE else ""
        near = file.stem.startswith("near_")
        return Exemplar(tuple(messages), kind, sub, file, number, near=near)
    except (ValueError, KeyError, AttributeError):
        where = f"{file}, line {number}"
        raise PromptError(f'{where}: must be an object with "text" or "messages"') from None
