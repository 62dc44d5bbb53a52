"""`GET /metrics` over real HTTP: what is counted, that it is exact, and what is never told."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Mapping

import httpx
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as plain

from honestproxy.server import create_app
from honestproxy.settings import Settings
from tests.proxy import DOUBT, ask, proxy, script
from tests.upstreams import Reply, answer, completion, event, upstream

OPENMETRICS = "application/openmetrics-text; version=1.0.0"
ERROR = {"error": {"message": "secret-words", "type": "x", "code": "secret-code"}}


async def read(running, accept: str = "") -> str:
    url = running.url.removesuffix("/v1") + "/metrics"
    async with running.session.get(url, headers={"Accept": accept}) as got:
        assert got.status == 200
        return await got.text()


def by_labels(text: str) -> dict[tuple[str, frozenset], float]:
    """Every sample's value by its name and labels."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in plain(text)
        for sample in family.samples
    }


async def samples(running) -> dict[tuple[str, frozenset], float]:
    return by_labels(await read(running))


def at(found: Mapping[tuple[str, frozenset], float], name: str, **labels: str) -> float:
    """The value of one sample; 0 where it isn't there."""
    return found.get((f"honestproxy_{name}", frozenset(labels.items())), 0.0)


def total(found: Mapping[tuple[str, frozenset], float], name: str) -> float:
    return sum(value for (known, _), value in found.items() if known == f"honestproxy_{name}")


async def counted(running, wanted: int) -> dict[tuple[str, frozenset], float]:
    """The samples, once so many requests have ended."""
    async with asyncio.timeout(10):
        while total(found := await samples(running), "requests_total") < wanted:
            await asyncio.sleep(0.01)
    return found


def names(families) -> set[str]:
    return {sample.name for family in families for sample in family.samples}


def done(**labels: str) -> dict[str, str]:
    return {"api": "chat", "status": "200"} | labels


async def test_a_rewritten_answer_is_counted_with_its_doubts_calls_and_tokens():
    async with proxy(script(confusion=DOUBT)) as running:
        await running.post(ask())
        found = await samples(running)
    whole = done(strategy="gated", outcome="rewritten")
    assert at(found, "requests_total", **whole) == total(found, "requests_total") == 1
    assert at(found, "doubts_total", kind="latest_information") == 1
    assert total(found, "doubts_total") == 1
    for step in ("draft", "confusion", "merge"):
        assert at(found, "calls_total", step=step, result="ok") == 1
        assert at(found, "tokens_total", step=step, direction="input") == 5
        assert at(found, "tokens_total", step=step, direction="output") == 2
        assert at(found, "call_duration_seconds_count", step=step) == 1
    assert at(found, "request_duration_seconds_count", api="chat", strategy="gated") == 1
    assert total(found, "first_chunk_seconds_count") == 0


@pytest.mark.parametrize("strategy", ["raw", "gated"])
async def test_a_stream_is_counted_with_the_time_of_its_first_event(strategy):
    async with proxy(script()) as running:
        wish = {"honesty": {"strategy": strategy}, "stream_options": {"include_usage": True}}
        body = json.dumps(ask(stream=True, **wish))
        headers = {"Content-Type": "application/json"}
        url = f"{running.url}/chat/completions"
        async with running.session.post(url, data=body, headers=headers) as got:
            await got.read()
        found = await counted(running, 1)
    outcome = "passed_through" if strategy == "raw" else "draft_kept"
    assert at(found, "requests_total", **done(strategy=strategy, outcome=outcome)) == 1
    assert at(found, "first_chunk_seconds_count", strategy=strategy) == 1
    assert at(found, "calls_total", step="draft", result="ok") == 1
    assert at(found, "tokens_total", step="draft", direction="output") == 2


