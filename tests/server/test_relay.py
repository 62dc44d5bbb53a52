"""Paths that aren't rewritten: relayed as they are, up and down."""

from __future__ import annotations

import asyncio
import io
from contextlib import suppress

import aiohttp
import pytest
from yarl import URL

from honestproxy.backends.scripted import Scripted
from honestproxy.settings import Settings
from tests.proxy import proxy, serving
from tests.upstreams import Reply, Seen, answer, event, events

VECTOR = {
    "object": "list",
    "model": "m",
    "data": [{"object": "embedding", "index": 0, "embedding": [0.5, 0.25]}],
    "usage": {"prompt_tokens": 1, "total_tokens": 1},
}


async def test_embeddings_reach_the_sdk_as_the_upstream_made_them() -> None:
    async with proxy(lambda _: answer(VECTOR)) as on:
        made = await on.client.embeddings.create(model="m", input="x", encoding_format="float")
    assert made.data[0].embedding == [0.5, 0.25]
    assert on.upstream.seen[0].path == "/v1/embeddings"
    assert on.upstream.seen[0].headers["Authorization"] == "Bearer client-key"


async def test_bytes_and_query_are_untouched_both_ways() -> None:
    body, back = b'{"a":1e400,\n "a":2}', bytes(range(256)) * 500
    audio = Reply([back[:1000], back[1000:]], content_type="audio/mpeg")
    url = "/audio/speech?a=%2F&b="
    async with (
        proxy(lambda _: audio) as on,
        on.session.post(
            URL(on.url + url, encoded=True), data=body, headers={"Content-Type": "x/y"}
        ) as got,
    ):
        assert await got.read() == back
        assert got.headers["content-type"] == "audio/mpeg"
        assert got.headers["x-honesty-outcome"] == "passed_through"
    seen = on.upstream.seen[0]
    assert (seen.path, seen.body) == ("/v1/audio/speech?a=%2F&b=", body)
    assert seen.headers["Content-Type"] == "x/y"


async def test_files_go_up_as_multipart_and_come_down_again() -> None:
    def files(seen: Seen) -> Reply:
        if seen.method == "GET":
            return Reply([b"a,b\n1,2\n"], content_type="application/octet-stream")
        made = {"id": "f1", "object": "file", "bytes": 1, "created_at": 1, "filename": "x"}
        return answer(made | {"purpose": "assistants", "status": "processed"})

    async with proxy(files) as on:
        made = await on.client.files.create(file=("x.csv", io.BytesIO(b"a,b")), purpose="user_data")
        content = await on.client.files.content(made.id)
    assert (await content.aread()) == b"a,b\n1,2\n"
    assert b'filename="x.csv"' in on.upstream.seen[0].body
    assert [seen.method for seen in on.upstream.seen] == ["POST", "GET"]


async def test_legacy_completions_stream_as_they_come() -> None:
    piece = {"id": "1", "object": "text_completion", "created": 1, "model": "m"}
    choices = [{"text": "a", "index": 0, "logprobs": None, "finish_reason": "stop"}]
    streamed = events(event(piece | {"choices": choices}))
    async with proxy(lambda _: streamed) as on:
        stream = await on.client.completions.create(model="m", prompt="x", stream=True)
        assert [part.choices[0].text async for part in stream] == ["a"]


@pytest.mark.parametrize("status", [204, 302, 404, 429, 500])
async def test_the_upstreams_own_status_stands(status: int) -> None:
    headers = {"Retry-After": "9", "Location": "http://elsewhere/", "Set-Cookie": "a=b"}
    reply = Reply([] if status == 204 else [b"no"], status=status, headers=headers)
    async with (
        proxy(lambda _: reply) as on,
        on.session.get(f"{on.url}/batches", allow_redirects=False) as got,
    ):
        assert got.status == status
        assert got.headers["Retry-After"] == "9"
        assert "Set-Cookie" not in got.headers


async def test_headers_of_no_concern_to_the_upstream_stay_here() -> None:
    async with proxy(lambda _: answer(VECTOR)) as on:
        sent = {"Cookie": "a=b", "X-Secret": "s", "OpenAI-Organization": "o"}
        async with on.session.post(f"{on.url}/embeddings", json={}, headers=sent) as got:
            assert got.status == 200
    seen = {name.lower() for name in on.upstream.seen[0].headers}
    assert "openai-organization" in seen
    assert not {"cookie", "x-secret"} & seen


async def test_a_files_name_comes_down_in_the_bytes_that_it_was_sent_in() -> None:
    named = 'attachment; filename="日本 été.txt"'
    async with (
        proxy(lambda _: answer(b"x", headers={"Content-Disposition": named})) as on,
        on.session.get(f"{on.url}/files/f/content") as got,
    ):
        assert got.headers["Content-Disposition"] == named


async def test_an_upload_is_passed_on_before_it_is_complete() -> None:
    async def slowly():
        yield b"x" * 100_000
        await asyncio.sleep(0.05)
        yield b"y" * 100_000

    async with (
        proxy(lambda _: answer(VECTOR), max_body_bytes=1000) as on,
        on.session.post(f"{on.url}/uploads", data=slowly()) as got,
    ):
        assert got.status == 200
    assert on.upstream.seen[0].body == b"x" * 100_000 + b"y" * 100_000


