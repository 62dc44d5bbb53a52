"""The backend over litellm, which calls a scripted server on loopback."""

import asyncio
import inspect
import json
import sys
from contextlib import asynccontextmanager

import pytest

from honestproxy.backends.litellm import PASSED_BY_NAME, LiteLLM, load
from honestproxy.errors import (
    BackendError,
    HonestProxyError,
    InvalidRequest,
    SettingsError,
    UpstreamBroken,
    UpstreamError,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from honestproxy.settings import Settings
from honestproxy.types import ChatRequest
from tests.upstreams import Reply, answer, chunk, completion, event, events, free_port, upstream

# litellm looks at every attribute of pydantic's models.
pytestmark = pytest.mark.filterwarnings("ignore:Accessing the 'model_:DeprecationWarning")

KEY = "sk-operator-0123456789"
MESSAGES = [{"role": "user", "content": "Hi"}]


def ask(sent_with=None, **fields):
    return ChatRequest({"model": "m", "messages": MESSAGES, **fields}, headers=sent_with)


@pytest.fixture(autouse=True)
def _no_keys_of_ours(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-environment-0123456789")


@pytest.fixture
def point_at(monkeypatch):
    return lambda url: monkeypatch.setenv("OPENAI_API_BASE", url)


@pytest.fixture
def serving(point_at):
    @asynccontextmanager
    async def serve(*script, spec="openai/gpt-4o", **options):
        async with upstream(*script) as server:
            point_at(server.url)
            made = LiteLLM(spec, Settings(**options))
            try:
                yield server, made
            finally:
                await made.aclose()

    return serve


async def failure(call):
    with pytest.raises(HonestProxyError) as caught:
        await call
    return caught.value


async def gathered(stream):
    return [chunk async for chunk in stream]


async def test_an_answer_comes_as_the_provider_gave_it(serving):
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    body = completion(system_fingerprint="fp", extra={"a": 1})
    body["choices"][0]["message"] |= {"tool_calls": [call], "reasoning_content": "hm"}
    async with serving(answer(body, headers={"x-request-id": "r", "Server": "s"})) as (_, remote):
        response = await remote.complete(ask())
    assert response.text == "Paris."
    assert response.message["tool_calls"] == [call]
    assert response.message["reasoning_content"] == "hm"
    assert response.get("extra") == {"a": 1}
    assert response.usage["total_tokens"] == 7
    assert response.headers == {"x-request-id": "r"}
    assert b"null" not in response.raw
    assert b"hidden" not in response.raw


async def test_a_refusal_is_kept_where_the_api_has_it(serving):
    body = completion(None)
    body["choices"][0]["message"]["refusal"] = "I won't."
    async with serving(answer(body)) as (_, remote):
        message = (await remote.complete(ask())).message
    assert message["refusal"] == "I won't."
    assert message["content"] is None


async def test_every_field_arrives_at_an_openai_compatible_provider(serving):
    fields = {"temperature": 0.5, "top_k": 3, "metadata": {"a": "b"}, "seed": 1, "min_p": 0.1}
    async with serving(answer(completion())) as (server, remote):
        await remote.complete(ask(**fields))
    assert server.seen[0].json() == {"model": "gpt-4o", "messages": MESSAGES, **fields}


HOSTILE = {
    "api_base": "http://127.0.0.1:9/v1",
    "base_url": "http://127.0.0.1:9/v1",
    "api_key": "theirs",
    "api_version": "v",
    "custom_llm_provider": "anthropic",
    "mock_response": "mocked",
    "mock_timeout": True,
    "mock_tool_calls": [],
    "headers": {"x-evil": "1"},
    "extra_headers": {"x-evil": "1"},
    "default_headers": {"x-evil": "1"},
    "callbacks": ["x"],
    "success_callback": ["x"],
    "fallbacks": ["gpt-4"],
    "context_window_fallback_dict": {"m": "n"},
    "num_retries": 9,
    "max_retries": 9,
    "timeout": 0.001,
    "request_timeout": 0.001,
    "metadata": {"model_info": {"id": "x"}},
    "drop_params": True,
    "additional_drop_params": ["messages"],
    "model_list": [{}],
    "organization": "o",
    "deployment_id": "d",
    "client": "c",
    "caching": True,
    "extra_body": {"model": "evil"},
    "litellm_params": {"api_base": "x"},
    "litellm_logging_obj": "x",
    "litellm_system_prompt": "obey",
    "prompt_id": "p",
    "text_completion": True,
    "acompletion": False,
    "logger_fn": "x",
    "verbose": True,
    "ssl_verify": False,
    "no-log": True,
    "input_cost_per_token": 1.0,
    "shared_session": "x",
    "azure": True,
    "_skip_mcp_handler": False,
}


async def test_a_client_cannot_give_litellm_orders(serving):
    async with serving(answer(completion()), upstream_key=KEY) as (server, remote):
        response = await remote.complete(ask(**HOSTILE))
    sent = server.seen[0]
    assert response.text == "Paris."
    assert sent.path == "/v1/chat/completions"
    assert sent.headers["Authorization"] == f"Bearer {KEY}"
    assert "x-evil" not in sent.headers
    assert sent.json() == {"model": "gpt-4o", "messages": MESSAGES, **HOSTILE}


async def test_no_option_of_litellm_is_passed_by_name():
    litellm = load()
    orders = {*litellm.all_litellm_params, "model_list", "base_url", "api_version", "extra_headers"}
    orders |= {"shared_session", "deployment_id", "enable_json_schema_validation"}
    assert not PASSED_BY_NAME & orders
    known = set(inspect.signature(litellm.acompletion).parameters) - orders
    ours = {"model", "messages", "stream", "timeout", "api_key", "kwargs"}
    unasked = {"include_server_side_tool_invocations"}
    assert known - ours - unasked <= PASSED_BY_NAME


@pytest.mark.parametrize(
    ("settings_key", "header", "sent"),
    [
        (KEY, "Bearer theirs-0123", KEY),
        (None, "Bearer theirs-0123", "theirs-0123"),
        (None, "Basic dTpw", "sk-environment-0123456789"),
        (None, None, "sk-environment-0123456789"),
    ],
)
async def test_which_key_goes_up(serving, settings_key, header, sent):
    headers = {"Idempotency-Key": "i", **({"Authorization": header} if header else {})}
    async with serving(answer(completion()), upstream_key=settings_key) as (server, remote):
        await remote.complete(ask(headers))
    assert server.seen[0].headers["Authorization"] == f"Bearer {sent}"
    assert server.seen[0].headers["Idempotency-Key"] == "i"


@pytest.mark.parametrize(
    ("spec", "sent"),
    [("openai/gpt-4o", "gpt-4o"), ("openai/*", "m"), ("openai/", "m"), ("openai/a/b", "a/b")],
)
async def test_which_model_is_asked(serving, spec, sent):
    async with serving(answer(completion()), spec=spec) as (server, remote):
        await remote.complete(ask())
    assert server.seen[0].json()["model"] == sent


async def test_models_are_the_specs():
    assert [m["id"] for m in await LiteLLM("openai/gpt-4o", Settings()).models()] == [
        "openai/gpt-4o"
    ]
    assert await LiteLLM("openai/*", Settings()).models() == []


async def test_an_open_spec_needs_a_model_in_the_request():
    request = ChatRequest({"messages": MESSAGES})
    error = await failure(LiteLLM("openai/*", Settings()).complete(request))
    assert isinstance(error, InvalidRequest)
    assert error.param == "model"


async def test_a_request_cannot_name_a_server_as_its_model():
    remote = LiteLLM("huggingface/*", Settings(upstream_key=KEY))
    error = await failure(remote.complete(ask(model="http://127.0.0.1:9/v1")))
    assert isinstance(error, InvalidRequest)
    assert error.param == "model"


@pytest.mark.parametrize("spec", ["*", "/", "*/*"])
def test_a_spec_without_provider_is_refused(spec):
    with pytest.raises(SettingsError, match="<provider>"):
        LiteLLM(spec, Settings())


async def test_without_litellm_the_remedy_is_named(monkeypatch):
    remote = LiteLLM("openai/gpt-4o", Settings())
    monkeypatch.setitem(sys.modules, "litellm", None)
    error = await failure(remote.complete(ask()))
    assert isinstance(error, BackendError)
    assert "pip install 'honestproxy[litellm]'" in error.message


async def test_an_unknown_provider_is_told_of():
    error = await failure(LiteLLM("nobody/m", Settings()).complete(ask()))
    assert "nobody" in error.message


# Streams


async def test_a_stream_comes_chunk_by_chunk(serving):
    usage = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
    last = {**chunk(), "choices": [], "usage": usage}
    pieces = [event(chunk("Pa")), event(chunk("ris")), event(chunk(None, "stop")), event(last)]
    asked = ask(stream=True, stream_options={"include_usage": True})
    async with serving(events(*pieces)) as (server, remote):
        first, *chunks = await gathered(remote.stream(asked))
    assert server.seen[0].json()["stream"] is True
    assert (first.choices, first.event) == ([], b"")
    assert "".join(c.text for c in chunks) == "Paris"
    assert [c.finished for c in chunks] == [False, False, True, False]
    assert chunks[-1].choices == []
    assert chunks[-1].usage["total_tokens"] == 3


async def test_streamed_tool_calls_are_kept(serving):
    call = {"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": "{"}}
    made = chunk()
    made["choices"][0]["delta"] = {"tool_calls": [call]}
    async with serving(events(event(made), event(chunk(None, "tool_calls")))) as (_, remote):
        chunks = await gathered(remote.stream(ask()))
    assert chunks[1].delta["tool_calls"] == [call]
    assert chunks[-1].choices[0]["finish_reason"] == "tool_calls"


@pytest.mark.parametrize("then", ["end", "drop"])
async def test_a_stream_that_breaks_off_is_not_ended_properly(serving, then):
    async with serving(events(event(chunk("Hi")), done=False, then=then)) as (_, remote):
        error = await failure(gathered(remote.stream(ask())))
    assert isinstance(error, UpstreamError)
    assert error.status >= 500


@pytest.mark.parametrize("leave", ["close", "cancel"])
async def test_leaving_a_stream_closes_the_upstreams_connection(serving, leave):
    async with serving(events(event(chunk("Hi")), then="hold", done=False)) as (server, remote):
        stream = remote.stream(ask())
        assert [(await anext(stream)).text, (await anext(stream)).text] == ["", "Hi"]
        if leave == "close":
            await stream.aclose()
        else:
            waiting = asyncio.ensure_future(anext(stream))
            await asyncio.sleep(0.01)
            waiting.cancel()
        await asyncio.wait_for(server.gone.wait(), 5)


async def test_cancelling_a_call_closes_the_upstreams_connection(serving):
    async with serving(answer(b"{", then="hold")) as (server, remote):
        call = asyncio.ensure_future(remote.complete(ask()))
        await server.holding.wait()
        call.cancel()
        await asyncio.wait_for(server.gone.wait(), 5)
        with pytest.raises(asyncio.CancelledError):
            await call


# Failures


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422, 429, 500, 502, 503])
async def test_an_error_keeps_its_status_and_retry_after_and_is_asked_once(serving, status):
    body = {"error": {"message": "No way.", "type": "t", "param": None, "code": "c"}}
    reply = answer(body, status=status, headers={"Retry-After": "7"})
    async with serving(reply) as (server, remote):
        for call in (remote.complete(ask()), gathered(remote.stream(ask()))):
            error = await failure(call)
            assert isinstance(error, UpstreamError)
            assert error.status == status
            assert "No way." in error.message
            assert error.headers["retry-after"] == "7"
    assert len(server.seen) == 2


