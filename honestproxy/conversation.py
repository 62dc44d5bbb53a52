"""What goes into each call: from the client's request to the request of a step.

The conversation itself is never copied or rewritten: our instructions come last, after
the text of the last user message, or as one more user message after anyone else's. So
roles go on alternating (some chat templates insist), and all calls of a turn share the
longest prefix for provider and key-value caches.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from msgspec import Raw

from honestproxy.document import Document, split_object, write
from honestproxy.errors import InvalidRequest
from honestproxy.types import ChatRequest, Message, text_of

# https://platform.openai.com/docs/api-reference/chat/create; what isn't listed goes along
# with every call: model, tools, user, seed, reasoning_effort…, and what we don't know.
_ELICITATION_LEAVES: Final = frozenset(
    {
        *("audio", "frequency_penalty", "function_call", "logit_bias", "logprobs", "modalities"),
        *("max_completion_tokens", "max_tokens", "metadata", "moderation", "n", "prediction"),
        *("parallel_tool_calls", "presence_penalty", "response_format", "stop", "store", "stream"),
        *("stream_options", "temperature", "tool_choice", "top_logprobs", "top_p", "verbosity"),
        "web_search_options",
    }
)
_REWRITE_LEAVES: Final = frozenset({"n", "prediction"})
_STORED: Final = frozenset({"store", "metadata"})
_GUIDED: Final = frozenset({"structured_outputs", "grammar", "json_schema", "regex", "ebnf"})
"""Fields by which vLLM, llama.cpp and SGLang guide decoding, beside `guided_*`."""
_SHORT_ANSWER: Final = 16
_NO_PARTS: Final = re.compile(rb"\[\s*\]")
PAPER_PARAMETERS: Final[Mapping[str, Any]] = {"temperature": 0, "top_p": 1, "max_tokens": 2500}
"""Decoding of HonestLLM (arXiv 2406.00380, released code): greedy, at most 2,500 tokens."""


def draft(request: ChatRequest, *, returned: bool) -> ChatRequest:
    """The client's own request; `store` and `metadata` only where this answer may be returned."""
    drop = () if returned else _STORED & request.fields.keys()
    return request.replace(drop=drop) if drop else request


def elicitation(request: ChatRequest, instruction: str, cap: int) -> ChatRequest:
    """A question about the conversation: its own token cap, and nothing that shapes answers."""
    asked = request.replace(_shaping(request), messages=instructed(request, instruction))
    return _without_tools(asked).adding(**{cap_name(request): cap, "temperature": 0})


def rewrite(request: ChatRequest, instruction: str, *, returned: bool = True) -> ChatRequest:
    """An answer to the conversation, shaped as the client asked; stored only if `returned`."""
    asked = instructed(request, instruction)
    drop = _REWRITE_LEAVES if returned else _REWRITE_LEAVES | _STORED
    return _without_tools(request).replace(drop, messages=asked)


def opened(request: ChatRequest, opening: Sequence[str | None], question: str) -> ChatRequest:
    """An answer that begins with `opening`, and gives it back as its own first text.

    For each None in it the model quotes some words of the `question`.
    """
    quote = {"type": "quote", "text": question}
    parts = [quote if part is None else {"type": "text", "text": part} for part in opening]
    begun = {
        "role": "assistant",
        "content": parts if None in opening else "".join(map(str, opening)),
    }
    messages = [*request.items("messages"), begun]
    return _without_tools(request).replace(_REWRITE_LEAVES, messages=messages, echo=True)


def single_message(request: ChatRequest, text: str, *, answers: bool = True) -> ChatRequest:
    """The paper's form: one bare user message, no system prompt, greedy.

    Where it `answers` the client, a smaller cap of the client's holds.
    """
    names = ("max_tokens", "max_completion_tokens") if answers else ()
    caps = [request.get(name) for name in names]
    least = min([PAPER_PARAMETERS["max_tokens"], *(cap for cap in caps if isinstance(cap, int))])
    alone = request.replace(_shaping(request), messages=[{"role": "user", "content": text}])
    return alone.adding(**{**PAPER_PARAMETERS, "max_tokens": least})


