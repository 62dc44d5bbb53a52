"""Log lines, as text or as JSON on stderr: what happened, and nothing that anyone said.

Neither prompts nor answers nor keys are ever logged. An exception is told by its kind and where
it came from: its message may repeat what was asked. What other libraries log comes at warnings
and above alone, and of it only the first line.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from honestproxy.server.access.usage import count
from honestproxy.server.account import facts

if TYPE_CHECKING:
    from honestproxy.server.account import Account
    from honestproxy.settings import Settings
    from honestproxy.trace import Step

OURS: Final = "honestproxy"
_ACCESS: Final = logging.getLogger(f"{OURS}.access")
_TALKATIVE: Final = ("LiteLLM", "aiohttp", "httpcore", "httpx", "openai", "sqlalchemy", "urllib3")
"""Loggers that hold whole requests below warnings, however their users set them up."""

_ON_HEADERS: Final = "opentelemetry.trace"
"""Warns of headers that a client got wrong, in the client's words."""

_LONGEST: Final = 300
"""Characters of a value, or of a line that isn't ours."""

_UNSAFE: Final = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
"""Controls, line separators, marks that turn text around, and halves of characters."""

_json: Final = json.JSONEncoder(default=str).encode

TRACE: Final[ContextVar[str | None]] = ContextVar("trace", default=None)
"""The trace that whatever is logged just now belongs to."""


def configure(settings: Settings) -> None:
    """Have this process's log lines written as the settings say; once more changes them."""
    handler = _Stderr()
    handler.setFormatter(AsJson() if settings.log_format == "json" else AsText())
    handler.addFilter(_may_be_told)
    root = logging.getLogger()
    kept = [other for other in root.handlers if not isinstance(other, _Stderr)]
    root.handlers[:] = [*kept, handler]
    root.setLevel(logging.WARNING)
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger(_ON_HEADERS).setLevel(logging.ERROR)
    logging.getLogger(OURS).setLevel(settings.log_level.upper())


def access_log(settings: Settings) -> AccessLog | None:
    """What logs each request, where the settings ask for that."""
    if settings.log_level not in ("info", "debug"):
        return None
    return AccessLog(calls=settings.log_level == "debug")


class AccessLog:
    """A line for each request that has ended, and one for each of its calls."""

    def __init__(self, *, calls: bool) -> None:
        self._calls = calls

    def note(self, account: Account) -> None:
        """Log a request."""
        run = account.run
        for step in run.honesty.trace.steps if run and self._calls else ():
            _ACCESS.debug("call", extra={"facts": _of_call(step)})
        told = facts(account) | {"request_id": account.request_id}
        if account.spans is not None:
            told["otel_trace_id"] = account.spans.trace_id
        _ACCESS.info("request", extra={"facts": told})


class AsText(logging.Formatter):
    """A line that starts with time and level, and ends with facts as `name=value`."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line, and where an exception came from below it."""
        parts = [_time(record), record.levelname, record.name, _message(record)]
        parts += [f"{name}={_plain(value)}" for name, value in _facts(record).items()]
        trail = [f"  {line}" for line in _trail(record)]
        return "\n".join([" ".join(parts), *trail])


class AsJson(logging.Formatter):
    """A JSON object on a line."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as JSON, in ASCII."""
        head = {"time": _time(record), "level": record.levelname.lower(), "logger": record.name}
        line: dict[str, Any] = {**head, "message": _message(record), **_facts(record)}
        if trail := list(_trail(record)):
            line["exception"] = trail
        return _json(line)


class _Stderr(logging.StreamHandler[Any]):
    """The one handler that is ours."""

    def __init__(self) -> None:
        super().__init__(sys.stderr)


def _may_be_told(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.WARNING or _is_ours(record)


def _is_ours(record: logging.LogRecord) -> bool:
    return record.name.partition(".")[0] == OURS


def _message(record: logging.LogRecord) -> str:
    message = record.getMessage()
    if not _is_ours(record):
        message = message.partition("\n")[0][:_LONGEST]
    return _escaped(message)


def _facts(record: logging.LogRecord) -> dict[str, Any]:
    """What is known besides the message; without what is unknown."""
    told: Mapping[str, Any] = getattr(record, "facts", None) or {"trace_id": TRACE.get()}
    cut = {name: v[:_LONGEST] if isinstance(v, str) else v for name, v in told.items()}
    return {name: value for name, value in cut.items() if value is not None}


def _of_call(step: Step) -> dict[str, Any]:
    usage: Mapping[str, Any] = step.usage or {}
    return {
        "trace_id": TRACE.get(),
        "step": step.name,
        "model": step.request.model,
        "seconds": step.seconds,
        "input_tokens": count(usage.get("prompt_tokens")),
        "output_tokens": count(usage.get("completion_tokens")),
        "failure": step.failure,
    }


def _trail(record: logging.LogRecord) -> Iterator[str]:
    """Where an exception came from, and what it came of: kinds and places, no messages."""
    error = record.exc_info[1] if record.exc_info else None
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        for frame in traceback.extract_tb(error.__traceback__):
            yield f"{_escaped(frame.filename)}:{frame.lineno} in {frame.name}"
        yield type(error).__qualname__
        error = error.__cause__ or error.__context__


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    text = _escaped(str(value))
    return json.dumps(text, ensure_ascii=False) if re.search(r'[\s"=]', text) or not text else text


def _escaped(text: str) -> str:
    """Text of others in which nothing is left that a terminal or a log's reader would obey."""
    return _UNSAFE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