async def test_each_kind_of_end_is_counted_once():
    refused = answer(ERROR, status=429)
    async with proxy(script(draft=refused)) as running:
        bodies = [ask(), b"{", ask(honesty={"strategy": "raw"}), ask(honesty={"strategy": "x"})]
        statuses = [(await running.post(body))[0] for body in bodies]
        statuses.append((await running.post(ask(), Origin="http://foreign.example"))[0])
        async with running.session.post(f"{running.url}/other", json=ask()) as got:
            statuses.append(got.status)
        found = await samples(running)
    assert statuses == [429, 400, 429, 400, 403, 429]
    known = {"gated": ("429", "error"), "raw": ("429", "error")}
    for strategy, (status, outcome) in known.items():
        labels = done(strategy=strategy, status=status, outcome=outcome)
        assert at(found, "requests_total", **labels) == 1
    for status, number in {"400": 2, "403": 1}.items():
        labels = done(strategy="none", status=status, outcome="error")
        assert at(found, "requests_total", **labels) == number
    relayed = {"api": "relay", "strategy": "none", "status": "429", "outcome": "passed_through"}
    assert at(found, "requests_total", **relayed) == 1
    assert total(found, "requests_total") == len(statuses)
    assert at(found, "calls_total", step="draft", result="429") == 2


@pytest.mark.parametrize("strategy", ["raw", "gated"])
@pytest.mark.parametrize("streamed", [True, False])
async def test_a_client_that_leaves_is_counted_as_one_that_left(strategy, streamed):
    async with proxy(lambda _: Reply(then="hold")) as running:
        body = ask(stream=streamed, honesty={"strategy": strategy})
        asking = asyncio.create_task(running.post(body))
        await running.upstream.holding.wait()
        asking.cancel()
        found = await counted(running, 1)
    labels = {"strategy": strategy, "status": "499", "outcome": "client_left"}
    assert at(found, "requests_total", **done(**labels)) == total(found, "requests_total") == 1
    assert at(found, "calls_total", step="draft", result="cancelled") == 1
    assert total(found, "call_duration_seconds_count") == 0


async def test_a_client_that_leaves_in_mid_stream_keeps_the_status_that_it_was_sent():
    pieces = Reply([event({"choices": []})], content_type="text/event-stream", then="hold")
    async with proxy(lambda _: pieces, stream_head_wait=0.01) as running:
        body = json.dumps(ask(stream=True, honesty={"strategy": "raw"}))
        headers = {"Content-Type": "application/json"}
        url = f"{running.url}/chat/completions"
        async with running.session.post(url, data=body, headers=headers) as got:
            await got.content.readany()
        found = await counted(running, 1)
    assert at(found, "requests_total", **done(strategy="raw", outcome="client_left")) == 1


async def test_a_stream_that_breaks_off_is_an_error_behind_a_good_status():
    broken = Reply([event({"choices": []})], content_type="text/event-stream", then="drop")
    async with proxy(lambda _: broken) as running:
        await running.session.post(
            f"{running.url}/chat/completions",
            data=json.dumps(ask(stream=True, honesty={"strategy": "raw"})),
            headers={"Content-Type": "application/json"},
        )
        found = await counted(running, 1)
    assert at(found, "requests_total", **done(strategy="raw", outcome="error")) == 1
    assert at(found, "calls_total", step="draft", result="upstream_broken") == 1


async def test_what_failed_is_told_by_kind_and_never_in_an_upstreams_words():
    failing = answer(ERROR, status=503)
    async with proxy(script(confusion=failing), retries=0) as running:
        await running.post(ask("secret-question", model="secret-model"))
        text = await read(running)
        found = await samples(running)
    assert at(found, "requests_total", **done(strategy="gated", outcome="draft_fallback")) == 1
    assert at(found, "calls_total", step="confusion", result="503") == 1
    assert "secret" not in text


async def test_nothing_that_a_client_or_an_upstream_says_becomes_a_label():
    odd = {"prompt_tokens": 10**400, "completion_tokens": "secret", "total_tokens": -1}
    said = completion("secret-answer", model="secret-model", usage=odd, id="secret-id")
    async with proxy(script(draft=answer(said))) as running:
        for _ in range(3):
            body = ask("secret-question", model="secret\n{}", user="secret-user")
            await running.post(body, X_Honesty="raw", X_Request_Id="secret-request")
        await running.session.post(f"{running.url}/secret-path?secret-query", json=ask())
        text = await read(running)
        found = await samples(running)
    assert "secret" not in text
    assert total(found, "requests_total") == 4
    assert at(found, "calls_total", step="draft", result="ok") == 3


