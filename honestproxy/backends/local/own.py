"""A user's own exemplars: labelled questions in JSON Lines, checked, kept, and taken away."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from honestproxy.backends.local.exemplars import KINDS, NONE, Exemplar
from honestproxy.errors import PromptError
from honestproxy.settings import nearest
from honestproxy.templates import shipped
from honestproxy.types import Message, text_of

SUFFIX: Final = ".jsonl"
EXAMPLE: Final = '{"text": "What is gold at?", "kind": "latest_information"}'
_ROLES: Final = ("system", "developer", "user", "assistant", "tool", "function")

Files = dict[str, list[Exemplar]]
"""Exemplars by the name of their file."""


@dataclass(frozen=True, slots=True)
class Given:
    """A file as it was given: its name, its bytes, and what they say."""

    name: str
    data: bytes
    exemplars: list[Exemplar]


def given(path: Path) -> Given:
    """A file of labelled questions, every line of it checked.

    Raises PromptError, which names file, line and remedy.
    """
    if path.suffix != SUFFIX:
        raise PromptError(f"{path}: name it {path.stem}{SUFFIX}: it is kept under its own name")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise PromptError(f"{path}: can't be read: {error.strerror}") from None
    return Given(path.name, data, _parsed(data, path))


def load(folder: Path | None) -> list[Exemplar]:
    """All of the user's exemplars; none where there is no folder."""
    return joined(kept(folder)) if folder else []


def kept(folder: Path, without: Collection[str] = ()) -> Files:
    """What the folder holds, but for files that aren't wanted, which aren't read."""
    wanted = [path for path in paths(folder) if path.name not in without]
    return {path.name: given(path).exemplars for path in wanted}


def paths(folder: Path) -> list[Path]:
    """The folder's files of exemplars, by name."""
    try:
        return sorted(path for path in folder.iterdir() if path.suffix == SUFFIX)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise PromptError(f"{folder}: can't be read: {error.strerror}") from None


def joined(files: Files) -> list[Exemplar]:
    """The exemplars of all files. Raises PromptError where two contradict each other."""
    found = [exemplar for name in sorted(files) for exemplar in files[name]]
    _check_agreement(found)
    return found


@contextlib.contextmanager
def storing(files: Sequence[Given], folder: Path) -> Iterator[None]:
    """Keep files once the block is left without an error: each whole, or not at all.

    Whether there is room for them shows before the block, which may take long.
    """
    staged: list[tuple[Path, Path]] = []
    try:
        with _writing(folder):
            for file in files:
                folder.mkdir(parents=True, exist_ok=True)
                handle, made = tempfile.mkstemp(dir=folder, suffix=".part")
                staged.append((Path(made), folder / file.name))
                with os.fdopen(handle, "wb") as out:
                    out.write(file.data)
        yield
        with _writing(folder):
            for part, place in staged:
                part.replace(place)
    finally:
        for part, _ in staged:
            part.unlink(missing_ok=True)


def named(name: str, folder: Path) -> Path:
    """The file that a user means, with or without its ending. Raises PromptError."""
    known = {path.name: path for path in paths(folder)}
    for one in (name, f"{name}{SUFFIX}"):
        if one in known:
            return known[one]
    hint = nearest(name, (path.stem for path in known.values())) if known else "there are none"
    raise PromptError(f"{folder}: no exemplars are called {name!r}; {hint}")


def forget(files: Iterable[Path]) -> None:
    """Take files away."""
    for path in files:
        with _writing(path.parent):
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        said = f"{folder}: can't be written: {error.strerror}"
        raise PromptError(f"{said}; free some space there, or choose --exemplars") from None


def _parsed(data: bytes, path: Path) -> list[Exemplar]:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise PromptError(f"{path}, line {line}: not UTF-8: save the file as UTF-8") from None
    # Not splitlines: JSON may hold some of what that takes for the end of a line.
    lines = [(number, line.strip()) for number, line in enumerate(text.split("\n"), 1)]
    found = [_exemplar(line, path, number) for number, line in lines if line]
    if not found:
        raise PromptError(f"{path}: holds nothing; give a question a line, such as {EXAMPLE}")
    _check_agreement(found)
    return found


