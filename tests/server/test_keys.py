"""Keys of the proxy's own: who comes in, for what, and how often."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import openai
import pytest

from honestproxy.errors import RateLimited, SettingsError
from honestproxy.server import create_app
from honestproxy.server.access import door, keys
from honestproxy.server.access.keys import Key
from honestproxy.server.access.limits import DAY, Meter, Window
from honestproxy.settings import Settings
from tests.proxy import DOUBT, DRAFT, Proxy, ask, proxy, script, step_of
from tests.upstreams import Reply, Seen, answer, chunk, completion, event, events

UPSTREAM_KEY = "sk-upstream-0123456789"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys.jsonl"


def other(seen: Seen) -> Reply:
    """What an upstream answers on paths that are only relayed, and as usual on the others."""
    if seen.path.endswith("/responses"):
        return answer({"error": {"message": "no such path"}}, status=404)
    is_ours = seen.path.endswith(("/chat/completions", "/models"))
    return script(confusion=DOUBT)(seen) if is_ours else answer({"data": []})


@asynccontextmanager
async def keyed(file: Path, *replies: Any, **settings: Any) -> AsyncIterator[Proxy]:
    """A proxy with keys, whose upstream has a key of its own."""
    async with proxy(
        replies[0] if replies else script(), keys=file, upstream_key=UPSTREAM_KEY, **settings
    ) as on:
        yield on


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


async def got(
    on: Proxy, path: str, key: str | None = None, method: str = "GET", **more: Any
) -> tuple[int, Any, Mapping[str, str]]:
    url = f"{on.url.removesuffix('/v1')}{path}"
    headers = bearer(key) if key else {}
    async with on.session.request(method, url, headers=headers, **more) as response:
        body = await response.read()
        is_json = response.headers.get("content-type", "") == "application/json"
        return response.status, json.loads(body) if is_json else body, response.headers


async def asked(on: Proxy, key: str, **more: Any) -> tuple[int, Any, Mapping[str, str]]:
    return await on.post(ask(**more), Authorization=f"Bearer {key}")


def write(file: Path, text: str) -> None:
    file.write_text(text)


def remove(file: Path) -> None:
    file.unlink()


def change_mode(file: Path, mode: int) -> None:
    file.chmod(mode)


async def eventually(is_so: Any) -> None:
    for _ in range(500):
        if is_so():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it never came to be")


# The door ---------------------------------------------------------------------------------------


async def test_a_key_opens_the_door_and_never_goes_upstream(file: Path) -> None:
    key, _ = keys.create(file)
    async with keyed(file, other) as on:
        client = on.client.with_options(api_key=key)
        reply = await client.chat.completions.create(**ask())
        assert reply.choices[0].message.content
        await client.responses.create(model="m", input="Hi.")
        await client.embeddings.create(model="m", input="x", encoding_format="float")
        await client.models.list()
    for seen in on.upstream.seen:
        assert seen.headers["Authorization"] == f"Bearer {UPSTREAM_KEY}"
        assert key not in str(dict(seen.headers)) + seen.body.decode()
    assert len(on.upstream.seen) >= 6


async def test_where_the_upstream_needs_no_key_none_is_sent(file: Path) -> None:
    key, _ = keys.create(file)
    async with proxy(other, keys=file) as on:
        assert (await on.post(ask(), Authorization=f"Bearer {key}", x_api_key=key))[0] == 200
        assert (await got(on, "/v1/files", key))[0] == 200
        assert (await got(on, "/v1/models", key))[0] == 200
    for seen in on.upstream.seen:
        assert not {"authorization", "x-api-key"} & {name.lower() for name in seen.headers}


PATHS = [
    ("POST", "/v1/chat/completions"),
    ("POST", "//v1//chat/completions/"),
    ("POST", "/v1/responses"),
    ("POST", "/v1/embeddings"),
    ("GET", "/v1/files"),
    ("DELETE", "/v1/files/1"),
    ("GET", "/v1/models"),
    ("GET", "/v1/models/m"),
    ("GET", "/v1/honesty/traces/1"),
    ("DELETE", "/v1/honesty/traces/1"),
    ("POST", "/v1/honesty/feedback"),
    ("GET", "/v1/honesty/experiment"),
    ("GET", "/metrics"),
    ("GET", "/openapi.json"),
    ("GET", "/nowhere"),
]


@pytest.mark.parametrize(("method", "path"), PATHS)
async def test_without_a_key_nothing_is_answered(file: Path, method: str, path: str) -> None:
    keys.create(file)
    async with keyed(file) as on:
        sent = {"json": ask()} if method == "POST" else {}
        status, body, told = await got(on, path, method=method, **sent)
    assert status == 401
    assert body["error"]["code"] == "invalid_api_key"
    assert body["error"]["type"] == "invalid_request_error"
    assert told["www-authenticate"].startswith("Bearer")
    assert on.upstream.seen == []


@pytest.mark.parametrize("path", ["/", "/page/page.js", "/page/about.json", "/healthz"])
async def test_the_page_and_whether_it_lives_are_for_everyone(file: Path, path: str) -> None:
    keys.create(file)
    async with keyed(file) as on:
        assert (await got(on, path))[0] == 200


def variants_of(key: str) -> dict[str, str]:
    prefix, name, secret = key.split("-", 2)
    return {
        "nothing": "",
        "not one of ours": "sk-0123456789",
        "no secret": f"{prefix}-{name}",
        "an empty secret": f"{prefix}-{name}-",
        "a cut secret": key[:-1],
        "a longer one": f"{key}x",
        "another's id": f"{prefix}-{'0' * 12}-{secret}",
        "another prefix": f"sk-{name}-{secret}",
        "the digest": f"{prefix}-{name}-{'0' * 64}",
        "other letters": key.upper(),
        "not ASCII": f"{prefix}-{name}-é",
    }


@pytest.mark.parametrize("kind", list(variants_of("hp-a-b")))
async def test_what_is_nearly_a_key_is_none_and_is_not_repeated(file: Path, kind: str) -> None:
    key, _ = keys.create(file)
    given = variants_of(key)[kind]
    async with keyed(file) as on:
        status, body, _ = await on.post(ask(), Authorization=f"Bearer {given}")
        assert status == 401
        assert body["error"]["code"] == "invalid_api_key"
        assert len(given) < 8 or given not in json.dumps(body, ensure_ascii=False)
    assert on.upstream.seen == []


async def test_the_sdk_raises_its_own_errors_for_ours(file: Path) -> None:
    keys.create(file)
    key, _ = keys.create(file, models=("gpt-*",))
    async with keyed(file) as on:
        with pytest.raises(openai.AuthenticationError, match="honestproxy keys create"):
            await on.client.with_options(api_key="").chat.completions.create(**ask())
        with pytest.raises(openai.PermissionDeniedError, match=r"gpt-\*"):
            await on.client.with_options(api_key=key).chat.completions.create(**ask())


@pytest.mark.parametrize(
    "headers",
    [
        lambda key: {"x_api_key": key},
        lambda key: {"x_api_key": key, "Authorization": "Bearer none"},
        lambda key: {"Authorization": f"bearer  {key} "},
        lambda key: {"Authorization": key},
    ],
)
async def test_a_key_may_come_in_either_header(file: Path, headers: Any) -> None:
    key, _ = keys.create(file)
    async with keyed(file) as on:
        assert (await on.post(ask(), **headers(key)))[0] == 200


async def test_an_expired_or_revoked_key_is_refused_like_any_other(file: Path) -> None:
    expired, _ = keys.create(file, expires=int(time.time()) - 1)
    revoked, made = keys.create(file)
    keys.revoke(file, made.id)
    async with keyed(file) as on:
        replies = [await asked(on, key) for key in (expired, revoked, "hp-x-y")]
    assert {status for status, _, _ in replies} == {401}
    assert len({json.dumps(body) for _, body, _ in replies}) == 1


async def test_what_the_door_turned_away_is_counted(file: Path) -> None:
    admin, _ = keys.create(file, admin=True)
    async with keyed(file) as on:
        for _ in range(3):
            await asked(on, "hp-nearly-one")
        _, told, _ = await got(on, "/metrics", admin)
    assert "honestproxy_keys_refused_total 3.0" in told.decode()


async def test_without_keys_the_clients_own_goes_upstream() -> None:
    async with proxy(script()) as on:
        await on.client.chat.completions.create(**ask())
    assert {s.headers["Authorization"] for s in on.upstream.seen} == {"Bearer client-key"}


# The file ---------------------------------------------------------------------------------------


async def test_a_running_proxy_notices_new_and_revoked_keys(file: Path) -> None:
    first, made = keys.create(file)
    async with keyed(file) as on:
        assert (await asked(on, first))[0] == 200
        second, _ = keys.create(file)
        keys.revoke(file, made.id)
        statuses: dict[str, int] = {}
        for _ in range(300):
            statuses = {key: (await asked(on, key))[0] for key in (first, second)}
            if statuses == {first: 401, second: 200}:
                break
            await asyncio.sleep(0.02)
        assert statuses == {first: 401, second: 200}


async def test_a_file_that_breaks_leaves_the_keys_in_force_and_says_so(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    key, _ = keys.create(file)
    good = keys.read(file)
    async with keyed(file) as on:
        for damage in ("{not json}\n", '{"id": "cut off'):
            caplog.clear()
            write(file, damage)
            await eventually(lambda: "stay in force" in caplog.text)
            assert "line 1" in caplog.text
            assert (await asked(on, key))[0] == 200
        caplog.clear()
        remove(file)
        await eventually(lambda: "doesn't exist" in caplog.text)
        assert (await asked(on, key))[0] == 200
        second, _ = keys.create(file)
        for _ in range(300):
            if (await asked(on, second))[0] == 200:
                break
            await asyncio.sleep(0.02)
        assert set(keys.read(file)) != set(good)
        assert [(await asked(on, one))[0] for one in (key, second)] == [401, 200]


async def test_a_watch_outlasts_whatever_is_wrong_with_the_file(
    file: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level("INFO", "honestproxy")
    key, made = keys.create(file)
    async with keyed(file) as on:
        with monkeypatch.context() as broken:
            broken.setattr(keys, "_read_line", lambda *_: 1 / 0)
            os.utime(file, (1, 1))
            await eventually(lambda: "ZeroDivisionError" in caplog.text)
        assert (await asked(on, key))[0] == 200
        keys.revoke(file, made.id)
        await eventually(lambda: caplog.messages[-1].endswith("again"))
        assert (await asked(on, key))[0] == 401


@pytest.mark.skipif(os.name == "nt", reason="modes")
async def test_a_file_that_could_not_be_read_once_is_read_as_soon_as_it_can_be(
    file: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door, "_LOOKED_AT", 0.01)
    key, made = keys.create(file)
    async with keyed(file) as on:
        keys.revoke(file, made.id)
        change_mode(file, 0o644)
        await eventually(lambda: "chmod 600" in caplog.text)
        await asyncio.sleep(0.1)
        assert caplog.text.count("stay in force") == 1
        assert (await asked(on, key))[0] == 200
        change_mode(file, 0o600)
        await asyncio.sleep(0.1)
        assert (await asked(on, key))[0] == 401


def test_a_byte_that_is_no_text_is_told_with_its_line(file: Path) -> None:
    keys.create(file)
    with file.open("ab") as end:
        end.write(b'{"id": "\xff"}\n')
    with pytest.raises(SettingsError, match="line 2: this is not UTF-8 text"):
        keys.read(file)


async def test_a_reload_reads_the_file_at_once_and_refuses_a_broken_one(file: Path) -> None:
    keys.create(file)
    settings = Settings(upstream="http://127.0.0.1:9/v1", keys=file)
    app = create_app(settings)
    key, _ = keys.create(file)
    await app.reload(settings)
    assert app.service.access.caller({"authorization": f"Bearer {key}"}).id
    write(file, "broken")
    with pytest.raises(SettingsError, match="line 1"):
        await app.reload(settings)
    assert app.service.access.caller({"authorization": f"Bearer {key}"}).id
    await app.service.aclose()


@pytest.mark.skipif(os.name == "nt", reason="modes")
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o602, 0o644])
def test_a_file_that_others_can_open_is_refused(file: Path, mode: int) -> None:
    keys.create(file)
    file.chmod(mode)
    with pytest.raises(SettingsError, match="chmod 600"):
        create_app(Settings(upstream="http://127.0.0.1:9/v1", keys=file))


def test_a_file_that_is_not_there_says_how_to_make_one(file: Path) -> None:
    with pytest.raises(SettingsError, match="honestproxy keys create"):
        create_app(Settings(upstream="http://127.0.0.1:9/v1", keys=file))


def test_the_file_holds_no_key_and_only_its_owner_reads_it(file: Path) -> None:
    key, made = keys.create(file, name="app")
    secret = key.split("-", 2)[2]
    text = file.read_text()
    assert secret not in text
    assert key[:-4] not in text
    assert made.tail == key[-4:]
    assert len(secret) == 43
    if os.name != "nt":
        assert file.stat().st_mode & 0o777 == 0o600


@pytest.fixture
def someone_elses(file: Path, monkeypatch: pytest.MonkeyPatch) -> Key:
    """A key in a file that seems to be another user's, and is read by its group."""
    _, made = keys.create(file)
    file.chmod(0o640)
    monkeypatch.setattr(os, "geteuid", lambda: file.stat().st_uid + 1)
    return made


