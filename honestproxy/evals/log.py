"""A run's folder: its configuration, its questions, and a log that nothing ended is lost from.

config.json     what was asked of whom; a folder holds one configuration
samples.jsonl   the questions, one a line
log.jsonl       answers and verdicts, one a line, each written as it ends
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Self

from filelock import FileLock, Timeout

from honestproxy.errors import EvaluationError
from honestproxy.evals.records import Answered, Record, Sample, Verdict, as_line, from_line
from honestproxy.types import Usage
from honestproxy.types import read as read_json
from honestproxy.types import write as write_json

CONFIG: Final = "config.json"
SAMPLES: Final = "samples.jsonl"
LOG: Final = "log.jsonl"
_LOCK: Final = ".lock"
_SYNCED_EVERY: Final = 2.0
"""Seconds after which what was written is also forced to the disk, against power cuts."""
_PASSING: Final = frozenset({"made_by", "path", "price"})
"""What of a configuration may differ when a run goes on."""
_TOKENS: Final = frozenset({"prompt_tokens", "completion_tokens", "total_tokens"})


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the log, from `offset` to `end`.

    `record` is None where the line is torn, which only the last one can be. One that lacks
    nothing but the end of its line has a record, and is not `is_ended`.
    """

    number: int
    offset: int
    end: int
    record: Record | None
    is_ended: bool


def lines(path: Path) -> Iterator[Line]:
    """Every line of a log that isn't blank, in the order in which they ended.

    Raises EvaluationError at what is no record, unless it is torn.
    """
    end = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            offset, end = end, end + len(line)
            if line.strip():
                record = _record(line, f"{path}:{number}")
                if record is None and file.read(1):
                    message = f"{path}:{number}: no record; mend the line, or delete it"
                    raise EvaluationError(message)
                yield Line(number, offset, end, record, line.endswith(b"\n"))


def _record(line: bytes, place: str) -> Record | None:
    """The record; None where the line is broken. Raises EvaluationError at what is no record."""
    try:
        values = read_json(line)
    except ValueError:
        return None
    kind = values.get("type") if isinstance(values, dict) else None
    if kind not in ("answer", "verdict"):
        raise EvaluationError(
            f"{place}: a record of type {kind!r}, where answers and verdicts belong; "
            "update honestproxy if a newer one wrote it, or delete the line"
        )
    try:
        return from_line(values)
    except ValueError as error:
        raise EvaluationError(
            f"{place}: no whole {kind}: {error}; mend the line, or delete it"
        ) from None


def samples(path: Path) -> Iterator[Sample]:
    """The questions of a run. Raises EvaluationError where they can't be read."""
    try:
        file = path.open("rb")
    except OSError as error:
        message = f"{path}: can't be read: {error.strerror}; it belongs to the run's folder"
        raise EvaluationError(message) from None
    with file:
        for number, line in enumerate(file, 1):
            try:
                values = read_json(line)
                lists = {n: tuple(values.get(n) or ()) for n in ("messages", "answers", "wrong")}
                yield Sample(**{**values, **lists})
            except (ValueError, TypeError, AttributeError) as error:
                message = f"{path}:{number}: no question: {error}; put back the run's own file"
                raise EvaluationError(message) from None


def configuration(folder: Path, remedy: str = "choose another folder") -> dict[str, Any] | None:
    """What a run was asked for; None where there is none. Raises EvaluationError."""
    path = folder / CONFIG
    try:
        config: Any = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError as error:
        raise EvaluationError(f"{path}: not JSON: {error}; {remedy}") from None
    if not isinstance(config, dict):
        raise EvaluationError(f"{path}: no configuration; {remedy}")
    return config


@dataclass(slots=True)
class Done:
    """What a log says is done: where each answer stands, and each sample's verdicts.

    `failed` answers are among them; `missed` counts errors that may pass, by sample and arm.
    `usage` is what answers took, by arm, and `judging` what the judge took.
    """

    answers: dict[tuple[str, str], int] = field(default_factory=dict)
    verdicts: dict[str, list[int]] = field(default_factory=dict)
    failed: int = 0
    missed: Counter[tuple[str, str]] = field(default_factory=Counter)
    usage: dict[str, Usage] = field(default_factory=dict)
    judging: Usage = field(default_factory=Usage)

    def add(self, record: Record, offset: int) -> None:
        """Take a record in; an error that may pass is not done."""
        if isinstance(record, Verdict):
            self.verdicts.setdefault(record.sample, []).append(offset)
            self.judging = self.judging + _counted(record)
        elif record.again:
            self.missed[record.sample, record.arm] += 1
            self.answers.pop((record.sample, record.arm), None)
        else:
            self.answers[record.sample, record.arm] = offset
            self.failed += record.error is not None
            self.usage[record.arm] = self.usage.get(record.arm, Usage()) + _counted(record)


