"""`honestproxy.ray:app` on Serve: proxies before an upstream, and one before a model of its own."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import sys
from asyncio.subprocess import PIPE, STDOUT, Process
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
import yaml
from openai import AsyncOpenAI, NotFoundError
from ray.serve.schema import ServeDeploySchema
from spread import nodes

from honestproxy.errors import SettingsError
from honestproxy.ray import app, build_app
from honestproxy.ray.serving import Arguments, Ingress
from honestproxy.settings import load
from tests.proxy import DOUBT, DRAFT, MERGED, script
from tests.upstreams import Reply, Upstream, chunk, event, free_port, upstream

DEPLOY = Path(__file__).parents[3] / "deploy" / "ray"
ASK = {"messages": [{"role": "user", "content": "What does gold cost?"}]}
READY_WITHIN = 120
UNENDING = Reply([event(chunk("begun "))], content_type="text/event-stream", then="hold")


class Served:
    """Both applications, and the upstream of the first."""

    def __init__(self, port: int, above: Upstream) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.above = above
        self.client = AsyncOpenAI(base_url=f"{self.url}/v1", api_key="none", max_retries=0)
        self.apart = self.client.with_options(base_url=f"{self.url}/apart/v1")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def served(address: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    """The command `serve run`, with a file like that in deploy/, and both applications ready."""
    folder, port = tmp_path_factory.mktemp("serve"), free_port()
    (folder / "honestproxy.toml").write_text('strategy = "gated"\ntraces = "off"\n', "utf-8")
    replies = script(confusion=DOUBT)
    async with upstream(lambda seen: _unending(seen) or replies(seen)) as above:
        config = _config(port, folder / "honestproxy.toml", above.url)
        (folder / "serve.yaml").write_text(yaml.safe_dump(config), "utf-8")
        command = (Path(sys.executable).with_name("serve"), "run", "--address", address)
        process = await asyncio.create_subprocess_exec(
            *command, folder / "serve.yaml", stdout=PIPE, stderr=STDOUT
        )
        printed = asyncio.create_task(process.stdout.read())
        on = Served(port, above)
        try:
            await _ready(on, process, printed)
            yield on
        finally:
            process.send_signal(signal.SIGINT)
            await asyncio.wait_for(process.wait(), 60)
            await on.client.close()


def _unending(seen: Any) -> Reply | None:
    """For the model `unending`, an answer that never ends."""
    return UNENDING if seen.body and seen.json()["model"] == "unending" else None


def _config(port: int, file: Path, url: str) -> dict[str, Any]:
    """The file that is deployed, with another port, and a second application."""
    config = yaml.safe_load((DEPLOY / "serve.yaml").read_text("utf-8"))
    config["http_options"]["port"] = port
    [first] = config["applications"]
    first["args"] = {"config": str(file), "upstream": url, "replicas": 2, "cpus": 0.5}
    less = {"cpus": 0.5, "model_cpus": 0.5, "strategy": "introspect", "traces": "off"}
    apart = {"upstream": "tests.outside.cluster.apart:reads", "apart": True, **less}
    second = {**first, "name": "apart", "route_prefix": "/apart", "args": apart}
    return {**config, "applications": [first, second]}


async def _ready(on: Served, process: Process, printed: asyncio.Task[bytes]) -> None:
    try:
        async with asyncio.timeout(READY_WITHIN):
            while not await _lists(on):
                if process.returncode is not None:
                    raise AssertionError((await printed).decode())
                await asyncio.sleep(0.2)
    except TimeoutError:
        process.kill()
        raise AssertionError((await printed).decode()) from None


async def _lists(on: Served) -> bool:
    async with aiohttp.ClientSession() as session:
        for path in ("/v1/models", "/apart/v1/models"):
            try:
                async with session.get(on.url + path) as got:
                    if got.status != 200:
                        return False
            except aiohttp.ClientError:
                return False
    return len(nodes.processes("ServeReplica:honestproxy:Proxy")) == 2


async def test_answers_are_as_honest_as_the_proxys_own(served):
    reply = await served.client.chat.completions.create(model="m", **ASK)
    assert reply.choices[0].message.content == MERGED
    assert reply.model_extra["honesty"]["outcome"] == "rewritten"
    raw = await served.client.chat.completions.create(model="m@raw", **ASK)
    assert raw.choices[0].message.content == DRAFT


async def test_streams_come_with_their_end(served):
    stream = await served.client.chat.completions.create(model="m", stream=True, **ASK)
    chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == MERGED
    assert chunks[-1].model_extra["honesty"]["outcome"] == "rewritten"


@pytest.mark.parametrize("streamed", [True, False])
async def test_the_upstream_sees_a_client_leave(served, streamed):
    left = len(served.above.left)
    served.above.holding.clear()
    asking = served.client.chat.completions.create(model="unending@raw", stream=streamed, **ASK)
    task = asyncio.ensure_future(asking)
    if streamed:
        stream = await task
        await anext(aiter(stream))
        await stream.close()
    else:
        await asyncio.wait_for(served.above.holding.wait(), 10)
        task.cancel()
    async with asyncio.timeout(10):
        while len(served.above.left) == left:
            await asyncio.sleep(0.01)


async def test_a_model_apart_answers_and_is_read_through_its_handle(served):
    reply = await served.apart.chat.completions.create(model="scripted", **ASK)
    said = reply.choices[0].message.content
    assert said.startswith("I should be upfront: I can't look anything up")
    assert said.endswith("See a dealer.")
    told = reply.model_extra["honesty"]
    assert (told["strategy"], told["doubts"][0]["kind"]) == ("introspect", "latest_information")
    stream = await served.apart.chat.completions.create(model="scripted", stream=True, **ASK)
    pieces = [c.choices[0].delta.content or "" async for c in stream if c.choices]
    assert "".join(pieces) == said


async def test_a_models_refusal_keeps_its_status_and_words(served):
    with pytest.raises(NotFoundError, match="no model of that name"):
        await served.apart.chat.completions.create(model="unknown", **ASK)
    with pytest.raises(NotFoundError, match="no model of that name"):
        await served.apart.chat.completions.create(model="unknown@raw", stream=True, **ASK)


@pytest.mark.parametrize(
    ("client", "host", "status"),
    [("127.0.0.1", "127.0.0.1", 404), ("10.0.0.9", "127.0.0.1", 403), ("10.0.0.9", "0.0.0.0", 404)],
)
async def test_others_are_answered_only_where_the_settings_say_so(client, host, status):
    url = "http://127.0.0.1:9/v1"
    arguments = Arguments(upstream=url, host=host, allow_open=True, traces="off")
    ingress = Ingress(None, arguments, load(**arguments.flags))
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b""}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "GET",
        "path": "/v1/honesty/experiment",
        "root_path": "",
        "scheme": "http",
    }
    scope |= {"query_string": b"", "headers": [(b"host", b"proxy")], "client": (client, 5)}
    await ingress(scope, receive, send)
    assert sent[0]["status"] == status


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"replicas": 0}, "replicas: Input should be greater than or equal to 1"),
        ({"replicas": 3, "max_replicas": 2}, "max_replicas is below replicas"),
        ({"replica": 3}, "unknown setting 'replica'"),
        ({"upstream_key": "sk-secret"}, "say env:NAME or file:PATH"),
        ({"trace_store": "postgresql://me:word@db/traces"}, "say env:NAME or file:PATH"),
        ({"host": "0.0.0.0"}, "give the proxy keys of its own"),
        ({"config": "/nowhere/honestproxy.toml"}, "/nowhere/honestproxy.toml"),
    ],
)
def test_mistakes_are_told_before_anything_is_started(arguments, said):
    with pytest.raises(SettingsError, match=re.escape(said)) as raised:
        app({"upstream": "http://127.0.0.1:9/v1", **arguments})
    assert "sk-secret" not in str(raised.value)


def test_a_local_model_has_a_deployment_of_its_own():
    apart = build_app(Arguments(upstream="local:smollm2-135m-instruct", model_gpus=1))
    assert _deployments(apart).keys() == {"Proxy", "Model"}
    plain = build_app(Arguments(upstream="http://127.0.0.1:9/v1"))
    assert _deployments(plain).keys() == {"Proxy"}


def test_serve_scales_the_proxies_where_it_is_told_how_far():
    one = build_app(Arguments(upstream="http://127.0.0.1:9/v1", replicas=2, max_replicas=8))
    scaling = _deployments(one)["Proxy"]._deployment_config.autoscaling_config
    assert (scaling.min_replicas, scaling.max_replicas) == (2, 8)
    assert scaling.target_ongoing_requests == 64


def _deployments(application: Any) -> dict[str, Any]:
    from ray.serve._private.build_app import build_app as built

    return {one.name: one for one in built(application, name="honestproxy").deployments}


@pytest.mark.parametrize("name", ["serve.yaml", "vllm.yaml"])
def test_the_files_to_deploy_are_what_serve_takes(name):
    config = yaml.safe_load((DEPLOY / name).read_text("utf-8"))
    ServeDeploySchema.model_validate(config)
    ours = [one for one in config["applications"] if one["import_path"] == "honestproxy.ray:app"]
    assert len(ours) == 1
    settings = {**ours[0]["args"], "config": None, "upstream": "http://127.0.0.1:9/v1"}
    Arguments(**settings)
    assert json.dumps(config)
