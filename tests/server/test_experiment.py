"""Live A/B: stable arms, told in each reply; counts, costs and votes by arm."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from honestproxy.errors import SettingsError
from honestproxy.evals.records import Answered, from_line
from honestproxy.server import create_app
from honestproxy.server.access import keys
from honestproxy.server.experiment import Experiment
from honestproxy.settings import Settings, UpstreamSettings, load
from tests.proxy import DOUBT, Proxy, ask, proxy, script
from tests.readers import Reading
from tests.upstreams import Reply, answer, chunk, event

SHARES = {"raw": 50.0, "gated": 50.0}


async def arm_of(on: Proxy, user: str | None = None, **headers: str) -> str | None:
    body = ask(user=user) if user else ask()
    _, _, told = await on.post(body, **headers)
    return told.get("x-honesty-arm")


async def told(on: Proxy, path: str) -> Any:
    async with on.session.get(f"{on.url}/honesty/{path}") as got:
        return got.status, await got.text()


async def vote(on: Proxy, **body: Any) -> tuple[int, str]:
    async with on.session.post(f"{on.url}/honesty/feedback", json=body) as got:
        return got.status, await got.text()


def test_arms_come_out_as_their_shares_say() -> None:
    running = Experiment(Settings(upstream="x:y", experiment={"raw": 1, "gated": 3}))
    found = Counter(running.arm(f"user {number}") for number in range(4000))
    assert 900 < found["raw"] < 1100
    assert found["raw"] + found["gated"] == 4000


def test_a_users_arm_is_the_same_after_a_restart() -> None:
    one, other = (Experiment(Settings(upstream="x:y", experiment=SHARES)) for _ in "ab")
    users = [f"user {number}" for number in range(200)]
    assert [one.arm(user) for user in users] == [other.arm(user) for user in users]


def test_a_users_arm_is_the_same_whatever_order_the_arms_are_given_in() -> None:
    shares = [{"raw": 50, "gated": 30, "single": 20}, {"single": 20, "gated": 30, "raw": 50}]
    one, other = (Experiment(Settings(upstream="x:y", experiment=given)) for given in shares)
    users = [f"user {number}" for number in range(200)]
    assert [one.arm(user) for user in users] == [other.arm(user) for user in users]
    assert one.is_like(other)


async def test_a_user_stays_in_one_arm_and_each_reply_tells_it() -> None:
    async with proxy(script(), experiment=SHARES) as on:
        for user in ("ada", "bob", "cyd", "dan"):
            arms = {await arm_of(on, user) for _ in range(3)}
            assert len(arms) == 1
            assert arms <= {"raw", "gated"}
        by_header = {await arm_of(on, X_Honesty_User="eve") for _ in range(3)}
        assert len(by_header) == 1
        replies = [await on.post(ask(user=f"u{n}")) for n in range(12)]
    for _, body, headers in replies:
        assert headers["x-honesty-strategy"] == headers["x-honesty-arm"]
        if headers["x-honesty-arm"] == "gated":
            assert body["honesty"]["arm"] == "gated"
        else:
            assert "honesty" not in body  # raw stays byte for byte


async def test_a_client_that_chooses_is_in_no_arm() -> None:
    async with proxy(script(), experiment=SHARES) as on:
        assert await arm_of(on, X_Honesty="gated") is None
        _, body = await told(on, "experiment")
    assert all(arm["requests"] == 0 for arm in json.loads(body)["arms"].values())


async def test_counts_costs_outcomes_and_votes_are_kept_by_arm() -> None:
    async with proxy(script(confusion=DOUBT), experiment=SHARES) as on:
        replies = await asyncio.gather(*(on.post(ask(user=f"u{n}")) for n in range(30)))
        traces = {
            headers["x-honesty-trace-id"]: headers["x-honesty-arm"] for *_, headers in replies
        }
        for trace, arm in traces.items():
            assert (await vote(on, trace_id=trace, vote="up" if arm == "gated" else "down"))[
                0
            ] == 204
        some = next(iter(traces))
        assert (await vote(on, trace_id=some, vote="up", comment="After all."))[0] == 204
        _, body = await told(on, "experiment")
    arms, size = json.loads(body)["arms"], Counter(traces.values())
    assert {name: arm["requests"] for name, arm in arms.items()} == dict(size)
    assert arms["gated"]["outcomes"] == {"rewritten": size["gated"]}
    assert arms["gated"]["calls"] == 3 * size["gated"]
    assert arms["raw"]["calls"] == size["raw"]
    assert arms["gated"]["tokens"] == 21 * size["gated"]
    assert sum(sum(arm["votes"].values()) for arm in arms.values()) == 30
    assert arms["gated"]["votes"].get("up", 0) == size["gated"]
    assert arms["gated"]["seconds_p95"] >= arms["gated"]["seconds_p50"] > 0


async def test_failures_count_as_errors() -> None:
    down = answer({"error": {"message": "down"}}, status=500)
    async with proxy(script(draft=down, confusion=down), experiment=SHARES) as on:
        for number in range(10):
            await on.post(ask(user=f"u{number}", stream=number % 2 == 0))
        _, body = await told(on, "experiment")
    arms = json.loads(body)["arms"].values()
    assert sum(arm["errors"] for arm in arms) == 10
    assert sum(arm["outcomes"].get("error", 0) for arm in arms) == 10


async def test_the_export_is_a_log_that_holds_no_text() -> None:
    secret = "My PIN is 4711, what is gold?"
    async with proxy(script(confusion=DOUBT), experiment=SHARES) as on:
        for number in range(6):
            await on.post(ask(secret, user=f"u{number}"))
        status, lines = await told(on, "experiment/records")
    records = [from_line(json.loads(line)) for line in lines.splitlines()]
    assert (status, len(records)) == (200, 6)
    assert all(isinstance(record, Answered) for record in records)
    assert {record.arm for record in records} <= set(SHARES)
    assert "4711" not in lines
    assert "No live prices" not in lines  # a doubt's words may repeat the question


@pytest.mark.parametrize(
    ("step", "strategy", "error", "reason"),
    [
        ("merge", "gated", None, "merge: 400"),
        ("draft", "gated", "draft: 400", None),
        ("draft", "raw", "draft: 400", "raw"),
    ],
)
async def test_the_export_tells_failures_without_an_upstreams_words(
    step: str, strategy: str, error: str | None, reason: str | None
) -> None:
    refused = answer({"error": {"message": "can't parse: My PIN is 4711"}}, status=400)
    replies, shares = {"confusion": DOUBT, step: refused}, {strategy: 1, "curiosity": 1e-9}
    async with proxy(script(**replies), experiment=shares) as on:
        await on.post(ask("My PIN is 4711, what is gold?"))
        _, lines = await told(on, "experiment/records")
    assert "4711" not in lines
    record = json.loads(lines)
    assert record["error"] == error
    assert record["honesty"]["reason"] == reason


@pytest.mark.parametrize(
    ("body", "status", "word"),
    [
        ({"trace_id": "nowhere", "vote": "up"}, 404, "nowhere"),
        ({"trace_id": "x", "vote": "maybe"}, 400, "vote"),
        ({"vote": "up"}, 400, "trace_id"),
        ({"trace_id": "x", "vote": "up", "more": 1}, 400, "more"),
    ],
)
async def test_a_vote_that_makes_no_sense_is_refused(
    body: dict[str, Any], status: int, word: str
) -> None:
    async with proxy(script(), experiment=SHARES) as on:
        found, text = await vote(on, **body)
    assert found == status
    assert word in json.loads(text)["error"]["message"]


async def test_without_an_experiment_there_is_none_to_tell_of() -> None:
    async with proxy(script()) as on:
        for path in ("experiment", "experiment/records"):
            status, text = await told(on, path)
            assert status == 404
            assert "--experiment" in json.loads(text)["error"]["message"]
        assert await arm_of(on, "ada") is None


def test_an_arm_that_is_no_strategy_is_told_at_the_start() -> None:
    with pytest.raises(SettingsError, match="unknown arm 'gatd'; did you mean 'gated'"):
        create_app(Settings(upstream="http://x/v1", experiment={"raw": 1, "gatd": 1}))


def test_an_arm_that_clients_may_not_choose_is_told_at_the_start() -> None:
    with pytest.raises(SettingsError, match=r"'gated' is not among strategies_allowed \(raw\)"):
        Experiment(Settings(upstream="x:y", experiment=SHARES, strategies_allowed=("raw",)))
    Experiment(Settings(upstream="x:y", experiment=SHARES, strategies_allowed=("raw", "gated")))


READS = {"raw": 50.0, "introspect": 50.0}
DEAD = "http://127.0.0.1:9/v1?key=secret"


def test_an_arm_that_the_upstream_cant_have_is_told_at_the_start() -> None:
    said = r"'introspect' reads a model's hidden states, which 'http://127.0.0.1:9/v1\?key=\*\*\*'"
    with pytest.raises(SettingsError, match=said):
        create_app(Settings(upstream=DEAD, experiment=READS))


def test_an_arm_that_one_of_the_upstreams_with_models_cant_have_is_told_too() -> None:
    far = UpstreamSettings(url=DEAD)
    settings = Settings(upstream="x:y", upstreams={"far": far}, experiment=READS)
    create_app(settings, Reading(["Hello."]))
    settings.upstreams["far"] = far.model_copy(update={"models": ("gpt-*",)})
    with pytest.raises(SettingsError, match="hidden states"):
        create_app(settings, Reading(["Hello."]))


async def test_a_reload_to_an_arm_that_the_upstream_cant_have_leaves_all_as_it_was() -> None:
    app = create_app(settings := Settings(upstream=DEAD, experiment=SHARES))
    before = app.service
    with pytest.raises(SettingsError, match="hidden states"):
        await app.reload(settings.model_copy(update={"experiment": READS}))
    assert app.service is before
    await app.aclose()


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_client_that_left_is_counted_as_the_metrics_count_it(streamed: bool) -> None:
    held = Reply([event(chunk("Half"))], content_type="text/event-stream", then="hold")
    async with proxy(lambda _: held, experiment={"raw": 1, "gated": 1e-9}) as on:
        body = ask(user="one", stream=streamed)
        asking = asyncio.create_task(on.post(body))
        await on.upstream.holding.wait()
        asking.cancel()
        await on.upstream.gone.wait()
        while not (arm := json.loads((await told(on, "experiment"))[1])["arms"]["raw"])["requests"]:
            await asyncio.sleep(0.01)
    assert (arm["outcomes"], arm["errors"]) == ({"client_left": 1}, 0)


@pytest.mark.parametrize("shares", ["raw=50", "raw=0,gated=1", "raw=x,gated=1", "raw,gated=-1"])
def test_shares_that_make_no_sense_are_refused(shares: str) -> None:
    with pytest.raises(SettingsError, match="experiment"):
        load(environ={}, experiment=shares)


def test_shares_are_read_as_they_are_written_on_the_command_line() -> None:
    assert load(environ={}, experiment="raw=50, gated=50").experiment == SHARES
    assert load(environ={}, experiment="raw,gated").experiment == {"raw": 1, "gated": 1}


async def test_a_key_that_may_not_have_every_arm_takes_no_part(tmp_path: Path) -> None:
    file = tmp_path / "keys.jsonl"
    scoped, _ = keys.create(file, strategies=("gated",))
    async with proxy(script(), experiment=SHARES, keys=file, upstream_key="up") as on:
        headers = {"Authorization": f"Bearer {scoped}"}
        found = [await on.post(ask(user=f"u{n}"), **headers) for n in range(10)]
    assert {status for status, _, _ in found} == {200}
    assert not any("x-honesty-arm" in told for _, _, told in found)


async def test_only_the_key_that_asked_may_vote(tmp_path: Path) -> None:
    file = tmp_path / "keys.jsonl"
    (bob, _), (alice, _) = keys.create(file), keys.create(file)
    async with proxy(script(), experiment=SHARES, keys=file, upstream_key="up") as on:
        _, _, told = await on.post(ask(user="u"), Authorization=f"Bearer {bob}")
        body = {"trace_id": told["x-honesty-trace-id"], "vote": "up"}
        statuses = []
        for key in (alice, bob):
            sent = {"json": body, "headers": {"Authorization": f"Bearer {key}"}}
            async with on.session.post(f"{on.url}/honesty/feedback", **sent) as got:
                statuses.append(got.status)
    assert statuses == [404, 204]
