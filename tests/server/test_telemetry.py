"""Spans as a collector on loopback gets them, and the W3C context as the upstream gets it."""

import asyncio
import json
import subprocess
import sys
from contextlib import asynccontextmanager

import httpx
import pytest
from pydantic import ValidationError

from honestproxy.errors import SettingsError
from honestproxy.server import create_app
from honestproxy.settings import Settings, load
from tests.collector import collector
from tests.proxy import DOUBT, ask, proxy, script, step_of
from tests.upstreams import Reply, answer, completion, event, free_port, upstream

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
FROM_CLIENT = {"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": "vendor=secret-state"}


def sent(running) -> dict[str, list[str]]:
    """The parts of the `traceparent` that each step's request carried upstream."""
    seen = [one for one in running.upstream.seen if one.body]
    return {step_of(one.json()): one.headers["traceparent"].split("-") for one in seen}


@asynccontextmanager
async def traced(replies):
    """A proxy and the collector of its spans, which has them all once this is left."""
    async with collector() as found, proxy(replies, otlp_endpoint=found.url) as running:
        yield running, found


async def streamed(running, body) -> bytes:
    headers = {"Content-Type": "application/json"}
    url = f"{running.url}/chat/completions"
    async with running.session.post(url, data=json.dumps(body), headers=headers) as got:
        return await got.read()


async def test_a_request_is_a_span_and_each_call_one_below_it():
    async with traced(script(confusion=DOUBT)) as (running, found):
        _, reply, _ = await running.post(ask(temperature=0.5, max_tokens=50))
        carried = sent(running)
    (server,) = found.of("SERVER")
    assert server.name == "POST /v1/chat/completions"
    assert server.parent_id == ""
    assert not server.is_error
    assert {call.attributes["honestproxy.step"] for call in found.of("CLIENT")} == {*carried}
    for call in found.of("CLIENT"):
        assert (call.trace_id, call.parent_id) == (server.trace_id, server.span_id)
        assert server.started <= call.started <= call.ended <= server.ended
        step = call.attributes["honestproxy.step"]
        version, trace, parent, flags = carried[step]
        assert (version, trace, parent) == ("00", server.trace_id, call.span_id)
        assert int(flags, 16) & 1
    told = server.attributes
    assert told["http.response.status_code"] == 200
    assert told["honestproxy.trace_id"] == reply["honesty"]["trace_id"]
    assert (told["honestproxy.strategy"], told["honestproxy.outcome"]) == ("gated", "rewritten")
    assert (told["honestproxy.doubts"], told["honestproxy.confidence"]) == (1, 0.2)
    assert told["honestproxy.doubts.latest_information"] == 1
    assert found.resource["service.name"] == "honestproxy"


async def test_calls_are_told_by_the_conventions_for_generative_ai():
    async with traced(script()) as (running, found):
        await running.post(ask(temperature=0.5, max_tokens=50, seed=7))
        port = int(running.upstream.url.split(":")[2].removesuffix("/v1"))
    draft = found.one(honestproxy_step="draft")
    assert draft.name == "chat m"
    assert draft.attributes == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "m",
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.max_tokens": 50,
        "gen_ai.request.seed": 7,
        "gen_ai.response.model": "m",
        "gen_ai.response.id": "chatcmpl-1",
        "gen_ai.response.finish_reasons": ["stop"],
        "gen_ai.usage.input_tokens": 5,
        "gen_ai.usage.output_tokens": 2,
        "server.address": "127.0.0.1",
        "server.port": port,
        "honestproxy.step": "draft",
    }
    confusion = found.one(honestproxy_step="confusion").attributes
    assert confusion["gen_ai.prompt.name"] == "gated/confusion"
    assert confusion["gen_ai.prompt.version"]


@pytest.mark.parametrize("strategy", ["raw", "gated"])
async def test_a_stream_tells_as_much_as_a_whole_answer(strategy):
    async with traced(script()) as (running, found):
        usage = {"stream_options": {"include_usage": True}}
        await streamed(running, ask(stream=True, honesty={"strategy": strategy}, **usage))
    draft = found.one(honestproxy_step="draft").attributes
    assert draft["gen_ai.request.stream"] is True
    assert draft["gen_ai.response.finish_reasons"] == ["stop"]
    assert draft["gen_ai.response.model"] == "m"
    assert (draft["gen_ai.usage.input_tokens"], draft["gen_ai.usage.output_tokens"]) == (5, 2)


