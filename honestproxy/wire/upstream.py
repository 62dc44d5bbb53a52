"""What an upstream says, read: a completion, chunks, a list of models, or why not."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from http import HTTPStatus
from typing import Any, Final, TypeGuard

from honestproxy.errors import UpstreamBroken, UpstreamError
from honestproxy.types import ChatResponse, Chunk, read
from honestproxy.wire.sse import DONE, EventSplitter, data_of, name_of

_KEPT: Final = ("x-request-id", "x-should-retry")
_KEPT_BELOW: Final = ("openai-", "retry-after", "x-ratelimit-")
# In valid JSON an unescaped quote can't be inside a text, so these find keys without parsing.
_FINISH: Final = re.compile(rb'"finish_reason"\s*+:\s*+"(?!")')
_CHOICE: Final = re.compile(rb'"choices"\s*+:\s*+\[\s*+\{')
_ESCAPED: Final = re.compile(rb"\\u00[2-7]")  # a letter that needn't be: a key may be spelt so
_ERROR: Final = re.compile(rb'"error"\s*+:\s*+(?!null)')
_CONTROL: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_ENVELOPE: Final = ("id", "object", "created", "model")
_SHOWN: Final = 200  # characters of a foreign text that a message repeats


def kept_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Those of an upstream's headers that go on to the client, in lower case."""
    return {
        low: value
        for name, value in headers.items()
        if ((low := name.lower()) in _KEPT or low.startswith(_KEPT_BELOW)) and is_one_line(value)
    }


def is_one_line(value: str) -> bool:
    """Whether a header's value, its bytes read as Latin-1, can't begin another header."""
    return value.isprintable() or _CONTROL.search(value) is None


def completion(
    body: bytes, content_type: str, headers: Mapping[str, str] | None = None
) -> ChatResponse:
    """The answer in a good reply's body; raises UpstreamBroken where there is none."""
    response = ChatResponse(body, headers=kept_headers(headers or {}))
    try:
        choices, error = response.get("choices"), response.get("error")
    except (ValueError, RecursionError):
        raise broken("a completion", body, content_type) from None
    if error or not _are_answers(choices):
        raise broken("a completion", body, content_type)
    return response


def models(body: bytes, content_type: str) -> list[dict[str, Any]]:
    """The models in a good reply's body; raises UpstreamBroken where there are none."""
    found = _parsed(body)
    listed = found.get("data") if isinstance(found, dict) else found  # together.ai: a bare list
    if not _are_objects(listed):
        raise broken("a list of models", body, content_type)
    return [model for model in listed if isinstance(model.get("id"), str)]


def broken(wanted: str, body: bytes, content_type: str) -> UpstreamBroken:
    """The error for a good status with something else than was asked for."""
    came = f"{content_type or 'no content type'}: {snippet(body) or '(empty)'}"
    return UpstreamBroken(f"the upstream's answer is not {wanted}; it sent {came}")


