"""LiteLLM's proxy in front of ours and behind it, set up as docs/litellm.md says."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from openai import AsyncOpenAI

from honestproxy.settings import Settings, load
from tests.proxy import DOUBT, DRAFT, MERGED, script, serving
from tests.test_repository import ROOT
from tests.upstreams import free_port, upstream

LITELLM = ROOT / ".venv-peers" / "litellm" / "bin" / "litellm"
PAGE = (ROOT / "docs" / "litellm.md").read_text("utf-8")
ALONE = {
    "PYTHONPATH": "",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_MODE": "PRODUCTION",
    "LITELLM_MASTER_KEY": "sk-litellms-own",
    "HONESTPROXY_KEY": "none",
    "PROVIDER_KEY": "provider-key",
}
"""What it is told: keys, and to look nothing up on the network."""

pytestmark = [
    pytest.mark.skipif(not LITELLM.exists(), reason="no LiteLLM: `make bench-peers` installs it"),
    pytest.mark.timeout(240),
]


def block(heading: str, kind: str) -> str:
    """The page's block of that kind below a heading."""
    found = re.search(rf"```{kind}\n(.*?)```", PAGE.partition(f"## {heading}\n")[2], re.DOTALL)
    assert found is not None
    return found[1]


@asynccontextmanager
async def litellm(config: str, folder: Path) -> AsyncIterator[AsyncOpenAI]:
    """LiteLLM's proxy under this configuration, and a client of it."""
    file, port = folder / "litellm.yaml", free_port()
    file.write_text(config)
    command = [LITELLM, "--config", file, "--port", f"{port}", "--host", "127.0.0.1"]
    with (folder / "log").open("wb") as log:
        running = await asyncio.create_subprocess_exec(
            *command, cwd=folder, env={**os.environ, **ALONE}, stdout=log, stderr=log
        )
    url = f"http://127.0.0.1:{port}"
    try:
        await _answers(f"{url}/health/liveliness", running, folder / "log")
        async with AsyncOpenAI(
            base_url=f"{url}/v1", api_key=ALONE["LITELLM_MASTER_KEY"], max_retries=0
        ) as client:
            yield client
    finally:
        running.terminate()
        await asyncio.wait_for(running.wait(), 20)


async def _answers(url: str, running: asyncio.subprocess.Process, log: Path) -> None:
    async with aiohttp.ClientSession() as session:
        while True:
            assert running.returncode is None, f"it ended: see {log}"
            try:
                async with session.get(url) as got:
                    if got.status == 200:
                        return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.2)


async def test_in_front_it_has_an_honest_model_and_a_plain_one(tmp_path: Path) -> None:
    asked = {"messages": [{"role": "user", "content": "What does it cost now?"}]}
    async with (
        upstream(script(confusion=DOUBT)) as model,
        serving(Settings(upstream=model.url, strategy="gated")) as ours,
        litellm(block("LiteLLM in front", "yaml").replace(PORT, ours), tmp_path) as client,
    ):
        chat = client.chat.completions
        honest = await chat.with_raw_response.create(model="honest", **asked)
        plain = await chat.create(model="plain", **asked)
        wish = {"honesty": {"threshold": 0.1}}
        wished = await chat.create(model="honest", **asked, extra_body=wish)
        by_header = await chat.create(model="honest", **asked, extra_headers={"X-Honesty": "raw"})
        streamed = await chat.with_raw_response.create(model="honest", **asked, stream=True)
        chunks = [chunk async for chunk in streamed.parse()]
    assert honest.parse().choices[0].message.content == MERGED
    assert honest.parse().model_extra["honesty"]["outcome"] == "rewritten"
    assert honest.headers["llm_provider-x-honesty-outcome"] == "rewritten"
    assert plain.choices[0].message.content == DRAFT
    assert by_header.choices[0].message.content == DRAFT
    assert wished.choices[0].message.content == DRAFT
    assert wished.model_extra["honesty"]["outcome"] == "draft_kept"
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == MERGED
    assert streamed.headers["llm_provider-x-honesty-strategy"] == "gated"
    assert not any("honesty" in (chunk.model_extra or {}) for chunk in chunks)


async def test_behind_it_is_an_upstream_like_any_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LITELLM_MASTER_KEY", ALONE["LITELLM_MASTER_KEY"])
    file = tmp_path / "honestproxy.toml"
    asked = {"model": "m", "messages": [{"role": "user", "content": "What does it cost now?"}]}
    async with upstream(script(confusion=DOUBT)) as model:
        config = block("LiteLLM behind", "yaml").replace("http://127.0.0.1:8000/v1", model.url)
        async with litellm(config, tmp_path) as direct:
            theirs = str(direct.base_url).rstrip("/")
            file.write_text(
                block("LiteLLM behind", "toml").replace("http://127.0.0.1:4000/v1", theirs)
            )
            async with (
                serving(load(file)) as ours,
                AsyncOpenAI(base_url=ours, api_key="any", max_retries=0) as client,
            ):
                whole = await client.chat.completions.create(**asked)
                stream = await client.chat.completions.create(**asked, stream=True)
                chunks = [chunk async for chunk in stream]
        keys = {seen.headers["Authorization"] for seen in model.seen if seen.body}
    assert whole.choices[0].message.content == MERGED
    assert whole.model_extra["honesty"]["calls"] == 3
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == MERGED
    assert chunks[-1].model_extra["honesty"]["outcome"] == "rewritten"
    assert keys == {"Bearer provider-key"}


PORT = "http://127.0.0.1:8400/v1"