@pytest.mark.skipif(os.name == "nt", reason="owners")
def test_a_file_that_another_user_changes_stays_its_owners(
    file: Path, someone_elses: Key, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, given = file.stat(), []
    monkeypatch.setattr(os, "fchown", lambda _, *owner: given.append(owner))
    keys.revoke(file, someone_elses.id)
    assert keys.read(file)[someone_elses.id].revoked
    assert given == [(before.st_uid, before.st_gid)]
    assert file.stat().st_mode == before.st_mode


@pytest.mark.skipif(os.name == "nt" or os.geteuid() != 0, reason="only root gives files away")
def test_what_root_revokes_its_owner_still_reads(file: Path) -> None:
    _, made = keys.create(file)
    os.chown(file, 4711, 4712)
    keys.revoke(file, made.id)
    now = file.stat()
    assert (now.st_uid, now.st_gid, now.st_mode & 0o777) == (4711, 4712, 0o600)
    assert Path(f"{file}.lock").stat().st_uid == 4711


@pytest.mark.skipif(os.name == "nt", reason="owners")
def test_a_file_that_can_not_stay_its_owners_is_left_as_it_is(
    file: Path, someone_elses: Key, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: int) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    before = file.read_bytes()
    monkeypatch.setattr(os, "fchown", refuse)
    with pytest.raises(SettingsError, match="as the file's owner"):
        keys.revoke(file, someone_elses.id)
    assert file.read_bytes() == before
    assert [path.name for path in file.parent.iterdir() if path.name.startswith(".")] == []


def test_keys_that_are_made_at_once_are_all_kept(file: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: keys.create(file)[1].id, range(24)))
    assert set(keys.read(file)) == set(made)
    assert [path.name for path in file.parent.iterdir() if path.name.startswith(".")] == []