def instructed(request: ChatRequest, instruction: str) -> list[Any]:
    """The messages with our instruction last; what they hold stays unread bytes.

    An attachment can take most of the largest body: read and written again, it would keep the
    event loop busy for a good part of a second.
    """
    *before, newest = request.items("messages")
    last = Document(split_object(newest) if isinstance(newest, Raw) else newest)
    if last.get("role") != "user":
        return [*before, newest, {"role": "user", "content": instruction}]
    ours = _followed(last.fields.get("content"), instruction)
    return [*before, {**last.fields, "content": ours}]


def _followed(content: Any, instruction: str) -> Raw:
    """A message's content with our instruction behind it, as one more part or paragraph."""
    raw = memoryview(content if isinstance(content, Raw) else write(content))
    if raw[0] == ord("["):
        part = write({"type": "text", "text": instruction})
        between = b"" if _NO_PARTS.fullmatch(raw) else b","
        return Raw(b"".join((raw[:-1], between, part, b"]")))
    if raw[0] == ord('"') and len(raw) > len('""'):
        return Raw(b"".join((raw[:-1], write(f"\n\n{instruction}")[1:])))
    return Raw(write(instruction))  # behind nothing, or what no upstream takes for content


def query(request: ChatRequest) -> str:
    """The text of the last user message."""
    return next((text_of(m.get("content")) for m in _newest(request) if _is(m, "user")), "")


def cap_name(request: ChatRequest) -> str:
    """The name under which the client caps tokens; the older one where it doesn't."""
    return "max_completion_tokens" if "max_completion_tokens" in request else "max_tokens"


def streaming(request: ChatRequest) -> ChatRequest:
    """The request as a stream that reports its usage."""
    theirs = request.get("stream_options")
    if isinstance(theirs, dict) and theirs.get("include_usage"):
        return request
    wanted = request.replace({"stream_options"}, stream=True)
    return wanted.adding(stream_options={**(theirs or {}), "include_usage": True})


def whole(request: ChatRequest) -> ChatRequest:
    """The request without a stream."""
    drop = {"stream", "stream_options"} & request.fields.keys()
    return request.replace(drop) if drop else request


def pass_through(request: ChatRequest) -> str | None:
    """Why this request must not be rewritten: the rule's name, or None.

    What a client parses is never rewritten into something that it can't parse. Raises
    InvalidRequest where there is no message at all.
    """
    return next((reason for reason in _rules(request)), None)


def _rules(request: ChatRequest) -> Iterator[str]:
    get = request.get
    if request.origin is not None and (rule := request.origin.rule):
        yield rule
    if not request.messages:  # the wire has seen to that; whoever calls from Python comes by here
        what = "'messages' must be a list with at least one message object"
        raise InvalidRequest(what, param="messages")
    if _is(request.messages[-1], "assistant"):
        yield "the last message is the assistant's (prefill)"
    if (get("response_format") or {}).get("type") not in (None, "text"):
        yield "response_format"
    if guided := [name for name in request.fields if _guides(name) and get(name) is not None]:
        yield guided[0]
    if get("audio") or "audio" in (get("modalities") or []):
        yield "audio output"
    if forced := _forced_tool(request):
        yield forced
    for name in ("prediction", "logit_bias"):
        if get(name):
            yield name
    caps = [get(name) for name in ("max_tokens", "max_completion_tokens")]
    if any(cap <= _SHORT_ANSWER for cap in caps if isinstance(cap, int)):
        yield f"a token cap of {_SHORT_ANSWER} or less"


def _guides(name: str) -> bool:
    return name.startswith("guided_") or name in _GUIDED


def _shaping(request: ChatRequest) -> frozenset[str]:
    """The fields that shape an answer, and would shape another text as well."""
    return _ELICITATION_LEAVES.union(filter(_guides, request.fields))


def _forced_tool(request: ChatRequest) -> str | None:
    choice, function = request.get("tool_choice"), request.get("function_call")
    if isinstance(choice, dict) and choice.get("type") == "allowed_tools":
        choice = (choice.get("allowed_tools") or {}).get("mode")
    if choice not in (None, "auto", "none"):
        return "forced tools"
    return "forced tools" if isinstance(function, dict) else None


def _without_tools(request: ChatRequest) -> ChatRequest:
    """Tools stay in view, so that the model knows what the app can do, but can't be called."""
    forbid = {"tools": "tool_choice", "functions": "function_call"}
    present = {choice for name, choice in forbid.items() if request.get(name)}
    if not present:
        return request
    return request.replace(present).adding(**dict.fromkeys(present, "none"))


