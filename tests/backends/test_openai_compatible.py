"""The backend over any OpenAI-compatible URL, against a scripted server on loopback."""

import asyncio
import itertools
import json
from contextlib import asynccontextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from honestproxy.backends import openai_compatible
from honestproxy.backends.openai_compatible import OpenAICompatible
from honestproxy.errors import (
    SettingsError,
    UpstreamBroken,
    UpstreamError,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from honestproxy.settings import Settings
from honestproxy.types import ChatRequest
from honestproxy.wire.responses import ResponsesRequest
from tests.upstreams import (
    Reply,
    answer,
    chunk,
    completion,
    event,
    events,
    free_port,
    talking,
    upstream,
)

KEY = "sk-operator-0123456789"
ASK = ChatRequest(b'{"model":"m","messages":[{"role":"user","content":"Hi"}]}')


@asynccontextmanager
async def backend(url, **options):
    made = OpenAICompatible(url, Settings(**options))
    try:
        yield made
    finally:
        await made.aclose()


@asynccontextmanager
async def serving(*script, **options):
    async with upstream(*script) as server, backend(server.url, **options) as made:
        yield server, made


async def failure(call):
    with pytest.raises(UpstreamError) as caught:
        await call
    return caught.value


async def gathered(stream):
    return [chunk async for chunk in stream]


# The whole answer


async def test_request_and_answer_pass_byte_for_byte():
    raw = b'{ "model":"m",\n "messages": [], "x": 1e400, "a\\u00e9": "\\ud800" }\n'
    body = (
        b' {"choices": [ {"message": {"content": "\\ud83d"}} ], "n": 0.10000000000000000000001}\n'
    )
    async with serving(answer(body)) as (server, remote):
        response = await remote.complete(ChatRequest(raw))
    assert server.seen[0].body == raw
    assert server.seen[0].path == "/v1/chat/completions"
    assert server.seen[0].headers["Content-Type"] == "application/json"
    assert response.raw == body


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@settings(deadline=None, max_examples=40)
@given(fields=st.dictionaries(st.text(), json_values), indent=st.none() | st.integers(0, 3))
async def test_any_json_passes_byte_for_byte(fields, indent):
    raw = json.dumps(fields, indent=indent).encode()
    said = {"error": None, "choices": [{"message": {}}]}
    body = json.dumps({**fields, **said}, indent=indent).encode()
    async with serving(answer(body)) as (server, remote):
        response = await remote.complete(ChatRequest(raw))
    assert (server.seen[0].body, response.raw) == (raw, body)


async def test_a_large_request_passes_byte_for_byte():
    raw = ChatRequest({"model": "m", "messages": [{"role": "user", "content": "é" * 2_000_000}]})
    async with serving(answer(completion())) as (server, remote):
        await remote.complete(raw)
    assert server.seen[0].body == raw.raw
    assert server.seen[0].headers["Content-Length"] == str(len(raw.raw))
    assert "Content-Disposition" not in server.seen[0].headers


async def test_useful_headers_come_back_and_others_do_not():
    headers = {
        "X-Request-Id": "r1",
        "x-ratelimit-remaining-tokens": "7",
        "OpenAI-Processing-Ms": "12",
        "Set-Cookie": "a=b",
        "Server": "s",
    }
    async with serving(answer(completion(), headers=headers)) as (_, remote):
        response = await remote.complete(ASK)
    assert response.headers == {
        "x-request-id": "r1",
        "x-ratelimit-remaining-tokens": "7",
        "openai-processing-ms": "12",
    }


async def test_the_clients_authorization_goes_up_where_no_key_is_set():
    async with serving(answer(completion())) as (server, remote):
        await remote.complete(ASK.with_headers({"authorization": "Bearer theirs", "X-Id": "1"}))
        await remote.complete(ASK)
    assert server.seen[0].headers["Authorization"] == "Bearer theirs"
    assert server.seen[0].headers["X-Id"] == "1"
    assert "Authorization" not in server.seen[1].headers


async def test_the_upstream_key_replaces_the_clients():
    async with serving(answer(completion()), upstream_key=KEY + "\n") as (server, remote):
        await remote.complete(ASK.with_headers({"AUTHORIZATION": "Bearer theirs"}))
    assert server.seen[0].headers.getall("Authorization") == [f"Bearer {KEY}"]


async def test_a_request_is_sent_again_where_its_idle_connection_was_closed():
    good = answer(completion())
    async with serving(good, Reply(then="drop"), good) as (server, remote):
        await remote.complete(ASK)
        assert (await remote.complete(ASK)).text == "Paris."
    assert len(server.seen) == 3


async def test_cookies_are_not_kept():
    async with serving(answer(completion(), headers={"Set-Cookie": "a=b"})) as (server, remote):
        await remote.complete(ASK)
        await remote.complete(ASK)
    assert "Cookie" not in server.seen[1].headers


async def test_one_connection_serves_calls_and_streams_in_turn():
    script = [answer(completion()), events(event(chunk("Hi", "stop"))), answer(completion())]
    async with serving(*script) as (server, remote):
        await remote.complete(ASK)
        await gathered(remote.stream(ASK))
        await remote.complete(ASK)
    assert len({seen.connection for seen in server.seen}) == 1


# A good status without a good answer


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (answer(b"<html><title>Log in</title></html>", content_type="text/html"), "Log in"),
        (answer(b'{"choices": [{"mess'), "application/json"),
        (answer(b"[1]"), "[1]"),
        (answer(b"{}"), "{}"),
        (answer(b'{"choices": null}'), "null"),
        (answer(b'{"choices": [null]}'), "null"),
        (answer(b'{"choices": [], "error": {"message": "no GPU"}}'), "no GPU"),
        (answer(b'{"error": "no GPU"}'), "no GPU"),
        (answer(b""), "empty"),
        (answer(b"\xff\xfe"), "application/json"),
        (answer(b"[" * 100_000), "[[["),
        (answer(b"x" * 1000, content_type="text/plain"), "text/plain: xxx"),
    ],
)
async def test_what_is_no_completion_is_not_passed_off_as_one(reply, words):
    async with serving(reply) as (_, remote):
        error = await failure(remote.complete(ASK))
    assert isinstance(error, UpstreamBroken)
    assert error.status == 502
    assert words in error.message
    assert len(error.message) < 400