# Scopes -----------------------------------------------------------------------------------------


async def test_a_model_that_the_key_is_not_for_is_refused_with_those_it_is(file: Path) -> None:
    key, _ = keys.create(file, models=("gpt-*", "m"))
    async with keyed(file) as on:
        for path in ("/v1/chat/completions", "/v1/responses", "/v1/embeddings"):
            body = ask(input="x") | {"model": "o3"}
            status, reply, _ = await got(on, path, key, "POST", json=body)
            assert status == 403
            assert "gpt-*, m" in reply["error"]["message"]
        assert on.upstream.seen == []
        assert (await asked(on, key, model="gpt-4o"))[0] == 200
        assert (await asked(on, key, model="m@raw"))[0] == 200
        assert (await asked(on, key, model="o3@raw"))[0] == 403


@pytest.mark.parametrize(
    "body",
    [
        b'{"model": "m", "model": "o3", "messages": [{"role": "user", "content": "x"}]}',
        b'{"model": "o3", "model": "m", "messages": [{"role": "user", "content": "x"}]}',
        b'{"mod\\u0065l": "o3", "model": "m", "messages": [{"role": "user", "content": "x"}]}',
        b'{"model": "m", "MODEL": "o3", "messages": [{"role": "user", "content": "x"}]}',
        b'{"model": "m", "models": ["o3"], "messages": [{"role": "user", "content": "x"}]}',
        b'{"model": "m", "fallbacks": [{"model": "o3"}], "messages": []}',
    ],
)
@pytest.mark.parametrize("path", ["chat/completions", "responses", "embeddings"])
async def test_no_spelling_brings_another_model_past_the_scope(
    file: Path, body: bytes, path: str
) -> None:
    key, _ = keys.create(file, models=("m",))
    body = body.replace(b'"messages"', b'"input"') if path == "responses" else body
    async with keyed(file) as on:
        headers = {**bearer(key), "Content-Type": "application/json", "X-Honesty": "raw"}
        async with on.session.post(f"{on.url}/{path}", data=body, headers=headers) as reply:
            await reply.read()
    for seen in on.upstream.seen:
        assert b"o3" not in seen.body


