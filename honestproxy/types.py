"""What flows through the house: requests, answers, chunks, usage, doubts."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncGenerator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol, Self, get_args

from honestproxy.document import Document, read, split_object, write

__all__ = ["Document", "read", "split_object", "write"]  # whoever needs types needs these, too

Message = dict[str, Any]
"""One message, as the wire has it: `{"role": …, "content": …}` and whatever else."""

DoubtKind = Literal[
    "latest_information",
    "user_input",
    "professional_capability",
    "modality_mismatch",
    "interactivity_sensory",
    "self_identity",
    "knowledge_gap",
]
"""The six categories of HoneSet (arXiv 2406.00380) and facts the model doesn't reliably know."""

DOUBT_KINDS: Final[tuple[DoubtKind, ...]] = get_args(DoubtKind)

Outcome = Literal["rewritten", "draft_kept", "draft_fallback", "passed_through"]


@dataclass(frozen=True, slots=True)
class Options:
    """What a request may ask of us: the body field `honesty`. None means: as the settings say."""

    strategy: str | None = None
    capabilities: tuple[str, ...] | None = None
    annotate: bool = False
    threshold: float | None = None
    on_failure: Literal["draft", "error"] | None = None


_NOTHING: Final = Options()


class Origin(Protocol):
    """A client's request to another API than chat's, of which a chat request is the translation."""

    @property
    def rule(self) -> str | None:
        """Why it must not be rewritten, beyond what holds for every chat; or None."""
        ...

    @property
    def is_lasting(self) -> bool:
        """Whether each call leaves something behind, so that no other than its own may be made."""
        ...

    def check_chat(self) -> None:
        """Raise InvalidRequest for what the translation can't say."""
        ...


class ChatRequest(Document):
    """What the client sent: unknown fields are kept, unset fields are never sent.

    `headers` are the client's own that may go upstream; `options` what it asks of us; `ours`
    names the fields that we added, and may leave out again where an upstream refuses them.
    `origin` is the request of which this is a translation, where the client spoke Responses;
    `query` is that of the client's URL; `deadline` is until when an answer is of use, by the
    running loop's clock.
    """

    __slots__ = ("deadline", "headers", "options", "origin", "ours", "query")

    def __init__(
        self,
        source: bytes | Mapping[str, Any],
        *,
        headers: Mapping[str, str] | None = None,
        options: Options | None = None,
        ours: frozenset[str] = frozenset(),
        origin: Origin | None = None,
        query: str = "",
    ) -> None:
        super().__init__(source)
        self.headers: Mapping[str, str] = headers or {}
        self.options = options or _NOTHING
        self.ours = ours
        self.origin = origin
        self.query = query
        self.deadline: float | None = None

    def _with(self, fields: Mapping[str, Any]) -> ChatRequest:
        more = {"headers": self.headers, "options": self.options, "origin": self.origin}
        made = ChatRequest(fields, ours=self.ours, query=self.query, **more)  # type: ignore[arg-type]
        made.deadline = self.deadline
        return made

    def adding(self, **fields: Any) -> ChatRequest:
        """The same request with fields of ours, where it has none of that name."""
        added = {name: value for name, value in fields.items() if name not in self}
        request = self.replace(**added)
        request.ours = self.ours | added.keys()
        return request

    @property
    def model(self) -> str:
        """The model asked for; empty where none is."""
        return self.get("model") or ""

    @property
    def streamed(self) -> bool:
        """Whether the client wants chunks."""
        return self.get("stream") is True

    @property
    def messages(self) -> list[Message]:
        """The conversation, parsed."""
        return self.get("messages") or []

    def with_headers(self, headers: Mapping[str, str]) -> ChatRequest:
        """The same request with other headers."""
        return self._but(headers, self.options)

    def until(self, deadline: float) -> ChatRequest:
        """The same request, of which an answer is of use until then."""
        copy = self._but(self.headers, self.options)
        copy.deadline = deadline
        return copy

    def without_options(self) -> ChatRequest:
        """The same request, asking nothing of us: what goes upstream."""
        return self if self.options is _NOTHING else self._but(self.headers, _NOTHING)

    def without_origin(self) -> ChatRequest:
        """The translation alone, for whoever knows only chat; what was asked is not stored there.

        Raises InvalidRequest for what it leaves out.
        """
        if self.origin is None:
            return self
        self.origin.check_chat()
        alone = self.replace({"store", "metadata"})
        alone.origin = None
        return alone

    def _but(self, headers: Mapping[str, str], options: Options) -> ChatRequest:
        copy = object.__new__(ChatRequest)  # quick: it is on everyone's way
        copy._bytes, copy._fields, copy._read = self._bytes, self._fields, self._read
        copy.origin, copy.ours, copy.query = self.origin, self.ours, self.query
        copy.headers, copy.options, copy.deadline = headers, options, self.deadline
        return copy


