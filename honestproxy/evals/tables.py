"""Rows of JSONL, JSON and CSV files and of data sets on the hub, each with its place in errors."""

from __future__ import annotations

import csv
import hashlib
import importlib
import io
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from honestproxy.errors import EvaluationError

HUB: Final = "hub"
_SPLITS: Final = ("test", "validation", "train")
_DEEPEST: Final = 100
"""Levels of a row: some hundreds are read, but then too many to be kept, which takes more calls."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row: its values by column, and where it stands (`questions.jsonl:3`)."""

    values: Mapping[str, Any]
    place: str

    def wrong(self, message: str) -> EvaluationError:
        """What is wrong with this row, for raising."""
        return EvaluationError(f"{self.place}: {message}")

    def get(self, *names: str) -> Any:
        """The first of these columns that is filled; None where none is."""
        found = (self.values.get(name) for name in names)
        return next((value for value in found if value not in (None, "")), None)

    def text(self, *names: str) -> str:
        """The text of the first of these columns that is filled. Raises EvaluationError."""
        value = self.get(*names)
        if value is None:
            if names[0] in self.values:
                raise self.wrong(f"{names[0]!r} is empty")
            raise self.wrong(f"no {' or '.join(map(repr, names))}; it has {_listed(self.values)}")
        if not isinstance(value, str) or not value.strip():
            raise self.wrong(f"{names[0]!r} is no text: {str(value)[:40]!r}")
        return value.strip()

    def texts(self, *names: str, separator: str = ";") -> tuple[str, ...]:
        """A list of texts, or one text that separates them; empty where there is none."""
        value = self.get(*names)
        parts = value.split(separator) if isinstance(value, str) else value
        if parts is None:
            return ()
        if not isinstance(parts, list | tuple):
            parts = (parts,)
        if not all(isinstance(part, str | int | float) for part in parts):
            raise self.wrong(f"{names[0]!r} is no text and no list of texts")
        return tuple(text for part in parts if (text := str(part).strip()))


@dataclass(frozen=True, slots=True)
class Table:
    """All rows of one source, and the SHA-256 of what they were read from."""

    name: str
    rows: Sequence[Row]
    digest: str