async def test_the_strategy_that_answers_is_the_one_that_counts(file: Path) -> None:
    key, _ = keys.create(file, strategies=("gated",))
    async with keyed(file, strategy="gated", experiment={"gated": 1, "single": 1}) as on:
        for wish in ({"model": "m@raw"}, {"honesty": {"strategy": "raw"}}):
            status, reply, _ = await asked(on, key, **wish)
            assert status == 403
            assert "allowed are gated" in reply["error"]["message"]
        # It can't fall to every arm, so it falls to none.
        assert {(await asked(on, key, user=str(n)))[0] for n in range(12)} == {200}
        assert (await asked(on, key, honesty={"strategy": "gated"}))[0] == 200
    assert {step_of(s.json()) for s in on.upstream.seen if s.body} == {"draft", "confusion"}


async def test_a_default_that_the_key_may_not_use_is_refused(file: Path) -> None:
    key, _ = keys.create(file, strategies=("raw",))
    async with keyed(file, strategy="gated") as on:
        assert (await asked(on, key))[0] == 403
        assert (await asked(on, key, honesty={"strategy": "raw"}))[0] == 200


async def test_what_is_only_relayed_counts_as_raw(file: Path) -> None:
    key, _ = keys.create(file, strategies=("gated",))
    async with keyed(file, other) as on:
        assert (await got(on, "/v1/completions", key, "POST", json={"model": "m"}))[0] == 403
        assert (await got(on, "/v1/files", key))[0] == 200