class Log:
    """The log of a run, open at its end. `notes` say what was mended."""

    def __init__(self, path: Path) -> None:
        self.done = Done()
        self.notes: list[str] = []
        self._path = path
        self._file = path.open("ab", buffering=0)  # each write goes to the system at once
        self._synced = time.monotonic()
        try:
            self._mend(self._read())
        except BaseException:
            self._file.close()
            raise

    def append(self, record: Record) -> None:
        """Write a record: once this returns, no kill of this process loses it.

        Raises EvaluationError, and leaves nothing half-written, where the disk takes no more.
        """
        offset, data = self._file.tell(), memoryview(_line(as_line(record)))
        try:
            while data:
                data = data[self._file.write(data) :]
        except OSError as error:
            self._file.truncate(offset)
            self._file.seek(0, os.SEEK_END)
            raise EvaluationError(f"{self._path}: can't be written: {error.strerror}") from None
        self.done.add(record, offset)
        if time.monotonic() - self._synced > _SYNCED_EVERY:
            self._sync()

    def answer(self, sample: str, arm: str) -> Answered | None:
        """An answer that is done, read from the log; None where it is still to be asked."""
        offset = self.done.answers.get((sample, arm))
        found = [] if offset is None else list(self._at([offset]))
        return next((record for record in found if isinstance(record, Answered)), None)

    def verdicts(self, sample: str) -> list[Verdict]:
        """What judges have said of a sample's answers."""
        found = self._at(self.done.verdicts.get(sample, ()))
        return [record for record in found if isinstance(record, Verdict)]

    def close(self) -> None:
        """All of it on the disk."""
        self._sync()
        self._file.close()

    def _at(self, offsets: Sequence[int]) -> Iterator[Record]:
        if not offsets:
            return
        with self._path.open("rb") as file:
            for offset in offsets:
                file.seek(offset)
                yield from_line(read_json(file.readline()))

    def _read(self) -> int:
        """Take in what is there; where the last whole record ends."""
        whole = 0
        for line in lines(self._path):
            if line.record is None:
                break
            self.done.add(line.record, line.offset)
            whole = line.end
            if not line.is_ended:
                whole += self._file.write(b"\n")
                self.notes.append(f"{LOG}: its last line lacked its end, which is added")
        return whole

    def _mend(self, whole: int) -> None:
        """Cut off a torn line."""
        if torn := self._file.tell() - whole:
            self._file.truncate(whole)
            self._file.seek(0, os.SEEK_END)
            self.notes.append(f"{LOG}: its last line was torn after {torn} bytes, and is cut off")

    def _sync(self) -> None:
        os.fsync(self._file.fileno())
        self._synced = time.monotonic()


class Folder:
    """A run's folder, held by this process alone until closed.

    Raises EvaluationError where another process holds it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._log: Log | None = None
        self._lock = FileLock(path / _LOCK, blocking=False)
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._lock.acquire()
        except Timeout:
            raise EvaluationError(f"{path}: another process is at work in it") from None
        except OSError as error:
            message = f"{path}: no folder that can be written to: {error.strerror}"
            raise EvaluationError(f"{message}; choose another --out") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self, config: Mapping[str, Any], questions: Sequence[Sample]) -> Log:
        """Begin a run, or go on with the one that is here. Raises EvaluationError if it differs."""
        known = configuration(self.path)
        if known is None:
            if (self.path / LOG).exists():
                raise EvaluationError(f"{self.path}: {LOG} without {CONFIG}; choose another --out")
            _write(self.path / SAMPLES, _listed(questions))
            _write(self.path / CONFIG, _text(config))
        elif found := list(differences(known, config)):
            raise EvaluationError(
                f"{self.path} holds a run of another configuration: {'; '.join(found)}. "
                "Choose another --out, or repeat its own command"
            )
        elif known.get("price") != (price := config.get("price")) and price is not None:
            _write(self.path / CONFIG, _text({**known, "price": price}))
        if not (self.path / SAMPLES).exists():  # lost since: the data are the same, so are these
            _write(self.path / SAMPLES, _listed(questions))
        self._log = Log(self.path / LOG)
        return self._log

    def close(self) -> None:
        """Let the folder go, all of it on the disk."""
        if self._log is not None:
            self._log.close()
        self._lock.release()


def differences(known: Any, given: Any, name: str = "") -> Iterator[str]:
    """What two configurations differ in, in words."""
    if isinstance(known, Mapping) and isinstance(given, Mapping):
        for key in {**known, **given}:
            # Prompts that only one of them reads come of other arms, which are told already.
            told = name == "prompts" and not (key in known and key in given)
            if key not in _PASSING and not told:
                below = f"{name}.{key}" if name else key
                yield from differences(known.get(key), given.get(key), below)
    elif _is_list(known) and _is_list(given) and len(known) == len(given):
        for number, (old, new) in enumerate(zip(known, given, strict=True), 1):
            yield from differences(old, new, f"{name}[{number}]")
    elif known != given:
        yield f"{name} is {_shown(known)} there and {_shown(given)} here"


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple)


def _shown(value: Any) -> str:
    if _is_list(value):
        names = [item.get("name") or item.get("path") for item in value if isinstance(item, dict)]
        return ",".join(map(str, names)) if names and all(names) else json.dumps(value)
    return json.dumps(value)


def _counted(record: Record) -> dict[str, Any]:
    return {name: number for name, number in (record.usage or {}).items() if name in _TOKENS}


def _listed(questions: Sequence[Sample]) -> bytes:
    return b"".join(map(_line, map(asdict, questions)))


def _line(values: Mapping[str, Any]) -> bytes:
    return write_json(values) + b"\n"


def _text(config: Mapping[str, Any]) -> bytes:
    return json.dumps(config, indent=2).encode() + b"\n"


def _write(path: Path, data: bytes) -> None:
    """Write a file whole or not at all."""
    beside = path.with_name(f"{path.name}.part")
    try:
        with beside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            beside.unlink()