class Usage(dict[str, Any]):
    """Tokens as the API counts them; `+` adds every number, nested details included."""

    def __add__(self, other: Mapping[str, Any]) -> Usage:
        total = Usage(self)
        for name, value in other.items():
            mine = total.get(name)
            if isinstance(value, Mapping):
                total[name] = Usage(mine if isinstance(mine, Mapping) else {}) + value
            elif isinstance(value, int | float) and isinstance(mine, int | float):
                total[name] = mine + value
            elif mine is None:
                total[name] = value
        return total


class ChatResponse(Document):
    """An upstream's whole answer, every field of it kept."""

    __slots__ = ("headers",)

    def __init__(
        self,
        source: bytes | Mapping[str, Any],
        *,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(source)
        self.headers: Mapping[str, str] = headers or {}

    def _with(self, fields: Mapping[str, Any]) -> ChatResponse:
        return ChatResponse(fields, headers=self.headers)

    @classmethod
    def of(cls, text: str, *, model: str = "", finish_reason: str = "stop", **more: Any) -> Self:
        """A plain answer with `text`; `more` are further top-level fields such as `usage`."""
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "message": message, "finish_reason": finish_reason}
        return cls({**_envelope("chat.completion", model), "choices": [choice], **more})

    @property
    def choice(self) -> dict[str, Any]:
        """The first choice."""
        choices = self.get("choices")
        return choices[0] if choices else {}

    @property
    def message(self) -> Message:
        """The first choice's message."""
        message = self.choice.get("message")
        return message if isinstance(message, dict) else {}

    @property
    def text(self) -> str:
        """The first choice's text."""
        return text_of(self.message.get("content"))

    @property
    def finish_reason(self) -> str | None:
        """Why the first choice ended."""
        return self.choice.get("finish_reason")

    @property
    def usage(self) -> Usage | None:
        """Tokens, or None where the upstream didn't say."""
        usage = self.get("usage")
        return Usage(usage) if isinstance(usage, dict) else None

    def chunks(self) -> Iterator[Chunk]:
        """The same answer as a stream would have brought it, each choice in one piece."""
        head = {n: v for n, v in self.fields.items() if n not in ("choices", "usage", "object")}
        head["object"] = "chat.completion.chunk"
        for choice in self.get("choices") or []:
            rest = {n: v for n, v in choice.items() if n not in ("message", "finish_reason")}
            delta = dict(choice.get("message") or {})
            if calls := delta.get("tool_calls"):
                delta["tool_calls"] = [{"index": i, **call} for i, call in enumerate(calls)]
            yield Chunk({**head, "choices": [{**rest, "delta": delta, "finish_reason": None}]})
            end = {"index": choice.get("index", 0), "delta": {}}
            end["finish_reason"] = choice.get("finish_reason") or "stop"  # it is whole
            yield Chunk({**head, "choices": [end]})
        if self.usage is not None:
            yield Chunk({**head, "choices": [], "usage": self.usage})