def refusal(status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
    """The error for a status that isn't 2xx; an OpenAI-shaped body is kept as it is."""
    if 300 <= status < 400:
        return _redirect(status, headers)
    found = _parsed(body)
    is_shaped = isinstance(found, dict) and isinstance(found.get("error"), dict)
    message = f"the upstream answered {_phrase(status)}: {_reason(found) or snippet(body)}"
    if status in (404, 405) and not is_shaped:
        message += "; is the upstream's URL right? It usually ends in /v1"
    return UpstreamError(
        message,
        status=status if 400 <= status < 600 else 502,
        headers=kept_headers(headers),
        upstream=found if is_shaped else None,
    )


def _redirect(status: int, headers: Mapping[str, str]) -> UpstreamError:
    raw = headers.get("Location", "elsewhere").encode("latin-1", "replace")
    target = re.split(r"[?#]", raw.decode("utf-8", "replace"), maxsplit=1)[0]
    target = re.sub(r"//[^/]*@", "//", target)
    return UpstreamBroken(
        f"the upstream redirects ({_phrase(status)}) to {target}, which isn't followed, since "
        "the key would go there; set the upstream to the URL that answers"
    )


def error_in(data: bytes, *, is_named_error: bool = False) -> UpstreamError | None:
    """The error that an event of a stream carries, if it does; its own `code` or `status` counts.

    `is_named_error`: the event calls itself `error`, so whatever it holds is one.
    """
    found = _parsed(data)
    error = found.get("error") if isinstance(found, dict) else None
    if is_named_error:
        error = error or found or data.decode("utf-8", "replace")
    if not error:
        return None
    details = error if isinstance(error, dict) else {}
    codes = [code for code in (details.get("code"), details.get("status")) if type(code) is int]
    status = next((code for code in codes if 400 <= code < 600), 502)
    message = f"the upstream failed in mid-answer: {_reason(error) or snippet(data)}"
    return UpstreamError(message, status=status, upstream={"error": error} if details else None)


class ChunkReader:
    """Reads chunks out of the bytes of an event stream; the events are kept as they came.

    A comment or ping rides in front of the next event. Nothing is parsed but what may be an
    error, and, of several `choices`, which of them have ended. Those that haven't end with
    `[DONE]`: NeMo Guardrails sends no finish_reason.
    """

    __slots__ = ("_any", "_carried", "_finished", "_open", "_said", "_several", "_splitter", "done")

    def __init__(self, choices: int = 1) -> None:
        self.done = False
        self._several = choices > 1
        self._open: set[Any] = set()
        self._splitter = EventSplitter()
        self._carried = b""
        self._said = b""  # the first chunk that says something of a choice
        self._any = False
        self._finished = False

    def feed(self, received: bytes) -> Iterator[Chunk]:
        """The chunks that `received` completes; raises UpstreamError for an error among them."""
        for event in self._splitter.feed(received):
            data = data_of(event).strip()
            if data == DONE:
                yield self._complete(event)
                return
            if data:
                yield self._chunk(event, data)
            else:
                self._carried += event

    def end(self) -> Iterator[Chunk]:
        """What is left at the end of the bytes; raises UpstreamBroken where an answer isn't."""
        last = data_of(self._splitter.rest).strip()
        if last == DONE or isinstance(_parsed(last), dict):
            yield from self.feed(b"\n\n")
        if not self.done and (self._open or not self._finished):
            raise UpstreamBroken("the upstream broke off in mid-answer: no finish_reason came")

    def _complete(self, event: bytes) -> Chunk:
        self.done = True
        if not self._any:
            raise UpstreamBroken("the upstream's stream ended before it said anything")
        return Chunk(self._ending(), event=self._carried + event)

    def _ending(self) -> dict[str, Any]:
        """What `[DONE]` says: "stop" for each choice that hasn't ended, or nothing."""
        is_over = not self._open if self._several else self._finished
        said: Any = None if is_over else _parsed(self._said)
        choices = said.get("choices") if isinstance(said, dict) else None
        if not (choices and _are_objects(choices)):
            return {"choices": []}
        still = self._open or {choices[0].get("index", 0)}
        ends = [{"index": index, "delta": {}, "finish_reason": "stop"} for index in still]
        return {name: said[name] for name in _ENVELOPE if name in said} | {"choices": ends}

    def _chunk(self, event: bytes, data: bytes) -> Chunk:
        is_named_error = name_of(event) == b"error"
        if is_named_error or _ERROR.search(data):
            error = error_in(data, is_named_error=is_named_error)
            if error:
                raise error
        if not (data.startswith(b"{") and data.endswith(b"}")):
            raise UpstreamBroken(f"the upstream sent no chunk, but: {snippet(data)}")
        self._any = True
        if not self._said and _CHOICE.search(data):
            self._said = data
        self._finished = self._finished or _finishes(data)
        carried, self._carried = self._carried, b""
        chunk = Chunk(data, event=carried + event)
        for choice in chunk.choices if self._several else ():
            whether = self._open.discard if choice.get("finish_reason") else self._open.add
            whether(choice.get("index"))
        return chunk


def _finishes(data: bytes) -> bool:
    """Whether a chunk ends a choice."""
    if _FINISH.search(data):
        return True
    if not _ESCAPED.search(data):
        return False
    found = _parsed(data)
    choices = found.get("choices") if isinstance(found, dict) else None
    return _are_objects(choices) and any(choice.get("finish_reason") for choice in choices)


def redacted(text: str, secrets: Iterable[str]) -> str:
    """The text without the secrets; one shorter than 8 is a placeholder, and part of words."""
    lowered = text.lower()
    for secret in secrets:
        if len(secret) >= 8 and secret.lower() in lowered:
            text = re.sub(re.escape(secret), "[redacted]", text, flags=re.IGNORECASE)
    return text


def snippet(body: bytes) -> str:
    """The first characters of a foreign text, on one line; of a web page, what it says."""
    text = body[:50_000].decode("utf-8", "replace")
    if re.search(r"<(!doctype|html|head|body|title)\b", text[:1000], re.IGNORECASE):
        text = re.sub(r"(?is)<(script|style)\b.*?(</\1>|$)", " ", text)
        text = re.sub(r"<[^>]*>", " ", text)
    text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"


def _parsed(body: bytes) -> Any:
    try:
        return read(body)
    except (ValueError, RecursionError):
        return None


def _are_answers(choices: Any) -> bool:
    if not choices or not _are_objects(choices):
        return False
    return all(isinstance(choice.get("message"), dict) for choice in choices)


def _are_objects(items: Any) -> TypeGuard[list[dict[str, Any]]]:
    return isinstance(items, list) and all(isinstance(item, dict) for item in items)


def _phrase(status: int) -> str:
    known = status in HTTPStatus.__members__.values()
    return f"{status} {HTTPStatus(status).phrase}" if known else str(status)


def _reason(found: Any) -> str:
    """What an error body says, in the shapes that servers give it."""
    while not isinstance(found, str):
        if isinstance(found, list) and found:  # Gemini
            found = found[0]
        elif isinstance(found, dict):
            names = ("error", "message", "detail", "msg", "title")
            found = next((found[name] for name in names if found.get(name)), None)
        else:
            return ""
    return snippet(found.encode("utf-8", "replace"))
