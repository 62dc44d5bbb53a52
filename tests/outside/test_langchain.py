"""LangChain's own suite for chat models, with `ChatOpenAI` through the proxy over real HTTP."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import pytest
import pytest_asyncio

from tests.able import KEY, Able
from tests.outside.environments import installed, run
from tests.proxy import proxy

pytestmark = pytest.mark.asyncio(loop_scope="module")

SUITE = Path(__file__).parent / "langchain"
SKIPPED = {
    "test_anthropic_inputs": "Anthropic's API",
    "test_image_tool_message": "OpenAI's API takes no images from tools",
    "test_pdf_tool_message": "OpenAI's API takes no files from tools",
    "test_stream_time": "a benchmark of recordings",
}


CHAT = ["TestRaw", "TestGated", "TestGatedInDoubt"]
RESPONSES = ["TestRawResponses", "TestGatedResponses", "TestGatedResponsesInDoubt"]


@dataclass(frozen=True)
class Ran:
    """A run of the suite: what became of each test by class, and what the upstream was asked."""

    outcomes: dict[str, dict[str, str]]
    steps: Counter[tuple[str, str, str]]
    printed: str


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """All strategies in one run."""
    python = installed("langchain")
    report = tmp_path_factory.mktemp("langchain") / "report.xml"
    options = ["-c", SUITE / "pytest.ini", f"--junitxml={report}", "-q", "--no-header"]
    able = Able()
    async with proxy(able) as on:
        env = {"PROXY_URL": on.url, "PROXY_KEY": KEY}
        _, printed = await run(python, "-m", "pytest", *options, SUITE / "suite.py", env=env)
    return Ran(_read(report), able.steps, printed)


def _read(report: Path) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for case in ElementTree.parse(report).iter("testcase"):
        kinds = {child.tag for child in case} & {"failure", "error", "skipped"}
        cases = found.setdefault(case.attrib["classname"].rpartition(".")[2], {})
        cases[case.attrib["name"]] = kinds.pop() if kinds else "passed"
    return found


@pytest.mark.parametrize("through", [*CHAT, *RESPONSES])
async def test_langchain_passes_all_that_the_api_has_a_part_for(ran: Ran, through: str) -> None:
    told = ran.outcomes[through]
    assert {name for name, became in told.items() if became == "skipped"} == {*SKIPPED}, ran.printed
    assert Counter(told.values()) == {"passed": 46, "skipped": 4}, ran.printed


@pytest.mark.parametrize("api", ["chat", "responses"])
async def test_all_strategies_really_ran(ran: Ran, api: str) -> None:
    assert ran.steps[api, "m", "draft"] > ran.steps[api, "m", "confusion"] > 0
    assert ran.steps[api, "m", "merge"] == 0
    assert ran.steps[api, "unsure", "confusion"] > ran.steps[api, "unsure", "merge"] > 0