def _exemplar(line: str, path: Path, number: int) -> Exemplar:
    try:
        row = _row(line)
        kind = _kind(row)
        return Exemplar(_messages(row), kind, _sub(row, kind), path, number, own=True)
    except PromptError as error:
        raise PromptError(f"{path}, line {number}: {error.message}") from None


def _row(line: str) -> Mapping[str, Any]:
    try:
        row = json.loads(line)
        json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise PromptError("holds half a character (a lone surrogate): take it out") from None
    except json.JSONDecodeError as error:
        said = f"{error.msg} at column {error.colno}"
        raise PromptError(f"not JSON ({said}); write it as {EXAMPLE}") from None
    except (ValueError, RecursionError):
        raise PromptError(f"not JSON that can be read; write it as {EXAMPLE}") from None
    if not isinstance(row, dict):
        raise PromptError(f"not an object; write it as {EXAMPLE}")
    return row


def _kind(row: Mapping[str, Any]) -> str:
    kind, known = row.get("kind"), (*KINDS, NONE)
    if kind is None or kind == "":
        raise PromptError(f'"kind" is missing; give one of {", ".join(known)}')
    if kind not in known:
        raise PromptError(f"no kind of doubt is called {kind!r}; {nearest(str(kind), known)}")
    return str(kind)


def _sub(row: Mapping[str, Any], kind: str) -> str:
    sub = row.get("sub") or ""
    known = [file.stem for file in (shipped() / "introspect").glob(f"{kind}-*.md")]
    subs = [name.removeprefix(f"{kind}-") for name in known]
    if sub and not subs:
        raise PromptError(f'{kind!r} has no openings of its own: leave "sub" out')
    if sub and sub not in subs:
        raise PromptError(f"{kind!r} has no opening {sub!r}; {nearest(str(sub), subs)}")
    return str(sub)


def _messages(row: Mapping[str, Any]) -> tuple[Message, ...]:
    if "messages" in row and "text" in row:
        raise PromptError('has both "text" and "messages": leave one out')
    if "messages" in row:
        return tuple(_conversation(row["messages"]))
    text = row.get("text")
    if text is None:
        raise PromptError(f'"text" is missing; write it as {EXAMPLE}')
    if not isinstance(text, str) or not text.strip():
        raise PromptError('"text" must be a question, not empty')
    return ({"role": "user", "content": text},)


def _conversation(messages: Any) -> list[Message]:
    if not isinstance(messages, list) or not messages or not all(map(_is_message, messages)):
        said = '"messages" must be a list of objects with "role" and "content"'
        calls = '"tool_calls", where there are any, must be a list of objects'
        raise PromptError(f"{said}; roles are {', '.join(_ROLES)}; {calls}")
    last = messages[-1]
    if last["role"] != "user":
        raise PromptError(f'"messages" must end with the user, not with the {last["role"]}')
    if not text_of(last.get("content")).strip():
        raise PromptError('"messages" must end with a question, not with an empty message')
    return messages


def _is_message(message: Any) -> bool:
    if not isinstance(message, dict) or message.get("role") not in _ROLES:
        return False
    content, calls = message.get("content"), message.get("tool_calls")
    if calls is not None and not _are_objects(calls):
        return False
    if isinstance(content, list):
        return _are_objects(content) and all(isinstance(p.get("text"), str) for p in content)
    return isinstance(content, str) or (content is None and calls is not None)


def _are_objects(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, dict) for item in value)


def _check_agreement(found: Iterable[Exemplar]) -> None:
    seen: dict[str, Exemplar] = {}
    for exemplar in found:
        first = seen.setdefault(exemplar.key, exemplar)
        if first.kind != exemplar.kind:
            raise PromptError(
                f"{exemplar.where}: the same question is {first.kind!r} in {first.where} and "
                f"{exemplar.kind!r} here; keep one of them"
            )
