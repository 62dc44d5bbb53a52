"""A client's Responses request: checked, and as much of it as a chat can say.

https://platform.openai.com/docs/api-reference/responses/create
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from msgspec import Raw

from honestproxy.errors import InvalidRequest
from honestproxy.types import ChatRequest, Document
from honestproxy.wire.request import check_fields, forwarded, parsed, wishes
from honestproxy.wire.responses import items

LOGPROBS: Final = "message.output_text.logprobs"
"""What `include` calls the log-probabilities of the answer's text."""

_STATEFUL: Final[Mapping[str, str]] = {
    "previous_response_id": "send the whole conversation as 'input'",
    "conversation": "send the whole conversation as 'input'",
    "background": "leave it out; 'stream' keeps a long answer alive",
    "prompt": "send what the template says as 'instructions' and 'input'",
}
_IDS: Final = re.compile(r"\w+[-_][\w-]+")
_OWN_TOOLS: Final = frozenset({"function", "custom"})
# All other fields mean the same in a chat, or nothing that we know of, and keep their names.
_TRANSLATED: Final = frozenset(
    {
        *("input", "instructions", "text", "reasoning", "max_output_tokens", "include"),
        *("tools", "tool_choice", "parallel_tool_calls", "top_logprobs", "messages"),
        *("stream", "stream_options", "store", "truncation", "max_tool_calls"),
        *("context_management", *_STATEFUL),
    }
)


class ResponsesRequest(Document):
    """What the client sent, and as `chat` the fields of the chat request that means the same.

    `store` is always in `chat`, since the API stores where nothing is said; a chat that
    has lost it must not be stored.
    """

    __slots__ = ("_chat",)

    def __init__(self, source: bytes | Mapping[str, Any]) -> None:
        super().__init__(source)
        self._chat: dict[str, Any] | None = None

    @property
    def chat(self) -> dict[str, Any]:
        """The translation, made once. Not to be changed."""
        if self._chat is None:
            made = {name: value for name, value in _translated(self) if value is not None}
            self._chat = self._unchanged() | made
        return self._chat

    @property
    def rule(self) -> str | None:
        """Why this request must not be rewritten: the rule's name, or None.

        `conversation.pass_through` has the rules that hold for every request.
        """
        return next(_rules(self), None)

    @property
    def is_lasting(self) -> bool:
        """Whether each call leaves something behind, so that no other than its own may be made."""
        return bool(self.get("conversation") or self.get("background"))

    def is_about(self, told: str) -> bool:
        """Whether what an upstream told is about something that it keeps and this request names.

        By its id, or by the field that refers to it; the model's name is no such thing.
        """
        fields = [name.removesuffix("_id") for name in _STATEFUL if self.get(name)]
        if any(name.replace("_", " ") in told.lower().replace("_", " ") for name in fields):
            return True
        ids = {word for word in _IDS.findall(told) if word != self.get("model")}
        return any(b'"%b"' % one.encode() in self.raw for one in ids)

    def check_chat(self) -> None:
        """Raise InvalidRequest for what an upstream that knows only chat completions can't do."""
        for where, what, remedy in _beyond_chat(self):
            message = f"this upstream speaks only chat completions, which have no {what}: {remedy}"
            raise InvalidRequest(message, param=where, code="unsupported_parameter")

    def _unchanged(self) -> dict[str, Any]:
        given = self.fields.items()
        return {n: v for n, v in given if n not in _TRANSLATED and not _is_null(v)}


def responses_request(body: bytes, headers: Mapping[str, str]) -> ChatRequest:
    """A client's request as the chat request that means the same; the request is its `origin`.

    `honesty` is taken out of the body. Raises InvalidRequest, which names the field.
    """
    asked = parsed(ResponsesRequest, body)
    check(asked)
    options = wishes(asked, headers)
    if "honesty" in asked:
        asked = asked.replace({"honesty"})
    request = ChatRequest(
        asked.chat,
        headers=forwarded(headers),
        options=options,
        ours=frozenset({"stream_options"}),
        origin=asked,
    )
    check_fields(request)
    return request


def check(asked: ResponsesRequest) -> None:
    """Raise InvalidRequest, naming the field, for what OpenAI's API calls a 400."""
    for name, (accepted, wanted) in _RULES.items():
        if name in asked and not _accepts(asked, name, accepted):
            raise InvalidRequest(f"'{name}' must be {wanted}", param=name)
    for name in ("format", "verbosity"):
        kind, wanted = (dict, "an object") if name == "format" else (str, "a string")
        if not isinstance((asked.get("text") or {}).get(name), kind | None):
            raise InvalidRequest(f"'text.{name}' must be {wanted}", param=f"text.{name}")
    for at, tool in enumerate(asked.get("tools") or []):
        if tool.get("type") in _OWN_TOOLS and not isinstance(tool.get("name"), str):
            where = f"tools[{at}].name"
            raise InvalidRequest(f"'{where}' must be a string", param=where)
    given = asked.get("input")
    if given is not None:
        items.check(given)
    if given in (None, []) and not any(asked.get(name) for name in _STATEFUL):
        hint = "; 'messages' belongs to /v1/chat/completions" if "messages" in asked else ""
        message = f"you must provide 'input': a text, or a list with at least one item{hint}"
        raise InvalidRequest(message, param="input")