async def test_many_at_once_are_each_counted_exactly_once():
    async with proxy(script(confusion=DOUBT)) as running:
        kinds = ({"strategy": "raw"}, {"strategy": "gated"}, {"strategy": "nonsense"})
        asked = [running.post(ask(honesty=kinds[n % 3])) for n in range(120)]
        statuses = [status for status, _, _ in await asyncio.gather(*asked)]
        found = await samples(running)
    assert sorted(statuses) == [200] * 80 + [400] * 40
    assert at(found, "requests_total", **done(strategy="raw", outcome="passed_through")) == 40
    assert at(found, "requests_total", **done(strategy="gated", outcome="rewritten")) == 40
    assert total(found, "requests_total") == 120
    assert total(found, "calls_total") == 40 + 3 * 40
    assert at(found, "doubts_total", kind="latest_information") == 40


async def test_both_formats_are_told_and_each_as_asked():
    async with proxy(script()) as running:
        await running.post(ask())
        url = running.url.removesuffix("/v1") + "/metrics"
        async with running.session.get(url) as got:
            assert got.headers["Content-Type"].startswith("text/plain; version=")
            old = names(plain(await got.text()))
        async with running.session.get(url, headers={"Accept": OPENMETRICS}) as got:
            assert got.headers["Content-Type"].startswith("application/openmetrics-text")
            new = names(openmetrics(await got.text()))
    assert "honestproxy_requests_total" in new
    assert old == new


async def test_names_follow_prometheus_conventions():
    async with proxy(script(confusion=DOUBT)) as running:
        await running.post(ask())
        families = list(plain(await read(running)))
    for family in (f for f in families if f.name.startswith("honestproxy_")):
        assert family.documentation.endswith("."), family.name
        for sample in family.samples:
            assert not sample.name.endswith("_created")
            assert sample.name.endswith("_total") == (family.type == "counter"), sample.name
        if family.type == "histogram":
            assert family.name.endswith("_seconds")
    assert {"process_resident_memory_bytes", "process_open_fds"} <= {f.name for f in families}


async def test_the_build_is_told():
    async with proxy(script()) as running:
        families = {family.name: family for family in plain(await read(running))}
    (sample,) = families["honestproxy_build_info"].samples
    assert sample.value == 1
    assert set(sample.labels) == {"version", "python"}


async def test_without_metrics_there_is_no_such_path():
    async with proxy(script(), metrics=False) as running:
        await running.post(ask())
        url = running.url.removesuffix("/v1") + "/metrics"
        async with running.session.get(url) as got:
            assert got.status == 404
            assert "metrics" in (await got.json())["error"]["message"]


async def test_two_proxies_in_one_process_count_apart():
    async with proxy(script()) as one, proxy(script()) as other:
        await one.post(ask())
        assert total(await samples(one), "requests_total") == 1
        assert total(await samples(other), "requests_total") == 0


async def test_what_waits_and_what_is_turned_away_is_told():
    hold = Reply(then="hold")
    limits = {"max_concurrency": 1, "max_queue": 1, "queue_timeout": 60.0}
    async with proxy(lambda _: hold, **limits) as running:
        asking = [asyncio.create_task(running.post(ask())) for _ in range(2)]
        await running.upstream.holding.wait()
        async with asyncio.timeout(10):
            while at(await samples(running), "requests_queued") < 1:
                await asyncio.sleep(0.01)
        assert (await running.post(ask()))[0] == 429
        found = await samples(running)
        for task in asking:
            task.cancel()
        ended = await counted(running, 3)
    assert at(found, "requests_in_flight") == 1
    assert at(found, "requests_shed_total") == 1
    refused = {"strategy": "none", "status": "429", "outcome": "error"}
    assert at(found, "requests_total", **done(**refused)) == 1
    assert (at(ended, "requests_in_flight"), at(ended, "requests_queued")) == (0, 0)


