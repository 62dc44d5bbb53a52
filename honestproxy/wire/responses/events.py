"""A Response's event stream read as a chat's chunks, each with its event as it came.

https://platform.openai.com/docs/api-reference/responses-streaming
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from honestproxy.errors import UpstreamBroken
from honestproxy.types import Chunk, Document
from honestproxy.wire.responses.answer import ODD, answer_of, call_of, failure, head_of
from honestproxy.wire.responses.items import CALLS
from honestproxy.wire.sse import DONE, EventSplitter, data_of, name_of
from honestproxy.wire.upstream import snippet


class NativeChunk(Chunk):
    """An event of a Response read as a chat's chunk; `own` is what the event says."""

    __slots__ = ("own",)

    def __init__(
        self, source: Mapping[str, Any], *, own: Document, event: bytes | None = None
    ) -> None:
        super().__init__(source, event=event)
        self.own = own

    def _with(self, fields: Mapping[str, Any]) -> NativeChunk:
        return NativeChunk(fields, own=self.own)


class EventReader:
    """Reads chunks out of the bytes of a Response's event stream; the events stay as they came.

    A comment or ping rides in front of the next event. Reasoning and bookkeeping become chunks
    without news, so that a step which fails before its text leaves nothing behind. `finished`:
    the answer's last event has come; `done`: `[DONE]` has, which some servers send behind it.
    """

    __slots__ = ("_carried", "_news", "_splitter", "done", "finished")

    def __init__(self) -> None:
        self.done = False
        self._splitter = EventSplitter()
        self._carried = b""
        self.finished = False
        self._news = _News()

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
        if data_of(self._splitter.rest).strip().endswith(b"}"):
            yield from self.feed(b"\n\n")
        if not self.finished:
            raise UpstreamBroken("the upstream broke off in mid-answer: no response.completed came")
        if self._carried and not self.done:
            yield Chunk({"choices": []}, event=self._carried)

    def _complete(self, event: bytes) -> Chunk:
        self.done = True
        if not self.finished:
            raise UpstreamBroken("the upstream's stream ended before its answer did")
        return Chunk({"choices": []}, event=self._carried + event)

    def _chunk(self, event: bytes, data: bytes) -> Chunk:
        own = Document(data)
        try:
            kind = own.get("type") or name_of(event).decode("utf-8", "replace")
            choice = {"index": 0, "delta": {}, "finish_reason": None}
            fields = {"choices": [choice]} | self._read(str(kind), own, choice)
        except ODD:
            raise UpstreamBroken(f"the upstream sent no event, but: {snippet(data)}") from None
        carried, self._carried = self._carried, b""
        return NativeChunk(fields, own=own, event=carried + event)

    def _read(self, kind: str, own: Document, choice: dict[str, Any]) -> dict[str, Any]:
        """Enter the event's news into the choice; what it says of the answer as a whole."""
        if kind == "error" or own.get("error"):
            raise failure(own.get("error") or own.dict())
        if kind in _LIFE:
            return self._life(kind, own, choice)
        choice["delta"] = self._news.read(kind, own)
        if logprobs := choice["delta"] and own.get("logprobs"):
            choice["logprobs"] = {"content": logprobs}
        return {}

    def _life(self, kind: str, own: Document, choice: dict[str, Any]) -> dict[str, Any]:
        response = Document(own.get("response") or {})
        if kind == "response.failed":
            raise failure(response.get("error"))
        if kind not in _LAST:
            return head_of(response)
        answer = answer_of(response)
        self.finished = True
        [last] = answer["choices"]
        choice["delta"] = self._news.missing(last["message"])
        choice["finish_reason"] = last["finish_reason"]
        return {name: value for name, value in answer.items() if name not in _WHOLE}


_LAST: Final = frozenset({"response.completed", "response.incomplete"})
_WHOLE: Final = frozenset({"object", "choices"})
_LIFE: Final = _LAST | {"response.created", "response.in_progress", "response.failed"}


class _News:
    """What the events of one stream say that is new, as a chat's deltas."""

    def __init__(self) -> None:
        self._calls: dict[int, int] = {}  # by place in the output, place among the calls
        self._spelled: set[int] = set()
        self._any = False

    def read(self, kind: str, own: Document) -> dict[str, Any]:
        """The delta of one event; empty for reasoning, and for what repeats what has been said."""
        reader = self._READERS.get(kind)
        delta = reader(self, own) if reader else {}
        self._any = self._any or bool(delta)
        return delta

    def missing(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """The whole message, where the last event is the first that tells anything of it."""
        if self._any:
            return {}
        delta = {name: value for name, value in message.items() if value and name != "role"}
        delta.pop("reasoning_content", None)
        if calls := delta.get("tool_calls"):
            delta["tool_calls"] = [{"index": at, **call} for at, call in enumerate(calls)]
        return delta

    def _text(self, own: Document) -> dict[str, Any]:
        return {"content": own.get("delta") or ""}

    def _refusal(self, own: Document) -> dict[str, Any]:
        return {"refusal": own.get("delta") or ""}

    def _added(self, own: Document) -> dict[str, Any]:
        item, place = own.get("item") or {}, own.get("output_index", 0)
        if item.get("type") not in CALLS:
            return {}
        index = self._calls[place] = len(self._calls)
        call = call_of({**item, CALLS[item["type"]]: ""})
        return {"tool_calls": [{"index": index, **call}]}

    def _spell(self, tool: str, part: str, own: Document) -> dict[str, Any]:
        place = own.get("output_index", 0)
        if place not in self._calls:
            return {}
        self._spelled.add(place)
        said = {part: own.get("delta") or ""}
        return {"tool_calls": [{"index": self._calls[place], tool: said}]}

    def _arguments(self, own: Document) -> dict[str, Any]:
        return self._spell("function", "arguments", own)

    def _custom_input(self, own: Document) -> dict[str, Any]:
        return self._spell("custom", "input", own)

    def _done(self, own: Document) -> dict[str, Any]:
        """A call whose arguments came in one piece, at its end."""
        item, place = own.get("item") or {}, own.get("output_index", 0)
        if item.get("type") not in CALLS or place in self._spelled:
            return {}
        if place not in self._calls:
            self._calls[place] = len(self._calls)
            return {"tool_calls": [{"index": self._calls[place], **call_of(item)}]}
        tool, part = item["type"].partition("_")[0], CALLS[item["type"]]
        return {"tool_calls": [{"index": self._calls[place], tool: {part: item.get(part) or ""}}]}

    _READERS: Final[Mapping[str, Callable[[_News, Document], dict[str, Any]]]] = {
        "response.output_text.delta": _text,
        "response.refusal.delta": _refusal,
        "response.output_item.added": _added,
        "response.output_item.done": _done,
        "response.function_call_arguments.delta": _arguments,
        "response.custom_tool_call_input.delta": _custom_input,
    }