class Chunk(Document):
    """One event of a streamed answer. A chunk without choices before any other means: accepted.

    `event` is the server-sent event as it came, for an answer that is passed on untouched;
    `headers`, on the first, are those of the upstream that go on to the client.
    """

    __slots__ = ("event", "headers")

    def __init__(
        self,
        source: bytes | Mapping[str, Any],
        *,
        event: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(source)
        self.event = event
        self.headers = headers

    @classmethod
    def of(
        cls, text: str = "", *, model: str = "", finish_reason: str | None = None, **more: Any
    ) -> Self:
        """A chunk with `text`; `more` are further top-level fields."""
        delta = {"content": text} if text else {}
        choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
        return cls({**_envelope("chat.completion.chunk", model), "choices": [choice], **more})

    @property
    def choices(self) -> list[dict[str, Any]]:
        """The choices this chunk says something of."""
        return self.get("choices") or []

    @property
    def delta(self) -> dict[str, Any]:
        """The first choice's news."""
        return (self.choices[0].get("delta") or {}) if self.choices else {}

    @property
    def text(self) -> str:
        """The first choice's new text."""
        return text_of(self.delta.get("content"))

    @property
    def blank(self) -> bool:
        """Whether it says nothing but: accepted."""
        return not self.choices and self.fields.keys() <= {"choices"}

    @property
    def finished(self) -> bool:
        """Whether any choice ends here."""
        return any(choice.get("finish_reason") for choice in self.choices)

    @property
    def usage(self) -> Usage | None:
        """Tokens, on the chunk that carries them."""
        usage = self.get("usage")
        return Usage(usage) if isinstance(usage, dict) else None


def _envelope(kind: str, model: str) -> dict[str, Any]:
    made = {"object": kind, "created": int(time.time()), "model": model}
    return {"id": f"chatcmpl-{uuid.uuid4().hex}", **made}


def text_of(content: Any) -> str:
    """The text of a message's content: a string, or the text parts of a list."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    texts = [part.get("text") for part in parts if isinstance(part, dict)]
    return "\n".join(text for text in texts if isinstance(text, str))


@dataclass(frozen=True, slots=True)
class Doubt:
    """One thing that the model can't know, see, do or be."""

    kind: DoubtKind
    statement: str


@dataclass(frozen=True, slots=True)
class Doubts:
    """What an elicitation found.

    `confidence`: the probability that a plain answer would be right and invent nothing;
    None where unknown.
    """

    items: tuple[Doubt, ...] = ()
    confidence: float | None = None


class Answerer(Protocol):
    """What answers a chat request, whole or as a stream. Both raise `UpstreamError`."""

    async def complete(self, request: ChatRequest) -> ChatResponse:
        """The whole answer."""
        ...

    def stream(self, request: ChatRequest) -> AsyncGenerator[Chunk, None]:
        """The answer as it is made. Ends after a chunk that is `finished`, or raises."""
        ...


class Backend(Answerer, Protocol):
    """Everything that answers a chat request: an API, a local model, a double, a pipeline.

    `stream` may yield a chunk without choices as soon as the request is accepted, so that
    a caller knows early that no error status will follow. One that takes long to start may
    have `async load(progress=None)`, awaited before the first request; `progress` is called
    with lines of text. One that sees inside its model may have `async read(request) -> Scores`,
    and then continues a last message of the assistant; with the field `echo` it gives that
    message's text as the beginning of its answer, and for a part of the type `quote` in it
    some words of that part's own `text`. One that reaches an API may have `async relay(method,
    path, headers, body) -> Exchange` for everything that isn't chat. One whose trait `responses`
    is true answers a request's `origin`, and may have `async discard(request, response)`, which
    deletes an answer that is stored and that no client was given.
    """

    async def models(self, headers: Mapping[str, str] | None = None) -> list[dict[str, Any]]:
        """The models it serves: OpenAI's model objects, with at least `id`.

        `headers` are the client's own that may go upstream.
        """
        ...

    async def aclose(self) -> None:
        """Let go of connections, threads and memory."""
        ...