async def test_a_body_that_names_no_model_is_not_relayed_for_a_key_with_models(
    file: Path,
) -> None:
    key, _ = keys.create(file, models=("m",))
    async with keyed(file, other) as on:
        for sent in ({"json": {"input": "x"}}, {"json": {"model": 1}}, {"json": ["m"]}, {}):
            assert (await got(on, "/v1/embeddings", key, "POST", **sent))[0] == 403
        upload = {"data": b"--x--", "headers": bearer(key)}
        upload["headers"]["Content-Type"] = "multipart/form-data; boundary=x"
        async with on.session.post(f"{on.url}/audio/transcriptions", **upload) as reply:
            assert reply.status == 415
        assert on.upstream.seen == []
        body = {"model": "m", "input": "x"}
        assert (await got(on, "/v1/embeddings", key, "POST", json=body))[0] == 200
    assert on.upstream.seen[-1].json() == body


async def test_models_are_listed_as_the_key_may_use_them(file: Path) -> None:
    key, _ = keys.create(file, models=("gpt-*",), strategies=("gated",))
    replies = script()
    replies.models = ["gpt-4o", "o3"]
    async with keyed(file, replies) as on:
        _, listed, _ = await got(on, "/v1/models", key)
        assert [row["id"] for row in listed["data"]] == ["gpt-4o", "gpt-4o@gated"]
        assert (await got(on, "/v1/models/gpt-4o", key))[0] == 200
        status, body, _ = await got(on, "/v1/models/o3", key)
        assert status == 403
        status, body, _ = await got(on, "/v1/models/gpt-5", key)
        assert "o3" not in json.dumps(body)


ADMINS = ["/metrics", "/v1/honesty/experiment", "/v1/honesty/experiment/records"]