def abilities(request: ChatRequest, capabilities: Sequence[str]) -> str:
    """What the app around the model can do, as lines of text for a prompt."""
    lines = [
        *_tool_lines(request),
        *(f"- The application provides: {name}" for name in capabilities),
        *(f"- Attached to the conversation: {kind}" for kind in sorted(attachments(request))),
    ]
    if any(m.get("role") in ("tool", "function") for m in request.messages):
        lines.append("- Results of tool calls are in the conversation; they are real.")
    return "\n".join(lines) or "- Nothing beyond this conversation: no tools, no attachments."


_SEARCH: Final = frozenset({"search", "web", "browse", "browser", "browsing", "internet", "online"})
_LIFTS: Final[Mapping[str, frozenset[str]]] = {
    "latest_information": _SEARCH,
    "latest_information-news": frozenset({"news"}),
    "latest_information-recent_result": frozenset({"news", "sports"}),
    "latest_information-weather": frozenset({"weather", "forecast"}),
    "latest_information-date_time": frozenset({"clock", "date", "time", "datetime"}),
    "latest_information-live_price": frozenset({"price", "prices", "stocks", "quotes"}),
    "knowledge_gap": _SEARCH | {"retrieval", "documents", "rag", "wiki"},
    "modality_mismatch-image": frozenset({"image", "images", "photos", "vision"}),
    "modality_mismatch-audio": frozenset({"audio", "speech"}),
    "modality_mismatch-video": frozenset({"video", "vision"}),
    "modality_mismatch-file": frozenset({"file", "files", "documents"}),
    "interactivity_sensory-open_page": frozenset({"browse", "browser", "browsing", "fetch"}),
    "interactivity_sensory-memory": frozenset({"memory"}),
    "interactivity_sensory-act": frozenset({"actions", "calendar", "email", "home"}),
}
"""Words of a capability's name, and what each takes away: a kind, or one of its forms."""
_WORD: Final = re.compile(r"[A-Z]?[a-z]+|[A-Z]+")
_BY_TOOLS: Final = ("latest_information", "interactivity_sensory", "modality_mismatch")


def lifted(request: ChatRequest, capabilities: Sequence[str]) -> frozenset[str]:
    """Doubts that the app around the model rules out: by tools, attachments, abilities.

    They are kinds, and `kind-form` where it is only one of a kind's forms. What a tool is good
    for can't be told from its name; any tool, or result of one, lifts the kinds that tools are
    made for.
    """
    words = {word.lower() for name in capabilities for word in _WORD.findall(name)}
    words |= {"search"} if _searches(request) else set()
    kinds = {kind for kind, names in _LIFTS.items() if words & names}
    roles = {message.get("role") for message in request.messages}
    if request.get("tools") or request.get("functions") or roles & {"tool", "function"}:
        kinds |= {*_BY_TOOLS, *({"knowledge_gap"} if roles & {"tool", "function"} else ())}
    if attachments(request):
        kinds.add("modality_mismatch")
    return frozenset(kinds)


def _searches(request: ChatRequest) -> bool:
    """Whether the model looks things up by itself; `{}` asks for that, too."""
    return request.get("web_search_options") is not None


def _tool_lines(request: ChatRequest) -> Iterator[str]:
    tools = request.get("tools") or []
    functions = [tool.get("function") or tool.get("custom") or tool for tool in tools]
    for function in [*functions, *(request.get("functions") or [])]:
        name = function.get("name") or function.get("type") or "unnamed"
        described = " ".join(str(function.get("description") or "").split())
        yield f"- Tool {name}" + (f": {described}" if described else "")
    if _searches(request):
        yield "- Web search: what the answer needs is looked up before it is given."


def attachments(request: ChatRequest) -> set[str]:
    """What the messages hold beside text: image, audio, video, file or what the wire calls it."""
    names = {"image_url": "image", "input_audio": "audio", "video_url": "video", "file": "file"}
    contents = (m.get("content") for m in request.messages)
    parts = (part for content in contents if isinstance(content, list) for part in content)
    return {names.get(kind, kind) for p in parts if (kind := p.get("type", "text")) != "text"}


def _newest(request: ChatRequest) -> Iterator[Message]:
    return reversed(request.messages)


def _is(message: Message, role: str) -> bool:
    return message.get("role") == role