@pytest.mark.parametrize("given", ["settings", "client", "environment"])
@pytest.mark.parametrize("status", [400, 401])
async def test_a_key_that_the_provider_repeats_is_not_told(serving, given, status):
    keys = {"settings": KEY, "client": "sk-client-0123456789"}
    key = keys.get(given, "sk-environment-0123456789")
    headers = {"Authorization": f"Bearer {key}"} if given == "client" else {}
    reply = answer({"error": {"message": f"Incorrect API key: {key}."}}, status=status)
    options = {"upstream_key": key} if given == "settings" else {}
    async with serving(reply, **options) as (_, remote):
        error = await failure(remote.complete(ask(headers)))
    assert "Incorrect API key: [redacted]" in error.body()["error"]["message"]
    assert key not in json.dumps(error.body()) + str(error)


async def test_a_closed_port_is_unreachable(point_at):
    point_at(f"http://127.0.0.1:{free_port()}/v1")
    remote = LiteLLM("openai/gpt-4o", Settings())
    error = await failure(remote.complete(ask()))
    await remote.aclose()
    assert isinstance(error, UpstreamUnreachable | UpstreamError)
    assert error.status >= 500


async def test_no_answer_in_time_is_a_timeout(serving):
    async with serving(Reply([1.0]), step_timeout=0.2) as (_, remote):
        assert isinstance(await failure(remote.complete(ask())), UpstreamTimeout)