@pytest.mark.parametrize("path", [*ADMINS, "/v1/honesty/traces", "/v1/honesty/whatever"])
async def test_what_is_about_everyone_is_for_admins(file: Path, path: str) -> None:
    key, _ = keys.create(file)
    admin, _ = keys.create(file, admin=True)
    async with keyed(file, experiment={"raw": 1, "gated": 1}) as on:
        assert (await got(on, path, key))[0] == 403
        assert (await got(on, path, admin))[0] in ({200} if path in ADMINS else {200, 404})


async def test_a_trace_is_for_the_key_that_made_it_and_for_admins(file: Path) -> None:
    mine, _ = keys.create(file)
    other, _ = keys.create(file)
    admin, _ = keys.create(file, admin=True)
    async with keyed(file) as on:
        _, _, told = await on.post(ask(), Authorization=f"Bearer {mine}", X_Honesty_Trace="keep")
        path = f"/v1/honesty/traces/{told['x-honesty-trace-id']}"
        assert (await got(on, path, other))[0] == (await got(on, f"{path}0", other))[0] == 404
        assert (await got(on, path, other, "DELETE"))[0] == 404
        assert (await got(on, path, admin))[0] == 200
        status, trace, _ = await got(on, path, mine)
        assert status == 200
        assert trace["steps"][0]["text"] == DRAFT
        assert (await got(on, path, mine, "DELETE"))[0] == 204
        assert (await got(on, path, mine))[0] == 404


# Limits -----------------------------------------------------------------------------------------


async def test_requests_over_the_limit_wait_and_each_reply_tells_what_is_left(
    file: Path,
) -> None:
    key, _ = keys.create(file, rpm=2)
    other, _ = keys.create(file, rpm=2)
    async with keyed(file) as on:
        for left in ("1", "0"):
            status, _, told = await asked(on, key)
            assert status == 200
            assert told["x-ratelimit-limit-requests"] == "2"
            assert told["x-ratelimit-remaining-requests"] == left
            assert told["x-ratelimit-reset-requests"].endswith("s")
        calls = len(on.upstream.seen)
        for path in ("chat/completions", "responses", "embeddings"):
            status, reply, told = await got(on, f"/v1/{path}", key, "POST", json=ask())
            assert status == 429
            assert reply["error"]["code"] == "rate_limit_exceeded"
            assert 1 <= int(told["retry-after"]) <= 60
            assert told["x-ratelimit-remaining-requests"] == "0"
        assert len(on.upstream.seen) == calls
        assert (await asked(on, other))[0] == 200


def limited(seen: Seen) -> Reply:
    reply = script()(seen)
    return Reply(
        reply.pieces,
        headers={"x-ratelimit-limit-requests": "9999", "x-request-id": "up-1"},
        content_type=reply.content_type,
    )


@pytest.mark.parametrize("path", ["chat/completions", "embeddings"])
@pytest.mark.parametrize("streamed", [False, True])
async def test_an_upstreams_own_limits_are_told_where_the_key_has_none(
    file: Path, path: str, streamed: bool
) -> None:
    free, _ = keys.create(file)
    key, _ = keys.create(file, rpm=5)
    async with keyed(file, limited, strategy="raw") as on:
        for one, limit in ((free, "9999"), (key, "5")):
            body = ask(stream=streamed)
            _, _, told = await got(on, f"/v1/{path}", one, "POST", json=body)
            assert told.getall("x-ratelimit-limit-requests") == [limit]
            assert told["x-request-id"] == "up-1"


USAGE = {"prompt_tokens": 60, "completion_tokens": 40, "total_tokens": 100}


@pytest.mark.parametrize(
    ("path", "more"),
    [
        ("chat/completions", {}),
        ("chat/completions", {"stream": True, "stream_options": {"include_usage": True}}),
        ("embeddings", {}),
    ],
)
async def test_tokens_are_counted_wherever_they_are_spent(
    file: Path, path: str, more: dict[str, Any]
) -> None:
    def spends(seen: Seen) -> Reply:
        if seen.json().get("stream"):
            last = event({**chunk(), "choices": [], "usage": USAGE})
            return events(event(chunk("Hi.")), event(chunk(None, "stop")), last)
        return answer(completion("Hi.", usage=USAGE))

    key, _ = keys.create(file, tpm=150)
    async with keyed(file, spends, strategy="raw") as on:
        for status in (200, 200, 429):
            got_status, _, told = await got(on, f"/v1/{path}", key, "POST", json=ask(**more))
            assert got_status == status
            assert told["x-ratelimit-limit-tokens"] == "150"
        assert told["x-ratelimit-remaining-tokens"] == "0"