def read(path: Path) -> Table:
    """The rows of a file. Raises EvaluationError, naming file and line, where it holds none."""
    try:
        raw = path.read_bytes()
        text = raw.decode("utf-8-sig")
    except OSError as error:
        raise EvaluationError(f"{path}: can't be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise EvaluationError(f"{path}:{line}: not UTF-8; save the file as UTF-8") from None
    rows = list(_parsed(path, text))
    if not rows:
        raise EvaluationError(f"{path}: no questions in it")
    return Table(str(path), rows, hashlib.sha256(raw).hexdigest())


def from_hub(name: str) -> Table:
    """The rows of a data set of the hub, `owner/name[:config[:split]]`.

    Raises EvaluationError where the package `datasets` is missing or can't get it.
    """
    try:
        datasets: Any = importlib.import_module("datasets")
    except ImportError:
        message = f"{name}: data sets of the hub need `pip install datasets`; or give a file"
        raise EvaluationError(message) from None
    owner, _, rest = name.partition(":")
    config, _, split = rest.partition(":")
    try:
        found = datasets.load_dataset(owner, config or None, split=split or None)
    except Exception as error:  # noqa: BLE001 - that package raises what the network raises
        raise EvaluationError(f"{name}: the hub didn't give it: {error}") from None
    if isinstance(found, Mapping):
        found = found[next((s for s in _SPLITS if s in found), next(iter(found)))]
    rows = [Row(dict(values), f"{name}, row {n}") for n, values in enumerate(found, 1)]
    said = json.dumps([row.values for row in rows], sort_keys=True, default=str)
    return Table(name, rows, hashlib.sha256(said.encode()).hexdigest())


def _parsed(path: Path, text: str) -> Iterator[Row]:
    if path.suffix.lower() in (".csv", ".tsv"):
        return _csv(path, text)
    if path.suffix.lower() == ".json" or text.lstrip().startswith("["):
        return _json(path, text)
    return _lines(path, text)


def _lines(path: Path, text: str) -> Iterator[Row]:
    # Not splitlines: JSON may hold other separators of lines unescaped.
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            place = f"{path}:{number}"
            try:
                values = json.loads(line)
            except RecursionError:
                raise _too_deep(place) from None
            except ValueError as error:
                raise EvaluationError(f"{place}: not JSON: {error}") from None
            yield _row(values, place)


def _json(path: Path, text: str) -> Iterator[Row]:
    try:
        whole = json.loads(text)
    except RecursionError:
        raise _too_deep(str(path)) from None
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":  # an object a line, whatever the file is called
            yield from _lines(path, text)
            return
        raise EvaluationError(f"{path}:{error.lineno}: not JSON: {error.msg}") from None
    except ValueError as error:  # a number of thousands of digits
        raise EvaluationError(f"{path}: not JSON: {error}") from None
    for number, values in enumerate(_items(path, whole), 1):
        yield _row(values, f"{path}, row {number}")


def _items(path: Path, whole: Any) -> Iterable[Any]:
    """A list, or the one list of objects within an object."""
    if isinstance(whole, list):
        return whole
    lists = whole.values() if isinstance(whole, dict) else ()
    found = [v for v in lists if isinstance(v, list) and v and isinstance(v[0], dict)]
    if not found and isinstance(whole, dict):
        return [whole]
    if len(found) != 1:
        raise EvaluationError(f"{path}: no list of questions in it")
    return list(found[0])


def _csv(path: Path, text: str) -> Iterator[Row]:
    dialect = csv.excel_tab if path.suffix.lower() == ".tsv" else csv.excel
    csv.field_size_limit(max(csv.field_size_limit(), len(text)))  # of this whole process
    reader = csv.DictReader(io.StringIO(text, newline=""), dialect=dialect, strict=True)
    try:
        columns = Counter(reader.fieldnames or ())
        if twice := [name for name, times in columns.items() if times > 1]:
            raise EvaluationError(f"{path}:1: two columns are named {twice[0]!r}")
        for values in reader:
            if not any(map(_is_filled, values.values())):
                continue  # a spreadsheet's last rows may be but commas
            row = Row(values, f"{path}:{reader.line_num}")
            cells = len(values.get(None) or ())
            if cells or None in values.values():
                raise row.wrong(_misfit(list(reader.fieldnames or ()), values, cells))
            yield row
    except csv.Error as error:
        raise EvaluationError(f"{path}:{reader.line_num}: not CSV: {error}") from None


def _is_filled(cell: Any) -> bool:
    return any(cell) if isinstance(cell, list) else bool(cell)


def _misfit(columns: Sequence[str], values: Mapping[str, Any], more: int) -> str:
    known = len(columns)
    cells = known + more if more else sum(values[column] is not None for column in columns)
    hint = "quote cells that hold commas or line breaks"
    return f"{cells} cells, but the first line names {known} columns; {hint}"


def _row(values: Any, place: str) -> Row:
    row = Row(values if isinstance(values, dict) else {}, place)
    if _is_deep(values):
        raise _too_deep(place)
    if not isinstance(values, dict):
        raise row.wrong(f"not an object: {json.dumps(values)[:40]}")
    return row


def _is_deep(values: Any) -> bool:
    level = [values]
    for _ in range(_DEEPEST):
        level = [child for value in level for child in _children(value)]
        if not level:
            return False
    return True


def _children(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _too_deep(place: str) -> EvaluationError:
    return EvaluationError(f"{place}: nested deeper than {_DEEPEST} levels")


def _listed(values: Iterable[str]) -> str:
    return ", ".join(map(repr, values)) or "nothing"