async def test_a_body_cut_off_is_broken():
    async with serving(answer(b'{"choices": [', then="drop")) as (_, remote):
        error = await failure(remote.complete(ASK))
    assert isinstance(error, UpstreamBroken)
    assert "broke off" in error.message


# Refusals


@pytest.mark.parametrize("status", [400, 401, 403, 404, 408, 422, 429, 500, 503, 529])
async def test_an_error_keeps_its_status_body_and_retry_after(status):
    body = {"error": {"message": "No.", "type": "t", "code": "c", "more": [1]}}
    headers = {"Retry-After": "7", "retry-after-ms": "7000", "x-request-id": "r"}
    async with serving(answer(body, status=status, headers=headers)) as (_, remote):
        for call in (remote.complete(ASK), gathered(remote.stream(ASK)), remote.models()):
            error = await failure(call)
            assert type(error) is UpstreamError
            assert (error.status, error.body()) == (status, body)
            assert error.headers == {
                "retry-after": "7",
                "retry-after-ms": "7000",
                "x-request-id": "r",
            }


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"error": "model 'm' not found"}, "model 'm' not found"),
        ({"object": "error", "message": "too long"}, "too long"),
        ({"detail": "Not Found"}, "Not Found"),
        ({"detail": [{"msg": "field required"}]}, "field required"),
        ([{"error": {"message": "key not valid"}}], "key not valid"),
        (b"<!DOCTYPE html><html><style>p{}</style><h1>Bad gateway</h1></html>", "Bad gateway"),
        (b"404 page\n\x1b[31m not found", "404 page [31m not found"),
        (b"", "404 Not Found"),
    ],
)
async def test_an_error_of_another_shape_is_wrapped(body, words):
    async with serving(answer(body, status=404)) as (_, remote):
        error = await failure(remote.complete(ASK))
    assert error.status == 404
    assert error.upstream is None
    assert words in error.body()["error"]["message"]
    assert "/v1" in error.message
    assert "<" not in error.message


