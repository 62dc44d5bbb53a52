"""What each SDK is asked through the proxy, and what it must make of it: one list for all three.

A case's `do` is a function of client.py and client.mjs. `expect` holds under every strategy,
and before the upstream itself; `gated` says what else, or what instead, holds under that one.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from tests.able.mind import MERGED, REFUSED, THOUGHT
from tests.outside.environments import SERVES_RESPONSES

Json = dict[str, Any]

KEPT, PASSED = {"honesty": "draft_kept"}, {"honesty": "passed_through"}
REWRITTEN = {"honesty": "rewritten"}
HELLO, HEARD = "Hello there!", "You said: Hello there!"
WEATHER = "How is the weather in 'Oslo'?"
OSLO = ["get_weather", {"city": "Oslo"}]
JOKE = "A joke with the setup 'Two cats' and 4 laughs."
STRANGER = "sk-another-0123456789"


@dataclass(frozen=True)
class Case:
    """One call of an SDK."""

    name: str
    do: str
    ask: Json = field(default_factory=dict)
    expect: Json = field(default_factory=dict)
    gated: Json = field(default_factory=dict)
    python: Json = field(default_factory=dict)
    """What holds in Python instead."""
    key: str | None = None
    header: bool = True
    """Whether the strategy is chosen by header."""
    proxied: bool = False
    """Whether only the proxy does so: there is nothing to see before the upstream itself."""

    def data(self) -> Json:
        """The case as JSON."""
        return asdict(self)


def said(text: Any = HELLO, model: str = "m", **more: Any) -> Json:
    """A chat request with one message."""
    return {"model": model, "messages": [{"role": "user", "content": text}], **more}


def put(text: Any = HELLO, model: str = "m", **more: Any) -> Json:
    """A Responses request."""
    return {"model": model, "input": text, **more}


def tool(name: str, **properties: Json) -> Json:
    """A function that can be called, as chat wants it."""
    schema = {"type": "object", "properties": properties, "required": [*properties]}
    schema["additionalProperties"] = False
    return {
        "type": "function",
        "function": {"name": name, "description": f"It does {name}.", "parameters": schema},
    }


GET_WEATHER = tool("get_weather", city={"type": "string"})
GET_STOCK = tool("get_stock", symbol={"type": "string"}, days={"type": "integer", "minimum": 1})
TOOLS = [GET_WEATHER, GET_STOCK]
FLAT = [{"type": "function", "strict": True, **GET_WEATHER["function"]}]
STRICT = [{"type": "function", "function": {**GET_WEATHER["function"], "strict": True}}]
PARTS = [
    {"type": "text", "text": "What is this?"},
    {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
    {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
    {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,A"}},
]
CALL = {"name": "get_weather", "arguments": '{"city": "Oslo"}'}
RESULTS = [
    {"role": "user", "content": WEATHER},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "call_0", "type": "function", "function": CALL}],
    },
    {"role": "tool", "tool_call_id": "call_0", "content": "rain"},
]
OUTPUTS = [
    {"role": "user", "content": WEATHER},
    {"type": "function_call", "call_id": "call_0", **CALL},
    {"type": "function_call_output", "call_id": "call_0", "output": "rain"},
]

CHAT = [
    Case(
        "an answer",
        "chat",
        said(),
        {"content": HEARD, "finish": "stop", "calls": [], "has_usage": True, "honesty": None},
        KEPT,
    ),
    Case(
        "an answer in doubt",
        "chat",
        said("What does gold cost right now?"),
        {"content": "You said: What does gold cost right now?", "honesty": None},
        {"content": MERGED, **REWRITTEN},
    ),
    Case(
        "a strategy in the body",
        "chat",
        said(model="unsure", extra_body={"honesty": {"strategy": "gated"}}),
        {"content": MERGED, **REWRITTEN},
        proxied=True,
    ),
    Case(
        "a strategy behind the model's name",
        "chat",
        said(model="unsure@gated"),
        {"content": MERGED, **REWRITTEN},
        header=False,
        proxied=True,
    ),
    Case(
        "image, audio and file",
        "chat",
        {"model": "m", "messages": [{"role": "developer", "content": "Be brief."}]}
        | {"messages": [*said(PARTS)["messages"]]},
        {"content": "You said: What is this?\n[image_url]\n[input_audio]\n[file]"},
        KEPT,
    ),
    Case("stop", "chat", said("one two", stop=["two"]), {"content": "You said: one "}, KEPT),
    Case(
        "max_completion_tokens",
        "chat",
        said("word " * 30, max_completion_tokens=20),
        {"content": "You said:" + " word" * 18, "finish": "length"},
        KEPT,
    ),
    Case("two choices", "chat", said(n=2), {"contents": [HEARD, HEARD]}, KEPT),
    Case(
        "two choices in doubt",
        "chat",
        said(model="unsure", n=2),
        {"contents": [HEARD, HEARD]},
        {"contents": [MERGED, MERGED], **REWRITTEN},
    ),
    Case(
        "logprobs",
        "chat",
        said(logprobs=True),
        {"tokens": ["You", " said:", " Hello", " there!"]},
        KEPT,
    ),
    Case(
        "reasoning",
        "chat",
        said(model="thinks", reasoning_effort="low"),
        {"reasoning": THOUGHT, "content": HEARD},
        KEPT,
    ),
    Case(
        "a refusal",
        "chat",
        said(model="refuses"),
        {"refusal": REFUSED, "content": None},
        KEPT,
    ),
]

STREAMS = [
    Case(
        "a stream",
        "stream",
        said(stream_options={"include_usage": True}),
        {"content": HEARD, "roles": 1, "finishes": ["stop"], "usages": 1, "empty": 1, "ids": 1}
        | {"honesty": None, "choice_honesty": None},
        {**KEPT, "choice_honesty": "draft_kept"},
    ),
    Case(
        "a stream without usage",
        "stream",
        said(),
        {"content": HEARD, "roles": 1, "finishes": ["stop"], "usages": 0, "empty": 0},
        KEPT,
    ),
    Case(
        "a stream in doubt",
        "stream",
        said(model="unsure", stream_options={"include_usage": True}),
        {"content": HEARD, "roles": 1, "finishes": ["stop"], "usages": 1, "ids": 1},
        {"content": MERGED, **REWRITTEN, "choice_honesty": "rewritten"},
    ),
    Case(
        "a stream of two choices in doubt",
        "stream",
        said(model="unsure", n=2, stream_options={"include_usage": True}),
        {"roles": 2, "finishes": ["stop", "stop"], "usages": 1, "ids": 1},
        {"choice_honesty": "rewritten"},
    ),
    Case(
        "a stream that reasons",
        "stream",
        said(model="thinks"),
        {"reasoning": THOUGHT, "content": HEARD, "roles": 1},
        KEPT,
    ),
    Case(
        "a stream that refuses",
        "stream",
        said(model="refuses"),
        {"refusal": REFUSED, "content": "", "finishes": ["stop"]},
        KEPT,
    ),
    Case(
        "a stream by the SDK's helper",
        "stream_helper",
        said(),
        {"content": HEARD, "finish": "stop", "choice_honesty": None, "shown": None},
        {"choice_honesty": "draft_kept", "shown": "draft_kept"},
        python={"choice_honesty": None},  # it keeps what it knows, and a choice's first extras
    ),
    Case(
        "pings and comments",
        "stream",
        said(model="dawdles"),
        {"content": HEARD, "roles": 1, "finishes": ["stop"]},
        KEPT,
    ),
]

TOOLED = [
    Case(
        "a tool",
        "chat",
        said(WEATHER, tools=TOOLS),
        {"content": None, "calls": [OSLO], "finish": "tool_calls"},
        KEPT,
    ),
    Case(
        "tools at once",
        "chat",
        said("The weather in 'Oslo', and the stock for 3 days?", tools=TOOLS),
        {"calls": [OSLO, ["get_stock", {"symbol": "some symbol", "days": 3}]]},
        KEPT,
    ),
    Case(
        "a required tool",
        "chat",
        said(tools=TOOLS, tool_choice="required"),
        {"calls": [["get_weather", {"city": "some city"}]]},
        PASSED,
    ),
    Case(
        "a named tool",
        "chat",
        said(tools=TOOLS, tool_choice={"type": "function", "function": {"name": "get_stock"}}),
        {"calls": [["get_stock", {"symbol": "some symbol", "days": 1}]]},
        PASSED,
    ),
    Case(
        "a tool's result",
        "chat",
        {"model": "m", "messages": RESULTS, "tools": TOOLS},
        {"content": "The tool said: rain", "calls": []},
        KEPT,
    ),
    Case(
        "a tool's result in doubt",
        "chat",
        {"model": "unsure", "messages": RESULTS, "tools": TOOLS},
        {"content": "The tool said: rain", "calls": []},
        {"content": MERGED, **REWRITTEN},
    ),
    Case(
        "tools streamed",
        "stream",
        said("The weather in 'Zürich 🌧', and the stock for 3 days?", tools=TOOLS),
        {"content": "", "roles": 1, "finishes": ["tool_calls"]}
        | {
            "calls": [
                ["get_weather", {"city": "Zürich 🌧"}],
                ["get_stock", {"symbol": "some symbol", "days": 3}],
            ]
        },
        KEPT,
    ),
    Case(
        "tools streamed in doubt",
        "stream",
        said(WEATHER, "unsure", tools=TOOLS),
        {"content": "", "calls": [OSLO], "finishes": ["tool_calls"]},
        KEPT,
    ),
    Case(
        "tools by the SDK's helper",
        "stream_helper",
        said(
            WEATHER,
            tools=[{**GET_WEATHER, "function": {**GET_WEATHER["function"], "strict": True}}],
        ),
        {"calls": [OSLO], "finish": "tool_calls", "shown": None},
        {"shown": "draft_kept"},
    ),
    Case("parse", "parse", said(JOKE), {"parsed": {"setup": "Two cats", "laughs": 4}}, PASSED),
    Case(
        "JSON mode",
        "chat",
        said("JSON with 'a' and 'b'.", response_format={"type": "json_object"}),
        {"content": '{"a": "some a", "b": "some b"}'},
        PASSED,
    ),
]

ELSE = [
    Case("models", "models", expect={"one": "m"}),
    Case("embeddings", "embed", put(["ab", "abc"]), {"embeddings": [[2.0, 0.5, -1], [3, 0.5, -1]]}),
    Case(
        "embeddings as floats",
        "embed",
        put("ab", encoding_format="float"),
        {"embeddings": [[2.0, 0.5, -1.0]]},
    ),
]

DENIED = {"error": "AuthenticationError", "status": 401, "code": "invalid_api_key"}
LIMITED = {"error": "RateLimitError", "status": 429, "retry_after": "7", "request_id": "req_able"}
BROKEN = {"error": "APIError", "status": None, "content": "You said:", "finishes": []}
ERRORS = [
    Case("a wrong key", "chat", said(), DENIED, key=STRANGER),
    Case("a wrong key, streamed", "stream", said(), DENIED, key=STRANGER),
    Case(
        "an unknown model",
        "chat",
        said(model="gpt-nope"),
        {"error": "NotFoundError", "status": 404, "code": "model_not_found"},
    ),
    Case("a limit", "chat", said(model="limited"), {**LIMITED, "code": "rate_limit_exceeded"}),
    Case("a limit, streamed", "stream", said(model="limited"), {**LIMITED, "content": ""}),
    Case("a limit, and trying again", "again", said(model="recovers"), {"content": HEARD}, KEPT),
    Case(
        "a bad parameter",
        "chat",
        said(temperature=2.5),
        {"error": "BadRequestError", "status": 400, "param": "temperature"},
    ),
    Case(
        "no messages",
        "chat",
        {"model": "m", "messages": []},
        {"error": "BadRequestError", "status": 400, "param": "messages"},
        proxied=True,
    ),
    Case(
        "an unknown strategy",
        "chat",
        said(extra_body={"honesty": {"strategy": "rwa"}}),
        {"error": "BadRequestError", "status": 400},
        proxied=True,
    ),
    Case(
        "an upstream that fails",
        "chat",
        said(model="fails"),
        {"error": "InternalServerError", "status": 500, "code": "hot"},
    ),
    Case("an error in mid-stream", "stream", said(model="fails"), {**BROKEN, "code": "hot"}),
    Case("a break in mid-stream", "stream", said(model="breaks"), BROKEN, proxied=True),
    Case(
        "leaving in mid-stream",
        "leave",
        said(model="endless"),
        {"began": "chat.completion.chunk"},
    ),
    Case(
        "giving up the wait",
        "give_up",
        said(model="endless"),
        {"error": "APIConnectionTimeoutError"},
        python={"error": "APITimeoutError"},
    ),
]

RESPONSES = [
    Case(
        "a response",
        "respond",
        put(),
        {"text": HEARD, "status": "completed", "calls": [], "has_usage": True, "honesty": None},
        KEPT,
    ),
    Case(
        "a response in doubt",
        "respond",
        put([{"role": "user", "content": HELLO}], "unsure", instructions="Be brief."),
        {"text": HEARD, "status": "completed"},
        {"text": MERGED, **REWRITTEN},
    ),
    Case(
        "a response streamed",
        "respond_stream",
        put(),
        {"text": HEARD, "deltas": HEARD, "status": "completed", "has_usage": True, "ordered": True}
        | {"first": "response.created", "last": "response.completed"},
        KEPT,
    ),
    Case(
        "a response streamed in doubt",
        "respond_stream",
        put(model="unsure"),
        {"text": HEARD, "deltas": HEARD, "ordered": True}
        | {"first": "response.created", "last": "response.completed"},
        {"text": MERGED, "deltas": MERGED, **REWRITTEN},
    ),
    Case(
        "a response by the SDK's helper",
        "respond_helper",
        put(model="unsure"),
        {"text": HEARD, "status": "completed"},
        {"text": MERGED},
    ),
    Case(
        "a response with tools",
        "respond",
        put(WEATHER, tools=FLAT),
        {"calls": [OSLO], "text": ""},
        KEPT,
    ),
    Case(
        "a response with tools, streamed",
        "respond_stream",
        put(WEATHER, "unsure", tools=FLAT),
        {"calls": [OSLO], "deltas": "", "last": "response.completed", "ordered": True},
        KEPT,
    ),
    Case(
        "a response to a tool's output",
        "respond",
        put(OUTPUTS, tools=FLAT),
        {"text": "The tool said: rain"},
        KEPT,
    ),
    Case(
        "a response parsed",
        "respond_parse",
        put(JOKE),
        {"parsed": {"setup": "Two cats", "laughs": 4}},
        PASSED,
    ),
    Case(
        "a response after another",
        "respond",
        put(model="unsure", previous_response_id="resp_able1"),
        {"text": HEARD},
        PASSED,
    ),
    Case("a response got by its id", "respond_again", put(), {"same": True}),
    Case("a response with a wrong key", "respond", put(), DENIED, key=STRANGER),
    Case("a response limited", "respond_stream", put(model="limited"), LIMITED),
    Case(
        "an error in a response's stream",
        "respond_stream",
        put(model="fails"),
        {"error": "APIError", "deltas": "You s"},
    ),
    Case(
        "a break in a response's stream",
        "respond_stream",
        put(model="breaks"),
        {"error": "APIError"},
        proxied=True,
    ),
]

CASES = [*CHAT, *STREAMS, *TOOLED, *ELSE, *ERRORS, *RESPONSES]
AWAITED = set() if SERVES_RESPONSES else {case.name for case in RESPONSES}
"""What the proxy doesn't serve yet."""