@pytest.mark.parametrize("strategy", ["raw", "gated"])
async def test_a_clients_trace_goes_on(strategy):
    async with traced(script()) as (running, found):
        await running.post(ask(honesty={"strategy": strategy}), **FROM_CLIENT)
        draft = running.upstream.seen[0]
        carried = sent(running)["draft"]
    (server,) = found.of("SERVER")
    assert (server.trace_id, server.parent_id) == (TRACE, PARENT)
    assert carried[1:3] == [TRACE, found.one(honestproxy_step="draft").span_id]
    assert draft.headers["tracestate"] == FROM_CLIENT["tracestate"]


async def test_a_trace_that_cant_be_read_is_begun_anew_without_its_state():
    async with traced(script()) as (running, found):
        broken = {"traceparent": "00-nonsense-01", "tracestate": "vendor=x"}
        await running.post(ask(honesty={"strategy": "raw"}), **broken)
        (draft,) = running.upstream.seen
    (server,) = found.of("SERVER")
    assert server.parent_id == ""
    assert draft.headers["traceparent"].split("-")[1] == server.trace_id
    assert "tracestate" not in draft.headers


async def test_a_trace_that_its_client_doesnt_sample_is_passed_on_and_not_sent():
    async with traced(script()) as (running, found):
        unsampled = {"traceparent": f"00-{TRACE}-{PARENT}-00"}
        await running.post(ask(), **unsampled)
        carried = sent(running)
    assert found.spans == []
    for version, trace, parent, flags in carried.values():
        assert (version, trace, flags) == ("00", TRACE, "00")
        assert parent != PARENT


async def test_opentelemetrys_own_variables_say_what_is_sampled(monkeypatch):
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
    async with traced(script()) as (running, found):
        assert (await running.post(ask()))[0] == 200
    assert found.spans == []


async def test_opentelemetrys_own_variables_switch_it_off(monkeypatch):
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    async with traced(script()) as (running, found):
        assert (await running.post(ask(), **FROM_CLIENT))[0] == 200
        (seen, *_) = running.upstream.seen
    assert found.spans == []
    assert seen.headers["traceparent"].split("-")[1] == TRACE


async def test_opentelemetrys_own_variables_name_the_service(monkeypatch):
    monkeypatch.setenv("OTEL_SERVICE_NAME", "front-door")
    async with traced(script()) as (running, found):
        await running.post(ask())
    assert found.resource["service.name"] == "front-door"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OTEL_BSP_MAX_QUEUE_SIZE", "256"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "0"),
    ],
)
def test_opentelemetrys_own_variables_that_dont_fit_are_told_at_the_start(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match="OpenTelemetry's own variables") as raised:
        create_app(Settings(upstream="http://127.0.0.1:9/v1", otlp_endpoint="http://127.0.0.1:9"))
    assert raised.value.param == "otlp_endpoint"


async def test_what_fails_is_told_by_kind():
    failing = answer({"error": {"message": "secret-words", "type": "x"}}, status=429)
    async with traced(script(draft=failing)) as (running, found):
        await running.post(ask(honesty={"strategy": "raw"}))
        await running.post(b"{")
    draft = found.one(honestproxy_step="draft")
    assert draft.is_error
    assert draft.attributes["error.type"] == "429"
    statuses = [span.attributes["http.response.status_code"] for span in found.of("SERVER")]
    assert sorted(statuses) == [400, 429]
    assert not any(span.is_error for span in found.of("SERVER"))  # theirs is the mistake


async def test_a_stream_that_breaks_off_is_an_error():
    broken = Reply([event({"choices": []})], content_type="text/event-stream", then="drop")
    async with traced(lambda _: broken) as (running, found):
        await streamed(running, ask(stream=True, honesty={"strategy": "raw"}))
    assert found.one(honestproxy_step="draft").attributes["error.type"] == "upstream_broken"
    (server,) = found.of("SERVER")
    assert server.is_error
    assert server.attributes["http.response.status_code"] == 200
    assert server.attributes["honestproxy.outcome"] == "error"


@pytest.mark.parametrize("strategy", ["raw", "gated"])
async def test_a_client_that_leaves_ends_its_spans(strategy):
    async with traced(lambda _: Reply(then="hold")) as (running, found):
        asking = asyncio.create_task(running.post(ask(honesty={"strategy": strategy})))
        await running.upstream.holding.wait()
        asking.cancel()
        await running.upstream.gone.wait()
    (server,) = found.of("SERVER")
    assert server.attributes["honestproxy.outcome"] == "client_left"
    assert server.attributes["http.response.status_code"] == 499
    assert found.one(honestproxy_step="draft").attributes["error.type"] == "cancelled"