async def test_redirects_are_told_not_followed():
    headers = {"Location": "http://u:pw@other.example/v1?key=s3cret"}
    async with serving(answer(b"", status=307, headers=headers)) as (server, remote):
        error = await failure(remote.complete(ASK))
    assert error.status == 502
    assert "http://other.example/v1," in error.message
    assert len(server.seen) == 1


@pytest.mark.parametrize("status", [200, 401])
@pytest.mark.parametrize("key", [KEY, None])
async def test_a_key_that_the_upstream_repeats_is_not_told(status, key):
    headers = {"authorization": f"Bearer {KEY}"}
    body = {"error": {"message": f"Incorrect API key: {KEY}.", "key": KEY}}
    async with serving(answer(body, status=status), upstream_key=key) as (_, remote):
        error = await failure(remote.complete(ASK.with_headers(headers)))
    assert KEY not in json.dumps(error.body()) + error.message + str(error)
    assert "Incorrect API key: [redacted]" in json.dumps(error.body())


async def test_a_key_in_another_case_is_not_told_either():
    reply = answer(b"x", content_type=f"text/{KEY.upper()}")
    async with serving(reply, upstream_key=KEY.upper()) as (_, remote):
        error = await failure(remote.complete(ASK))
    assert KEY not in (json.dumps(error.body()) + str(error)).lower()


# No connection


async def test_a_closed_port_is_unreachable_and_the_message_helps():
    async with backend(f"http://127.0.0.1:{free_port()}/v1/?key=s3cret") as remote:
        error = await failure(remote.complete(ASK))
    assert isinstance(error, UpstreamUnreachable)
    assert error.status == 502
    assert "can't reach http://127.0.0.1:" in error.message
    assert "/v1: connection refused; is the server running" in error.message
    assert "s3cret" not in error.message


async def test_localhost_refused_at_each_address_reads_the_same():
    async with backend(f"http://localhost:{free_port()}/v1") as remote:
        error = await failure(remote.models())
    assert "connection refused; is the server running" in error.message


async def test_an_unknown_host_is_unreachable():
    async with backend("http://no-such-host.invalid/v1") as remote:
        error = await failure(remote.complete(ASK))
    assert isinstance(error, UpstreamUnreachable)
    assert "no-such-host.invalid" in error.message


async def test_tls_to_a_server_without_it_is_unreachable():
    async with (
        upstream(answer(b"")) as server,
        backend(server.url.replace("http:", "https:")) as remote,
    ):
        error = await failure(remote.complete(ASK))
    assert isinstance(error, UpstreamUnreachable)


async def test_a_connection_dropped_before_the_head_is_unreachable():
    async with serving(Reply(then="drop")) as (_, remote):
        error = await failure(remote.complete(ASK))
    assert isinstance(error, UpstreamUnreachable)


async def test_what_is_not_http_is_broken():
    async with (
        talking(b"SSH-2.0-OpenSSH_9.6\r\n\r\n") as place,
        backend(f"http://{place}/v1") as remote,
    ):
        error = await failure(remote.complete(ASK))
    assert isinstance(error, UpstreamBroken)
    assert "not HTTP" in error.message


async def test_a_server_that_never_shakes_hands_is_a_timeout():
    async with talking(b"") as place, backend(f"https://{place}", connect_timeout=0.1) as remote:
        error = await failure(remote.complete(ASK))
    assert isinstance(error, UpstreamTimeout)
    assert "0.1 s" in error.message


# URLs


@pytest.mark.parametrize("url", ["ftp://a/v1", "http://", "127.0.0.1:80", "", "http://a:99999999"])
def test_a_url_that_is_none_is_refused(url):
    with pytest.raises(SettingsError, match="http://127"):
        OpenAICompatible(url, Settings())


@pytest.mark.parametrize("url", ["http://u:hunter22@a/v1", "http://hunter22@a/v1"])
def test_credentials_in_the_url_are_refused_and_not_told(url):
    with pytest.raises(SettingsError, match="HONESTPROXY_UPSTREAM_KEY") as caught:
        OpenAICompatible(url, Settings())
    assert "hunter22" not in str(caught.value)


