"""Cases of Responses."""

from tests.able.mind import MERGED
from tests.outside.sdk.case import (
    DENIED,
    FLAT,
    HEARD,
    HELLO,
    JOKE,
    KEPT,
    LIMITED,
    OSLO,
    OUTPUTS,
    PASSED,
    REWRITTEN,
    STRANGER,
    WEATHER,
    Case,
    put,
)

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
