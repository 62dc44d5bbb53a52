"""Ray: a cluster of two nodes in a network of its own, and what is asked of it (cluster/).

Serve's replicas listen on all interfaces, so that the suite runs in a namespace that has none but
loopback; where none is granted, it is skipped by name, and in CI that is an error.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest
import pytest_asyncio

from tests.outside.environments import installed, run

# Starting a cluster and a dozen runs on it take a minute or two, and longer on a busy machine.
pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(900)]

SUITE = Path(__file__).parent / "cluster"
BENCHMARKS = SUITE.parents[2] / "benchmarks"
FILES = ["serving.py", "evaluating.py"]
NOT_GRANTED = 77


def claims() -> Iterator[str]:
    """The name of each test of the suite."""
    for file in FILES:
        for line in (SUITE / file).read_text("utf-8").splitlines():
            words = line.removeprefix("async ").split("(")[0].split()
            if words[:1] == ["def"] and words[1].startswith("test_"):
                yield words[1]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def became(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """What became of each test, by its name: nothing where all is well, or what it printed."""
    python = installed("ray")
    report = tmp_path_factory.mktemp("cluster") / "report.xml"
    options = ["-c", SUITE / "pytest.ini", f"--junitxml={report}", "-q", "--no-header"]
    command = (python, "-m", "spread.alone", "-m", "pytest", *options)
    code, printed = await run(*command, *(SUITE / file for file in FILES), env={}, cwd=BENCHMARKS)
    if code == NOT_GRANTED:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(printed)
    assert report.exists(), printed
    return _read(report)


def _read(report: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for case in ElementTree.parse(report).iter("testcase"):
        told = found.setdefault(case.attrib["name"].partition("[")[0], [])
        told += [child.text or child.tag for child in case if child.tag != "system-out"]
    return found


@pytest.mark.parametrize("claim", [*claims()])
async def test_on_a_cluster(became: dict[str, list[str]], claim: str) -> None:
    assert claim in became
    assert not became[claim], "\n".join(became[claim])