def test_a_key_that_no_header_can_carry_is_refused():
    with pytest.raises(SettingsError, match="upstream_key"):
        OpenAICompatible("http://a", Settings(upstream_key="a\nb"))


@pytest.mark.parametrize("end", ["", "/", "/chat/completions", "/chat/completions/"])
async def test_a_urls_end_does_not_matter(end):
    async with upstream(answer(completion())) as server, backend(server.url + end) as remote:
        await remote.complete(ASK)
    assert server.seen[0].path == "/v1/chat/completions"


async def test_a_urls_query_and_escapes_are_kept():
    async with (
        upstream(answer({"data": []})) as server,
        backend(f"{server.url}/my%2Fmodel?api-version=1") as remote,
    ):
        await remote.models()
    assert server.seen[0].path == "/v1/my%2Fmodel/models?api-version=1"


# Responses


async def test_only_so_many_models_without_responses_are_remembered(monkeypatch):
    monkeypatch.setattr(openai_compatible, "_MODELS", 3)

    def chats(seen):
        return answer(b"", status=404) if "responses" in seen.path else answer(completion())

    async with serving(chats) as (server, remote):
        for name in ("a", "b", "c", "a", "d", "long", "b", "long", "d", "a"):
            asked = ResponsesRequest({"model": name, "input": "Hi"})
            await remote.complete(ChatRequest(asked.chat, origin=asked))
    asked = [seen.json()["model"] for seen in server.seen if "responses" in seen.path]
    assert asked == ["a", "b", "c", "d", "long", "long", "a"]


# Models


@pytest.mark.parametrize("body", [{"object": "list", "data": [{"id": "a"}]}, [{"id": "a"}]])
async def test_models_are_listed(body):
    async with serving(answer(body)) as (server, remote):
        assert await remote.models({"Authorization": "Bearer theirs"}) == [{"id": "a"}]
    assert server.seen[0].method == "GET"
    assert server.seen[0].path == "/v1/models"
    assert server.seen[0].headers["Authorization"] == "Bearer theirs"


async def test_a_list_of_models_that_is_none_is_broken():
    async with serving(answer({"data": "a"})) as (_, remote):
        assert isinstance(await failure(remote.models()), UpstreamBroken)


# Streams


async def test_a_stream_passes_byte_for_byte():
    pieces = [
        event(chunk("Pa")),
        b": ping\n\n",
        event(chunk("ris", x=[1]), b"\r\n\r\n"),
        b"id: 3\ndata:" + json.dumps(chunk("é")).encode() + b"\n\n",
        event(chunk(None, "stop")),
        event({"choices": [], "usage": {"total_tokens": 3}}),
        b": bye\n\n",
    ]
    async with serving(events(*pieces)) as (server, remote):
        first, *chunks = await gathered(remote.stream(ASK))
    assert server.seen[0].body == ASK.raw
    assert (first.choices, first.event) == ([], b"")
    assert b"".join(c.event for c in chunks) == b"".join(pieces) + event(b"[DONE]")
    assert "".join(c.text for c in chunks) == "Parisé"
    assert [c.finished for c in chunks] == [False, False, False, True, False, False]
    assert chunks[-1].blank
    assert chunks[4].usage == {"total_tokens": 3}


@pytest.mark.parametrize(
    "called", ["text/plain", "application/octet-stream", "", "text/EVENT-stream"]
)
async def test_a_stream_is_one_whatever_its_server_calls_it(called):
    pieces = [b": hello\n\n", event(chunk("Paris.", "stop")), event(b"[DONE]")]
    async with serving(Reply(pieces, content_type=called)) as (_, remote):
        chunks = await gathered(remote.stream(ASK))
    assert b"".join(c.event for c in chunks) == b"".join(pieces)


