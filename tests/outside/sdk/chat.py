"""Cases of chat completions, models and embeddings."""

from tests.able.mind import MERGED, REFUSED, THOUGHT
from tests.outside.sdk.case import (
    DENIED,
    GET_WEATHER,
    HEARD,
    JOKE,
    KEPT,
    LIMITED,
    OSLO,
    PARTS,
    PASSED,
    RESULTS,
    REWRITTEN,
    STRANGER,
    TOOLS,
    WEATHER,
    Case,
    put,
    said,
)

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