async def test_no_text_and_no_key_is_sent():
    said = answer(completion("secret-answer"))
    doubt = DOUBT.replace("No live prices here.", "secret-doubt")
    async with traced(script(draft=said, confusion=doubt)) as (running, found):
        body = ask("secret-question", user="secret-user", stop=["secret-stop"])
        await running.post(body, Authorization="Bearer secret-key", **FROM_CLIENT)
        await running.session.post(f"{running.url}/secret-path?secret-query", json=ask())
    assert len(found.spans) > 4
    assert b"secret" not in found.raw.replace(b"secret-state", b"")


async def test_names_that_are_no_utf8_are_sent_all_the_same():
    async with traced(script()) as (running, found):
        body = json.dumps(ask(honesty={"strategy": "raw"})).replace('"m"', r'"m\ud800"')
        assert (await running.post(body.encode()))[0] == 200
    assert found.one(honestproxy_step="draft").attributes["gen_ai.request.model"] == "m?"


async def test_what_is_only_relayed_is_one_span_and_the_upstreams_parent():
    async with traced(script()) as (running, found):
        await running.session.post(f"{running.url}/other", json=ask(), headers=FROM_CLIENT)
        carried = sent(running)["draft"]
    (server,) = found.spans
    assert server.name == "POST /v1/{path}"
    assert (server.trace_id, server.parent_id) == (TRACE, PARENT)
    assert carried == ["00", TRACE, server.span_id, "01"]


async def test_several_choices_share_the_calls_that_are_made():
    async with traced(script()) as (running, found):
        await running.post(ask(n=2))
        asked = len(running.upstream.seen)
    assert len(found.of("CLIENT")) == asked


async def test_spans_go_on_over_a_reload():
    async with collector() as found, upstream(script()) as server:
        settings = Settings(upstream=server.url, otlp_endpoint=found.url)
        app = create_app(settings)
        inside = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=inside, base_url="http://127.0.0.1") as client:
            for strategy in ("gated", "raw"):
                await app.reload(settings.model_copy(update={"strategy": strategy}))
                await client.post("/v1/chat/completions", json=ask())
        await app.service.aclose()
    strategies = [span.attributes["honestproxy.strategy"] for span in found.of("SERVER")]
    assert sorted(strategies) == ["gated", "raw"]


async def test_a_collector_that_is_down_costs_no_request_and_no_end():
    address = f"http://127.0.0.1:{free_port()}"
    async with asyncio.timeout(30), proxy(script(), otlp_endpoint=address) as running:
        for _ in range(3):
            assert (await running.post(ask()))[0] == 200


async def test_a_collector_that_hangs_holds_nothing_up(caplog):
    async with (
        asyncio.timeout(30),
        collector(hangs=True) as found,
        proxy(script(), otlp_endpoint=found.url) as running,
    ):
        assert (await running.post(ask()))[0] == 200
    assert "hasn't taken the last spans" in caplog.text


async def test_without_a_collector_the_clients_own_context_goes_on():
    async with proxy(script()) as running:
        await running.post(ask(), **FROM_CLIENT)
        for seen in running.upstream.seen:
            assert {name: seen.headers[name] for name in FROM_CLIENT} == FROM_CLIENT


def test_opentelemetrys_own_variable_names_the_collector_where_ours_doesnt():
    theirs, ours = "http://theirs:4318", "http://ours:4318"
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": theirs}
    assert load(environ=environ).otlp_endpoint == theirs
    assert load(environ=environ | {"HONESTPROXY_OTLP_ENDPOINT": ours}).otlp_endpoint == ours
    assert load(environ={}).otlp_endpoint is None


@pytest.mark.parametrize(
    "address", ["collector:4318", "ftp://collector", "http://", "http://host:many", "http://host:0"]
)
def test_an_address_that_is_none_is_told_at_once(address):
    with pytest.raises(ValidationError, match="otlp_endpoint"):
        Settings(otlp_endpoint=address)


def test_a_missing_extra_is_told_with_its_remedy():
    code = """
import sys
sys.modules["opentelemetry.sdk.trace"] = None  # as if it weren't installed
from honestproxy.errors import SettingsError
from honestproxy.server import create_app
from honestproxy.settings import Settings, load
try:
    create_app(Settings(upstream="http://127.0.0.1:9/v1", otlp_endpoint="http://127.0.0.1:9"))
except SettingsError as error:
    print(error.message)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'honestproxy[otel]'" in done.stdout


def test_opentelemetrys_sdk_is_imported_only_for_a_collector():
    code = """
import sys
from honestproxy.server import create_app
from honestproxy.settings import Settings, load
create_app(Settings(upstream="http://127.0.0.1:9/v1"))
print([name for name in sys.modules if name.startswith("opentelemetry.sdk")])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