async def test_an_upload_that_its_client_breaks_off_is_never_passed_off_as_whole() -> None:
    heard = bytearray()
    ended = asyncio.Event()

    async def hear(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while part := await reader.read(65536):
                heard.extend(part)
        ended.set()
        writer.close()

    async with await asyncio.start_server(hear, "127.0.0.1", 0) as upstream:
        port = upstream.sockets[0].getsockname()[1]
        async with serving(Settings(upstream=f"http://127.0.0.1:{port}/v1")) as url:
            at = URL(url)
            _, client = await asyncio.open_connection(at.host, at.port)
            client.write(b"POST /v1/files HTTP/1.1\r\nhost: 127.0.0.1\r\n")
            client.write(b"content-type: multipart/form-data; boundary=x\r\n")
            client.write(b"transfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n")
            await asyncio.sleep(0.2)
            client.close()
            await asyncio.wait_for(ended.wait(), 5)
    assert b"\r\n4\r\nhalf\r\n" in heard
    assert b"\r\n0\r\n" not in heard


async def test_an_upload_that_stalls_in_the_queue_is_never_passed_off_as_whole() -> None:
    held = Reply([b"{"], then="hold")
    limits = {"max_concurrency": 1, "body_timeout": 0.2, "queue_timeout": 10.0}
    async with proxy(lambda _: held, **limits) as on:
        first = asyncio.create_task(on.session.post(f"{on.url}/embeddings", json={}))
        await asyncio.wait_for(on.upstream.holding.wait(), 5)
        at = URL(on.url)
        reader, client = await asyncio.open_connection(at.host, at.port)
        client.write(b"POST /v1/files HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 5000\r\n")
        client.write(b"content-type: multipart/form-data; boundary=x\r\n\r\nhalf")
        await asyncio.sleep(0.5)
        (await first).close()
        assert b" 408 " in await asyncio.wait_for(reader.readline(), 5)
        client.close()
    assert [seen.path for seen in on.upstream.seen] == ["/v1/embeddings"]


async def test_an_error_that_never_ends_leaves_no_connection_behind() -> None:
    """With a key of the proxy's own an error is read before it is passed on."""
    held = Reply([b"{"], status=400, then="hold")
    async with proxy(lambda _: held, upstream_key="sk-operator-0123456789") as on:
        asking = asyncio.create_task(on.session.post(f"{on.url}/embeddings", json={}))
        await asyncio.wait_for(on.upstream.holding.wait(), 5)
        asking.cancel()
        await asyncio.wait_for(on.upstream.gone.wait(), 5)


async def test_a_client_that_leaves_ends_the_upstreams_work() -> None:
    held = Reply([b"data: {}\n\n"], content_type="text/event-stream", then="hold")
    async with proxy(lambda _: held) as on:
        got = await on.session.post(f"{on.url}/audio/speech", json={})
        await asyncio.wait_for(on.upstream.holding.wait(), 5)
        got.close()
        await asyncio.wait_for(on.upstream.gone.wait(), 5)


async def test_an_answer_that_breaks_off_is_seen_to_break_off() -> None:
    broken = Reply([b"half"], then="drop", content_type="application/pdf")
    async with proxy(lambda _: broken) as on, on.session.get(f"{on.url}/files/1/content") as got:
        with pytest.raises(Exception, match=r"payload|closed|reset"):
            await got.read()


@pytest.mark.parametrize("path", ["/chat/completions/", "//chat//completions"])
async def test_no_spelling_of_the_chat_path_leads_past_the_pipeline(path: str) -> None:
    async with (
        proxy(lambda _: answer(VECTOR)) as on,
        on.session.post(on.url + path, json={}) as got,
    ):
        assert got.status == 400
        assert "messages" in await got.text()
    assert on.upstream.seen == []


async def test_a_path_that_climbs_is_refused() -> None:
    async with proxy(lambda _: answer(VECTOR)) as on:
        for path in ("/files/../../admin", "/files/%2e%2e/%2e%2e/admin"):
            async with on.session.get(URL(on.url + path, encoded=True)) as got:
                assert got.status in (400, 404)
    assert on.upstream.seen == []


async def test_an_upstream_without_other_paths_says_so() -> None:
    async with (
        serving(Settings(upstream="x:y"), Scripted(["Hi."])) as url,
        aiohttp.ClientSession() as session,
        session.post(f"{url}/embeddings", json={}) as got,
    ):
        assert got.status == 404
        error = (await got.json())["error"]
    assert "OpenAI-compatible URL" in error["message"]


async def test_stored_completions_are_the_upstreams_to_list() -> None:
    async with (
        proxy(lambda _: answer({"object": "list", "data": []})) as on,
        on.session.get(f"{on.url}/chat/completions?limit=2") as got,
    ):
        assert (await got.json())["data"] == []
    assert on.upstream.seen[0].path == "/v1/chat/completions?limit=2"


async def test_a_key_of_ours_that_the_upstream_repeats_is_not_told() -> None:
    key = "sk-operator-0123456789"
    reply = answer({"error": {"message": f"Incorrect API key provided: Bearer {key}"}}, status=401)
    async with proxy(lambda _: reply, upstream_key=key) as on:
        for path in ("embeddings", "files"):
            async with on.session.post(f"{on.url}/{path}", json={}) as got:
                text = await got.text()
                assert got.status == 401
                assert key not in text
                assert "[redacted]" in text
                assert "Incorrect" in (await got.json())["error"]["message"]


async def test_whether_to_retry_is_the_upstreams_to_say() -> None:
    reply = answer({"error": {"message": "no"}}, status=409, headers={"x-should-retry": "false"})
    async with proxy(lambda _: reply) as on, on.session.post(f"{on.url}/files", json={}) as got:
        assert got.headers["x-should-retry"] == "false"
