"""Our answers on the wire."""

from __future__ import annotations

import json

from honestproxy.errors import InvalidRequest, UpstreamError
from honestproxy.trace import Honesty, Trace
from honestproxy.types import Chunk
from honestproxy.wire import reply


def test_an_untouched_event_goes_out_as_it_came() -> None:
    event = b": ping\r\ndata:{}\r\n\r\n"
    assert reply.ChatWriter().events(Chunk(b"{}", event=event)) == event


def test_a_chunk_of_ours_becomes_an_event() -> None:
    made = reply.ChatWriter().events(Chunk.of("x"))
    assert made.startswith(b"data: {")
    assert made.endswith(b"}\n\n")


def test_a_blank_chunk_says_nothing() -> None:
    assert reply.ChatWriter().events(Chunk({"choices": []})) == b""


def test_an_error_in_a_stream_has_the_shape_that_sdks_raise() -> None:
    event = reply.ChatWriter().error(InvalidRequest("no", param="n"))
    body = json.loads(event.removeprefix(b"data: "))
    assert body["error"] == {
        "message": "no",
        "type": "invalid_request_error",
        "param": "n",
        "code": None,
    }


def test_an_upstreams_own_error_body_is_kept() -> None:
    theirs = {"error": {"message": "x", "extra": 1}}
    assert json.loads(reply.error(UpstreamError("y", upstream=theirs))) == theirs


def test_headers_tell_the_outcome_only_where_it_is_known() -> None:
    honesty = Honesty(Trace("gated"))
    assert "x-honesty-outcome" not in reply.headers(honesty)
    honesty.outcome = "rewritten"
    assert reply.headers(honesty)["x-honesty-outcome"] == "rewritten"


def test_each_model_is_followed_by_its_variants() -> None:
    listed = reply.model_list([{"id": "m", "owned_by": "x"}], ["raw", "gated"])
    assert [row["id"] for row in listed["data"]] == ["m", "m@raw", "m@gated"]
    assert {row["owned_by"] for row in listed["data"]} == {"x"}