def _rules(asked: ResponsesRequest) -> Iterator[str]:
    yield from (name for name in _STATEFUL if asked.get(name))
    if built_in := [kind for _, kind in _built_in_tools(asked)]:
        yield f"built-in tools ({', '.join(built_in)})"
    given = asked.get("input")
    kinds = [items.kind_of(item) for item in given] if isinstance(given, list) else []
    yield from (kind for kind in kinds if kind not in items.TRANSLATED)
    if (asked.get("n") or 1) != 1:
        yield "n (this API has none)"


def _beyond_chat(asked: ResponsesRequest) -> Iterator[tuple[str, str, str]]:
    yield from ((n, f"'{n}'", remedy) for n, remedy in _STATEFUL.items() if asked.get(n))
    for at, kind in _built_in_tools(asked):
        yield f"tools[{at}]", f"built-in tool {kind!r}", "offer a function of your own"
    choice = asked.get("tool_choice")
    if isinstance(choice, dict) and choice.get("type") not in (*_OWN_TOOLS, "allowed_tools"):
        yield "tool_choice", f"built-in tool {choice.get('type')!r}", "choose a function"
    yield from items.unplaced(asked.get("input"))
    if (asked.get("n") or 1) != 1:
        yield "n", "'n' in this API", "ask several times"


def _built_in_tools(asked: ResponsesRequest) -> Iterator[tuple[int, str]]:
    for at, tool in enumerate(asked.get("tools") or []):
        if tool.get("type") not in _OWN_TOOLS:
            yield at, str(tool.get("type"))


def _translated(asked: ResponsesRequest) -> Iterator[tuple[str, Any]]:
    get = asked.get
    yield "messages", items.messages_of(get("input"), get("instructions"))
    yield "max_completion_tokens", get("max_output_tokens")
    yield "reasoning_effort", (get("reasoning") or {}).get("effort")
    text = get("text") or {}
    yield "response_format", _response_format(text.get("format") or {})
    yield "verbosity", text.get("verbosity")
    if LOGPROBS in (get("include") or []) or get("top_logprobs"):
        yield "logprobs", True
        yield "top_logprobs", get("top_logprobs")
    if tools := get("tools"):
        yield "tools", [_tool(tool) for tool in tools]
        yield "tool_choice", _tool_choice(get("tool_choice"))
        yield "parallel_tool_calls", get("parallel_tool_calls")
    yield "store", get("store") is not False
    if get("stream"):
        yield "stream", True
        yield "stream_options", {**(get("stream_options") or {}), "include_usage": True}


def _response_format(given: Mapping[str, Any]) -> dict[str, Any] | None:
    if given.get("type") in (None, "text"):
        return None
    if given["type"] != "json_schema":
        return dict(given)
    schema = {name: value for name, value in given.items() if name != "type"}
    return {"type": "json_schema", "json_schema": schema}


def _tool(tool: dict[str, Any]) -> dict[str, Any]:
    kind = tool.get("type")
    if kind not in _OWN_TOOLS:
        return tool
    names = ("name", "description", "parameters", "strict", "format")
    made = {name: tool[name] for name in names if tool.get(name) is not None}
    if (made.get("format") or {}).get("type") == "grammar":
        grammar = {name: value for name, value in made["format"].items() if name != "type"}
        made["format"] = {"type": "grammar", "grammar": grammar}
    return {"type": kind, str(kind): made}


def _tool_choice(choice: Any) -> Any:
    if not isinstance(choice, dict):
        return choice
    kind = choice.get("type")
    if kind == "allowed_tools":
        named = [_tool_choice(tool) for tool in choice.get("tools") or []]
        return {"type": kind, kind: {"mode": choice.get("mode"), "tools": named}}
    return {"type": kind, kind: {"name": choice.get("name")}} if kind in _OWN_TOOLS else choice


def _is_null(value: Any) -> bool:
    return value is None or (isinstance(value, Raw) and bytes(value).strip() == b"null")


def _accepts(asked: ResponsesRequest, name: str, accepted: Callable[[Any], bool]) -> bool:
    try:
        value = asked.get(name)
    except RecursionError:
        raise InvalidRequest(f"'{name}' is nested too deeply", param=name) from None
    except ValueError as error:
        raise InvalidRequest(f"'{name}' is not JSON: {error}", param=name) from None
    return value is None or accepted(value)


def _is(kind: type) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, kind)


def _is_input(value: Any) -> bool:
    return isinstance(value, str | list)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_count(value: Any) -> bool:
    return type(value) is int


def _are_typed(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_typed, value))


def _is_typed(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("type"), str)


def _are_words(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _is_choice(value: Any) -> bool:
    if isinstance(value, dict):
        return _is_typed(value) and _are_typed(value.get("tools") or [])
    return isinstance(value, str)


_OBJECT: Final = (_is(dict), "an object")
_FLAG: Final = (_is(bool), "true or false")
_TEXT: Final = (_is(str), "a string")
_RULES: Final[Mapping[str, tuple[Callable[[Any], bool], str]]] = {
    **dict.fromkeys(("text", "reasoning", "stream_options", "metadata", "prompt"), _OBJECT),
    **dict.fromkeys(("stream", "store", "background", "parallel_tool_calls"), _FLAG),
    **dict.fromkeys(("model", "instructions", "previous_response_id", "truncation"), _TEXT),
    **dict.fromkeys(("temperature", "top_p"), (_is_number, "a number")),
    **dict.fromkeys(("max_output_tokens", "top_logprobs", "n"), (_is_count, "a whole number")),
    "input": (_is_input, "a string or a list of items"),
    "tools": (_are_typed, "a list of objects, each with its 'type'"),
    "tool_choice": (_is_choice, "a string, or an object with its 'type'"),
    "include": (_are_words, "a list of strings"),
}
