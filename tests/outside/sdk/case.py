"""One call of an SDK, and what goes into the cases."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

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
    """One call of an SDK.

    `do` is a function of client.py and client.mjs. `expect` holds under every strategy, and
    before the upstream itself; `gated` says what else, or what instead, holds under that one.
    """

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
DENIED = {"error": "AuthenticationError", "status": 401, "code": "invalid_api_key"}
LIMITED = {"error": "RateLimitError", "status": 429, "retry_after": "7", "request_id": "req_able"}