@pytest.mark.parametrize("path", ["chat/completions", "completions"])
async def test_asking_for_no_usage_does_not_make_tokens_free(file: Path, path: str) -> None:
    spoken = events(*[event(chunk("word ")) for _ in range(50)], event(chunk(None, "stop")))
    key, _ = keys.create(file, tpm=40)
    async with keyed(file, lambda _: spoken, strategy="raw") as on:
        assert (await got(on, f"/v1/{path}", key, "POST", json=ask(stream=True)))[0] == 200
        assert (await got(on, f"/v1/{path}", key, "POST", json=ask(stream=True)))[0] == 429


async def test_what_is_only_read_again_costs_no_tokens(file: Path) -> None:
    key, _ = keys.create(file, spend=50)
    async with keyed(file, lambda _: answer(completion(usage=USAGE)), strategy="raw") as on:
        for _ in range(3):
            assert (await got(on, "/v1/responses/resp_1", key))[0] == 200
        assert [(await asked(on, key))[0] for _ in range(2)] == [200, 429]


async def test_a_key_that_has_spent_its_day_is_told_until_when(file: Path) -> None:
    key, _ = keys.create(file, spend=7)
    async with keyed(file, strategy="raw") as on:
        assert (await asked(on, key))[0] == 200
        status, reply, told = await asked(on, key)
    assert status == 429
    assert reply["error"]["code"] == "insufficient_quota"
    assert 1 <= int(told["retry-after"]) <= DAY
    assert told["x-should-retry"] == "false"


async def test_what_was_counted_stays_so_over_a_reload(file: Path) -> None:
    key, _ = keys.create(file, rpm=1)
    settings = Settings(upstream="http://127.0.0.1:9/v1", keys=file)
    app = create_app(settings)
    caller = app.service.access.caller({"x-api-key": key})
    app.service.access.admitted(caller)
    await app.reload(settings.model_copy(update={"strategy": "raw"}))
    with pytest.raises(RateLimited):
        app.service.access.admitted(caller)
    await app.service.aclose()


def test_a_window_slides_by_the_second() -> None:
    window = Window()
    for second in (0, 0, 10, 59):
        window.forget(second)
        window.add(second, 1)
    assert window.total == 4
    assert window.wait(59, 4) == 1
    assert window.wait(59, 2) == 11
    assert window.wait(59, 5) == 0
    window.forget(60)
    assert window.total == 2
    window.forget(119)
    assert (window.total, window.age) == (0, 0)


def test_never_more_than_the_limit_in_any_minute() -> None:
    key, meter, admitted = Key("k", "", 0, rpm=7), Meter(), []
    for tick in range(3000):
        try:
            meter.admit(key, tick // 10, 0)
        except RateLimited:
            continue
        admitted.append(tick // 10)
    for start in range(300):
        assert sum(start <= second < start + 60 for second in admitted) <= 7
    assert len(admitted) == 7 * 5


def test_a_day_is_over_at_midnight() -> None:
    key, meter = Key("k", "", 0, spend=10), Meter()
    meter.admit(key, 0, 5)
    meter.use(10, 0, 5)
    with pytest.raises(RateLimited):
        meter.admit(key, 1, 5)
    meter.admit(key, 2, 6)


async def test_what_a_store_remembers_of_today_is_spent(file: Path) -> None:
    key, made = keys.create(file, spend=100)
    app = create_app(Settings(upstream="http://127.0.0.1:9/v1", keys=file))
    app.service.access.meters.seed({made.id: 100, "other": 1})
    with pytest.raises(RateLimited):
        app.service.access.admitted(app.service.access.caller({"x-api-key": key}))
    await app.service.aclose()