async def test_an_upstream_that_is_left_alone_is_down():
    async with proxy(script(draft=answer({}, status=500)), breaker_failures=2) as running:
        assert at(await samples(running), "upstream_up", upstream="default") == 1
        for _ in range(3):
            await running.post(ask(honesty={"strategy": "raw"}))
        found = await samples(running)
    assert at(found, "upstream_up", upstream="default") == 0
    assert at(found, "calls_total", step="draft", result="upstream_unavailable") == 1


async def test_retries_and_answers_of_a_fallback_are_counted_by_upstream():
    down = answer({}, status=503)
    async with upstream(script()) as spare:
        others = {"spare": {"url": spare.url}}
        chain = {"upstreams": others, "fallbacks": ("spare",), "strategy": "raw"}
        async with proxy(lambda _: down, **chain) as running:
            before = await samples(running)
            for _ in range(3):
                assert (await running.post(ask()))[0] == 200
            found = await samples(running)
    assert at(before, "retries_total", upstream="default") == 0
    assert at(found, "retries_total", upstream="default") == 3
    assert at(found, "retries_total", upstream="spare") == 0
    assert at(found, "fallbacks_total", upstream="spare") == 3


async def test_answers_from_a_cache_are_counted_and_cost_no_calls():
    async with proxy(script(confusion=DOUBT), answer_cache="memory") as running:
        for _ in range(3):
            await running.post(ask())
        found = await samples(running)
    assert at(found, "answer_cache_lookups_total", result="miss") == 1
    assert at(found, "answer_cache_lookups_total", result="hit") == 2
    assert at(found, "requests_total", **done(strategy="gated", outcome="rewritten")) == 3
    assert at(found, "calls_total", step="draft", result="ok") == 1
    assert at(found, "doubts_total", kind="latest_information") == 1


async def test_traces_are_counted_as_they_are_written(tmp_path):
    store = f"sqlite:///{tmp_path / 'traces.db'}"
    async with proxy(script(), trace_store=store) as running:
        for _ in range(3):
            await running.post(ask())
        async with asyncio.timeout(10):
            while at(found := await samples(running), "traces_written_total") < 3:
                await asyncio.sleep(0.01)
    assert at(found, "traces_pending") == at(found, "traces_shed_total") == 0


async def test_what_was_counted_outlives_a_reload():
    async with upstream(script()) as server:
        settings = Settings(upstream=server.url)
        app = create_app(settings)
        inside = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=inside, base_url="http://127.0.0.1") as client:
            for strategy in ("gated", "raw"):
                await app.reload(settings.model_copy(update={"strategy": strategy}))
                await client.post("/v1/chat/completions", json=ask())
            text = (await client.get("/metrics")).text
        await app.service.aclose()
    found = by_labels(text)
    assert at(found, "requests_total", **done(strategy="gated", outcome="draft_kept")) == 1
    assert at(found, "requests_total", **done(strategy="raw", outcome="passed_through")) == 1
    assert at(found, "reloads_total", result="done") == 2


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_settings_that_are_refused_are_counted(tmp_path):
    config = tmp_path / "honestproxy.toml"
    good = 'upstream = "tests.played:gold"\nport = 0\ntraces = "off"\n'
    config.write_text(good)
    command = [sys.executable, "-m", "honestproxy", "serve", "--config", str(config), "--json"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            url = json.loads(process.stdout.readline())["url"].removesuffix("v1") + "metrics"
            for text, result in (("nonsense = 1\n", "refused"), ('strategy = "raw"\n', "done")):
                config.write_text(good + text)
                process.send_signal(signal.SIGHUP)
                process.stderr.readline()  # it says what became of it
                with urllib.request.urlopen(url, timeout=20) as got:
                    found = by_labels(got.read().decode())
                assert at(found, "reloads_total", result=result) == 1
        finally:
            process.kill()