@settings(deadline=None, max_examples=30)
@given(data=st.data())
async def test_where_the_network_cuts_a_stream_never_matters(data):
    terminator = data.draw(st.sampled_from([b"\n\n", b"\r\n\r\n", b"\r\r"]))
    texts = data.draw(st.lists(st.text(), min_size=1, max_size=4))
    sent = [event(json.dumps(chunk(t), ensure_ascii=False).encode("utf-8", "replace"), terminator)
            for t in texts]  # fmt: skip
    whole = b"".join([*sent, event(chunk(None, "stop"), terminator)])
    cuts = sorted(data.draw(st.sets(st.integers(1, len(whole) - 1), max_size=6)))
    edges = [0, *cuts, len(whole)]
    pieces = [whole[a:b] for a, b in itertools.pairwise(edges)]
    async with serving(events(*pieces)) as (_, remote):
        chunks = await gathered(remote.stream(ASK))
    assert b"".join(c.event for c in chunks) == whole + event(b"[DONE]")
    assert len(chunks) == len(texts) + 3


async def test_the_first_chunk_comes_when_the_status_is_known():
    async with serving(events(then="hold", done=False)) as (_, remote):
        stream = remote.stream(ASK)
        assert (await anext(stream)).choices == []
        await stream.aclose()


@pytest.mark.parametrize("leave", ["close", "cancel"])
async def test_leaving_a_stream_closes_the_upstreams_connection(leave):
    async with serving(events(event(chunk("Hi")), then="hold", done=False)) as (server, remote):
        stream = remote.stream(ASK)
        assert [(await anext(stream)).text, (await anext(stream)).text] == ["", "Hi"]
        if leave == "close":
            await stream.aclose()
        else:
            waiting = asyncio.ensure_future(anext(stream))
            await asyncio.sleep(0.01)
            waiting.cancel()
        await asyncio.wait_for(server.gone.wait(), 5)


async def test_cancelling_a_call_closes_the_upstreams_connection():
    async with serving(answer(b"{", then="hold")) as (server, remote):
        call = asyncio.ensure_future(remote.complete(ASK))
        await server.holding.wait()
        call.cancel()
        await asyncio.wait_for(server.gone.wait(), 5)
        with pytest.raises(asyncio.CancelledError):
            await call


async def test_done_ends_a_stream_whose_connection_stays_open():
    pieces = [event(chunk("Hi", "stop")), event(b"[DONE]")]
    async with serving(events(*pieces, done=False, then="hold")) as (server, remote):
        async with asyncio.timeout(5):
            assert len(await gathered(remote.stream(ASK))) == 3
        await asyncio.wait_for(server.gone.wait(), 5)


async def test_a_json_answer_to_a_streamed_request_comes_as_chunks():
    async with serving(answer(completion("Paris."))) as (_, remote):
        asked = ASK.replace(stream_options={"include_usage": True})
        chunks = await gathered(remote.stream(asked))
    assert "".join(c.text for c in chunks) == "Paris."
    assert any(c.finished for c in chunks)
    assert chunks[-1].usage["total_tokens"] == 7


@pytest.mark.parametrize(
    "pieces",
    [
        [event(chunk("Hi", "stop"))],
        [event(chunk("Hi", "stop"))[:-1]],
        [event(chunk("Hi", "stop")), b"data: [DONE]"],
        [event(chunk("Hi", "stop")), b'data: {"choices": [], "usa'],
    ],
)
async def test_a_finished_answer_needs_no_done(pieces):
    async with serving(events(*pieces, done=False)) as (_, remote):
        chunks = await gathered(remote.stream(ASK))
    assert [c.text for c in chunks if not c.blank] == ["Hi"]
    assert chunks[1].event == event(chunk("Hi", "stop"))


@pytest.mark.parametrize(
    "reply",
    [
        events(event(chunk("Hi")), done=False),
        events(event(chunk("Hi")), done=False, then="drop"),
        events(event(chunk("Hi")), b'data: {"choices": [{"delta": {}', done=False),
        events(event(chunk("Hi")), event(b"hello")),
        events(event(chunk("Hi")), event(b'{"choices": ')),
    ],
)
async def test_a_stream_that_breaks_off_is_an_error_behind_what_came(reply):
    async with serving(reply) as (_, remote):
        texts = []
        with pytest.raises(UpstreamBroken):  # noqa: PT012
            async for piece in remote.stream(ASK):
                texts.append(piece.text)  # noqa: PERF401
    assert texts == ["", "Hi"]


