"""`honestproxy ab --ray` over two nodes: the same run as on one machine, whoever is lost in it."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from spread import nodes, oracle
from spread.alike import differences

WORKER = "ray::Worker"
ENDS_WITHIN = 100


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    """Forty questions, with and without answers."""
    rows = [{"question": f"What is the answer to question {n}?"} for n in range(40)]
    for n, row in enumerate(rows):
        row |= {"answer": str(n)} if n % 2 else {"kind": "latest_information"}
    path = tmp_path / "q.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


@asynccontextmanager
async def running(
    *words: object, python: tuple[str, ...] = ("-m", "honestproxy")
) -> AsyncIterator[Process]:
    """`honestproxy ab …`, killed at the end if it still runs."""
    command = (sys.executable, *python, "ab", *map(str, words))
    process = await asyncio.create_subprocess_exec(*command, stdout=PIPE, stderr=PIPE)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def ab(*words: object, **how: tuple[str, ...]) -> tuple[int, str]:
    """Its exit code, and what it says on stderr."""
    async with running(*words, **how) as process:
        return await ended(process)


async def ended(process: Process) -> tuple[int, str]:
    """The same of one that runs already."""
    _, said = await asyncio.wait_for(process.communicate(), ENDS_WITHIN)
    return process.returncode or 0, said.decode()


async def until(holds: Callable[[], object]) -> None:
    """Wait for something to be so."""
    async with asyncio.timeout(ENDS_WITHIN):
        while not holds():
            await asyncio.sleep(0.01)


def lines_of(run: Path) -> list[str]:
    """What its log holds so far."""
    log = run / "log.jsonl"
    return log.read_text("utf-8").splitlines() if log.exists() else []


def answered(run: Path) -> Counter[str]:
    """How often each question has an answer."""
    records = map(json.loads, lines_of(run))
    return Counter(record["sample"] for record in records if record["error"] is None)


async def test_a_run_over_two_nodes_is_that_of_one_machine(address, questions, tmp_path):
    own = tmp_path / "prompts" / "gated"
    own.mkdir(parents=True)
    shipped = Path(__file__).parents[3] / "prompts" / "gated" / "merge.md"
    (own / "merge.md").write_text("Be brief.\n" + shipped.read_text("utf-8"), "utf-8")
    async with oracle.listening() as upstream:
        words = [questions, "--upstream", upstream.url, "--arms", "raw,gated,curiosity,merge-blank"]
        words += ["--prompts", own.parent, "--share-drafts", "--judge", upstream.url]
        for name, more in (("here", ()), ("there", ("--ray", address))):
            code, said = await ab(*words, "--judges", "honesty", "--out", tmp_path / name, *more)
            assert code == 0, said
        merged = [
            body for body in upstream.bodies if "Be brief." in body["messages"][-1]["content"]
        ]
    assert differences(tmp_path / "here", tmp_path / "there", tmp_path / "timeless") == []
    assert Counter(json.loads(line)["type"] for line in lines_of(tmp_path / "there")) == {
        "answer": 160,
        "verdict": 80,
    }
    assert len(merged) == 2 * len({json.dumps(body["messages"]) for body in merged})


async def test_a_worker_that_is_killed_costs_no_answer(address, questions, tmp_path):
    run = tmp_path / "run"
    async with oracle.listening(seconds=0.3) as upstream:
        words = (questions, "--upstream", upstream.url, "--arms", "raw", "--ray", address)
        async with running(*words, "--out", run, "--ray-workers", 3) as process:
            await until(lambda: len(lines_of(run)) >= 8)
            upstream.open.clear()
            await until(lambda: len(upstream.bodies) - len(lines_of(run)) == 8)  # all in hand
            os.kill(min(nodes.processes(WORKER)), signal.SIGKILL)
            upstream.open.set()
            code, said = await ended(process)
        assert code == 0, said
        assert set(answered(run).values()) == {1}
        assert len(answered(run)) == 40
        assert 40 < len(upstream.bodies) <= 40 + 3  # what it had in hand is asked again
    assert "a worker is lost" in said


async def test_whoever_started_a_run_is_killed_and_goes_on_with_it(address, questions, tmp_path):
    run = tmp_path / "run"
    async with oracle.listening(seconds=0.5) as upstream:
        words = (questions, "--upstream", upstream.url, "--arms", "raw", "--out", run)
        async with running(*words, "--ray", address) as process:
            await until(lambda: len(lines_of(run)) >= 10)
            process.kill()
            await process.communicate()
        kept = lines_of(run)
        await until(lambda: not nodes.processes(WORKER))  # nobody goes on asking for it
        code, said = await ab(*words, "--ray", address)
        assert code == 0, said
        assert lines_of(run)[: len(kept)] == kept
        assert answered(run) == dict.fromkeys(answered(run), 1)
        assert len(answered(run)) == 40
        assert len(upstream.bodies) <= 40 + 8


async def test_what_can_be_asked_nobody_is_an_error_as_on_one_machine(address, questions, tmp_path):
    words = (questions, "--upstream", "played:forbidden", "--model", "m", "--arms", "raw")
    code, said = await ab(*words, "--out", tmp_path / "run", "--ray", address)
    assert code == 1
    assert "no key" in said
    words = (questions, "--upstream", "played:gold", "--arms", "introspect")
    code, said = await ab(*words, "--out", tmp_path / "other", "--ray", address)
    assert code == 2
    assert "shows no hidden states" in said


@pytest.mark.parametrize(
    ("where", "more", "said"),
    [
        ("127.0.0.1:9", (), "no cluster answers there"),
        ("elsewhere", (), "give HOST:PORT"),
        (None, ("--ray-workers", "5"), "room for 4 workers of 1 CPU each, and 5 are wanted"),
        (None, ("--ray-gpus", "1"), "room for 0 workers of 1 CPU and 1 GPU each"),
    ],
)
async def test_a_cluster_that_will_not_do_is_told(address, questions, tmp_path, where, more, said):
    words = (questions, "--upstream", "played:gold", "--arms", "raw", "--out", tmp_path / "run")
    code, told = await ab(*words, "--ray", where or address, *more)
    assert code == 2
    assert said in told


async def test_workers_of_another_version_are_refused(address, questions, tmp_path):
    renamed = "import honestproxy as h; h.__version__ = '9.9'"
    other = f"{renamed}; from honestproxy.cli import main; main()"
    words = (questions, "--upstream", "played:gold", "--arms", "raw", "--out", tmp_path / "run")
    code, said = await ab(*words, "--ray", address, python=("-c", other))
    assert code == 2
    assert re.search(r"a worker has honestproxy 0\S+ .* and this machine honestproxy 9\.9", said)


async def test_a_cluster_of_its_own_leaves_nothing_in_the_home(questions, tmp_path, monkeypatch):
    monkeypatch.delenv("RAY_AUTH_MODE")
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    monkeypatch.setenv("HOME", str(tmp_path))
    words = (questions, "--upstream", "played:gold", "--arms", "raw", "--out", tmp_path / "run")
    code, said = await ab(*words, "--ray", "local", "--limit", 5)
    assert code == 0, said
    assert len(answered(tmp_path / "run")) == 5
    assert not (tmp_path / ".ray").exists()


async def test_a_node_that_is_lost_costs_no_answer(address, questions, tmp_path):
    run = tmp_path / "run"
    async with oracle.listening(seconds=0.5) as upstream:
        words = (questions, "--upstream", upstream.url, "--arms", "raw", "--ray", address)
        async with running(*words, "--out", run) as process:
            await until(lambda: len(lines_of(run)) >= 8)
            seats = set(nodes.processes(WORKER).values())
            assert len(seats) == 2
            os.kill(max(seats), signal.SIGKILL)  # the daemon of the node that came second
            code, said = await ended(process)
    assert code == 0, said
    assert set(answered(run).values()) == {1}
    assert len(answered(run)) == 40
