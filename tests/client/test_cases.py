"""The wrapped client of both SDKs as a strict client: each case of tests/outside/sdk/cases.py."""

from __future__ import annotations

import json
import sys
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.able import KEY, Able
from tests.client.test_openai3 import packages
from tests.outside.environments import run
from tests.outside.sdk.case import Case
from tests.outside.sdk.cases import CASES
from tests.outside.test_sdks import departed
from tests.upstreams import upstream

pytestmark = pytest.mark.asyncio(loop_scope="module")

HERE = Path(__file__).parent
SDKS = ["2", "3"]
STRATEGIES = ["raw", "gated"]
# A connection that breaks is raised here as without us: see test_wrapped.py.
ASKED = [case for case in CASES if case.ask.get("model") != "breaks"]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ran(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """What one SDK's own process says of all cases."""
    sdk, strategy = request.param
    file = tmp_path_factory.mktemp("cases") / "cases.json"
    file.write_text(json.dumps([case.data() for case in ASKED]), "utf-8")
    path = [*([str(packages())] if sdk == "3" else []), str(HERE.parent.parent)]
    async with upstream(Able()) as above:
        command = [sys.executable, HERE / "cases.py", file, above.url, KEY, strategy]
        code, printed = await run(*command, env={"PYTHONPATH": ":".join(path)})
        assert code == 0, printed
        told = json.loads(printed.splitlines()[-1])  # warnings may come before it
        assert told["version"].startswith(f"{sdk}.")
        return {"strategy": strategy, "left": await departed(above), **told["results"]}


def pairs() -> list[Any]:
    """Each run and each case."""
    return [
        pytest.param((sdk, strategy), case, id=f"openai {sdk}, {strategy}: {case.name}")
        for sdk, strategy in product(SDKS, STRATEGIES)
        for case in ASKED
    ]


@pytest.mark.parametrize(("ran", "case"), pairs(), indirect=["ran"], scope="module")
async def test_what_the_wrapped_client_makes_of_it(ran: dict[str, Any], case: Case) -> None:
    expected = case.expect | (case.gated if ran["strategy"] == "gated" else {}) | case.python
    result = ran[case.name]
    assert {name: result[name] for name in expected} == expected, result


@pytest.mark.parametrize("ran", [*product(SDKS, STRATEGIES)], indirect=True, ids=", ".join)
async def test_the_upstream_sees_a_wrapped_client_leave(ran: dict[str, Any]) -> None:
    assert sorted(body.get("stream", False) for body in ran["left"]) == [False, True]