@pytest.mark.parametrize(
    "reply",
    [
        events(),
        events(done=False),
        events(b": ping\n\n"),
        answer(b"<html>Log in</html>", content_type="text/html"),
        answer(b'{"object": "list"}'),
        answer(b""),
    ],
)
async def test_a_stream_without_an_answer_is_broken(reply):
    async with serving(reply) as (_, remote):
        assert isinstance(await failure(gathered(remote.stream(ASK))), UpstreamBroken)


@pytest.mark.parametrize(
    ("sent", "status", "upstream_body"),
    [
        (event({"error": {"message": "full", "code": 429}}), 429, True),
        (event({"error": {"message": "full", "code": "429"}}), 502, True),
        (event({"error": {"message": "full", "status": 503}}), 503, True),
        (event({"error": {"message": "full", "code": 200}}), 502, True),
        (event({"error": "full"}), 502, False),
        (event({**chunk("x", "error"), "error": {"message": "full"}}), 502, True),
        (b'event: error\ndata: {"message": "full"}\n\n', 502, True),
        (b'event: error\ndata: {"error": {"message": "full"}}\n\n', 502, True),
        (b"event: error\ndata: full\n\n", 502, False),
    ],
)
async def test_an_error_in_a_stream_is_raised(sent, status, upstream_body):
    async with serving(events(event(chunk("Hi")), sent)) as (_, remote):
        error = await failure(gathered(remote.stream(ASK)))
    assert error.status == status
    assert "full" in error.body()["error"]["message"]
    assert (error.upstream is not None) == upstream_body


async def test_talk_of_errors_in_an_answer_is_no_error():
    texts = ['{"error": {"message": "x"}, "finish_reason": "stop"}', "event: error\n"]
    more = {"error": None, "nested": {"error": {"a": 1}}}
    pieces = [event(chunk(text, **more)) for text in texts]
    async with serving(events(*pieces, event(chunk(None, "stop")))) as (_, remote):
        chunks = await gathered(remote.stream(ASK))
    assert [c.text for c in chunks if not c.blank] == [*texts, ""]


# A real server


@pytest.mark.upstream
async def test_llama_cpp_answers_whole(llama_server):
    async with backend(llama_server) as remote:
        response = await remote.complete(real_request())
        models = await remote.models()
    assert response.text
    assert response.usage["completion_tokens"] > 0
    assert response.finish_reason in ("stop", "length")
    assert [model["id"] for model in models] == ["smollm2"]


@pytest.mark.upstream
async def test_llama_cpp_streams_the_same_answer(llama_server):
    options = {"stream": True, "stream_options": {"include_usage": True}}
    async with backend(llama_server) as remote:
        whole = await remote.complete(real_request())
        chunks = await gathered(remote.stream(real_request(**options)))
    assert "".join(c.text for c in chunks) == whole.text
    assert chunks[-2].usage["completion_tokens"] == whole.usage["completion_tokens"]
    assert sum(c.finished for c in chunks) == 1
    assert all(c.event.startswith(b"data: {") for c in chunks[1:-1])


@pytest.mark.upstream
async def test_llama_cpp_says_why_it_refuses(llama_server):
    async with backend(llama_server) as remote:
        error = await failure(remote.complete(ChatRequest({"messages": 1})))
    assert 400 <= error.status <= 500
    assert error.upstream["error"]["message"]


@pytest.mark.upstream
async def test_llama_cpp_is_left_in_mid_answer_and_goes_on_serving(llama_server):
    long = real_request(stream=True, max_tokens=2000, ignore_eos=True)
    async with backend(llama_server) as remote:
        for _ in range(3):  # more than it has slots
            stream = remote.stream(long)
            await anext(stream)
            assert (await anext(stream)).choices
            await stream.aclose()
        assert (await remote.complete(real_request())).text


def real_request(**more):
    asked = [{"role": "user", "content": "What is the capital of France?"}]
    fields = {"model": "smollm2", "messages": asked, "max_tokens": 16, "temperature": 0, "seed": 1}
    return ChatRequest({**fields, **more})