@pytest.mark.parametrize("body", [b"<html>Log in</html>", b'{"choices": [{"mes', b"{}"])
async def test_what_is_no_completion_is_not_passed_off_as_one(serving, body):
    async with serving(answer(body)) as (_, remote):
        error = await failure(remote.complete(ask()))
    assert isinstance(error, UpstreamBroken | UpstreamError)
    assert error.status >= 500


# A real server


@pytest.mark.upstream
async def test_llama_cpp_answers_whole_and_streamed(llama_server, point_at):
    point_at(llama_server)
    asked = [{"role": "user", "content": "What is the capital of France?"}]
    more = {"max_tokens": 16, "temperature": 0, "seed": 1, "messages": asked, "ignore_eos": False}
    remote = LiteLLM("openai/smollm2", Settings())
    whole = await remote.complete(ask(**more))
    chunks = await gathered(remote.stream(ask(**more, stream_options={"include_usage": True})))
    await remote.aclose()
    assert whole.text
    assert "".join(c.text for c in chunks) == whole.text
    assert chunks[-1].usage["completion_tokens"] == whole.usage["completion_tokens"]


def test_without_litellm_it_says_so_at_the_start(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(BackendError, match=r"pip install 'honestproxy\[litellm\]'"):
        LiteLLM("openai/x", Settings())
