"""A client's chat request, read and checked: what OpenAI's API calls a 400 is one here."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Collection, Mapping
from dataclasses import fields
from typing import Any, Final, TypeVar

from honestproxy.errors import InvalidRequest
from honestproxy.settings import nearest
from honestproxy.types import ChatRequest, Document, Options

D = TypeVar("D", bound=Document)
STRATEGY_HEADER: Final = "x-honesty"
FORWARDED: Final = {
    name.lower(): name
    for name in (
        *("Authorization", "Idempotency-Key", "OpenAI-Beta", "OpenAI-Organization"),
        *("OpenAI-Project", "traceparent", "tracestate", "X-Client-Request-Id"),
    )
}
"""Headers of a client that go upstream, by their lower-case names; no others do."""

MOST_CHOICES: Final = 128
"""What OpenAI's API takes as `n` at most; each choice is a turn of its own here."""

_PIECE: Final = 1_000_000

_OPTION_NAMES: Final = frozenset(field.name for field in fields(Options))


def chat_request(body: bytes, headers: Mapping[str, str]) -> ChatRequest:
    """The request, its top-level values unread but for those that matter here.

    `honesty` is taken out of the body. Raises InvalidRequest, which names the field.
    """
    request = parsed(ChatRequest, body)
    if "messages" not in request:
        raise InvalidRequest("you must provide 'messages'", param="messages")
    check_fields(request)
    request.headers = forwarded(headers)
    request.options = wishes(request, headers) or request.options
    return request.replace({"honesty"}) if "honesty" in request else request


def parsed(kind: Callable[[bytes], D], body: bytes) -> D:
    """The body as a document of that kind. Raises InvalidRequest where it isn't a JSON object."""
    document = kind(body)
    try:
        _check_utf8(body)  # what goes unread would slip through otherwise
        _ = document.fields
    except RecursionError:
        raise InvalidRequest("the request body is nested too deeply") from None
    except ValueError as error:
        what = "not UTF-8" if isinstance(error, UnicodeDecodeError) else "not a JSON object"
        raise InvalidRequest(f"the request body is {what}: {error}") from None
    return document


def check_fields(request: ChatRequest) -> None:
    """Raise InvalidRequest, naming the field, for what OpenAI's API calls a 400."""
    for name in request.fields:
        if name in _FIELD_RULES:
            _check(request, name, *_FIELD_RULES[name])


def wishes(request: Document, headers: Mapping[str, str]) -> Options | None:
    """What a request asks of us, in its body or by header; None where it asks nothing."""
    wish = headers.get(STRATEGY_HEADER)
    if "honesty" in request:
        return options(request.get("honesty"), wish)
    return Options(strategy=wish.strip()) if wish else None


def forwarded(headers: Mapping[str, str]) -> dict[str, str]:
    """Those of the client's headers that go upstream."""
    return {FORWARDED[name]: headers[name] for name in FORWARDED if name in headers}


def options(value: Any, wish: str | None = None) -> Options:
    """The body field `honesty`; its strategy comes before the header's."""
    if not isinstance(value, dict):
        raise InvalidRequest("'honesty' must be an object", param="honesty")
    for name in value:
        if name not in _OPTION_NAMES:
            hint = nearest(name, _OPTION_NAMES)
            raise InvalidRequest(f"unknown field 'honesty.{name}'; {hint}", param="honesty")
    given = {name: item for name, item in value.items() if item is not None}
    for name, item in given.items():
        accepted, wanted = _OPTION_RULES[name]
        if not accepted(item):
            message = f"'honesty.{name}' must be {wanted}"
            raise InvalidRequest(message, param=f"honesty.{name}")
    if "capabilities" in given:
        given["capabilities"] = tuple(given["capabilities"])
    return Options(**{"strategy": wish, **given})


def split_suffix(model: str, strategies: Collection[str]) -> tuple[str, str | None]:
    """`model@strategy` apart; whole where what follows the last `@` names no strategy."""
    name, at, strategy = model.rpartition("@")
    return (name, strategy) if at and name and strategy in strategies else (model, None)


def _check_utf8(body: bytes) -> None:
    """Raise UnicodeDecodeError where it isn't; in pieces, so that other threads have their turn."""
    if body.isascii():
        return
    decoder = codecs.getincrementaldecoder("utf-8")()
    for start in range(0, len(body), _PIECE):
        decoder.decode(body[start : start + _PIECE])
    decoder.decode(b"", final=True)


def _check(request: ChatRequest, name: str, accepted: Callable[[Any], bool], wanted: str) -> None:
    try:
        good = accepted(request.get(name))
    except RecursionError:
        raise InvalidRequest(f"'{name}' is nested too deeply", param=name) from None
    except ValueError as error:
        raise InvalidRequest(f"'{name}' is not JSON: {error}", param=name) from None
    if not good:
        raise InvalidRequest(f"'{name}' must be {wanted}", param=name)


def _is_conversation(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_is_message, value))


def _is_message(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("role"), str) and _has_content(value)


def _has_content(message: dict[str, Any]) -> bool:
    content = message.get("content")
    if isinstance(content, list):
        return all(isinstance(p, dict) and isinstance(p.get("type", ""), str) for p in content)
    return content is None or isinstance(content, str)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_flag(value: Any) -> bool:
    return value is None or isinstance(value, bool)


def _is_object(value: Any) -> bool:
    return value is None or isinstance(value, dict)


def _are_tools(value: Any) -> bool:
    return value is None or (isinstance(value, list) and all(map(_is_tool, value)))


def _is_tool(value: Any) -> bool:
    names = ("function", "custom")
    return isinstance(value, dict) and all(isinstance(value.get(n, {}), dict) for n in names)


def _is_choice(value: Any) -> bool:
    if isinstance(value, dict):
        return isinstance(value.get("allowed_tools", {}), dict)
    return value is None or isinstance(value, str)


def _are_words(value: Any) -> bool:
    return value is None or _is_names(value)


def _is_count(value: Any) -> bool:
    return value is None or (type(value) is int and 1 <= value <= MOST_CHOICES)


def _is_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _is_probability(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1


_Rules = Mapping[str, tuple[Callable[[Any], bool], str]]
_FIELD_RULES: Final[_Rules] = {
    "messages": (_is_conversation, "a list with at least one message object"),
    "model": (_is_text, "a string"),
    "stream": (_is_flag, "true or false"),
    **dict.fromkeys(("stream_options", "response_format"), (_is_object, "an object")),
    **dict.fromkeys(("tools", "functions"), (_are_tools, "a list of objects")),
    "tool_choice": (_is_choice, "a string or an object"),
    "modalities": (_are_words, "a list of strings"),
    "n": (_is_count, f"a whole number from 1 to {MOST_CHOICES}"),
}
_OPTION_RULES: Final[_Rules] = {
    "strategy": (_is_text, "the name of a strategy"),
    "capabilities": (_is_names, "a list of strings"),
    "annotate": (_is_flag, "true or false"),
    "threshold": (_is_probability, "a number from 0 to 1"),
    "on_failure": (lambda value: value in ("draft", "error"), "'draft' or 'error'"),
}
