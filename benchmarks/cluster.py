"""The proxy and evaluations on a Ray cluster of two nodes, one replica of which is killed.

    .venv/clients/ray/bin/python benchmarks/cluster.py [--quick] [--without-model] [--json]

Everything runs in a network namespace of its own, which has loopback and nothing else.

1. `serve run honestproxy.ray:app` with two replicas before a scripted upstream. Clients ask, half
   of them for streams; one replica is killed (SIGKILL) in mid-load. Clients ask again after a
   500, a lost connection, or a stream without [DONE]. Nobody may be left without the right answer.
2. `honestproxy ab --ray` over both nodes, and the same without: before the scripted upstream with
   a judge and shared drafts, and on the embedded model in float32 where its files are in the
   cache. Both runs must be the same, byte for byte, but for times (spread/alike.py says which).

Exits 1 where any of this isn't so.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import signal
import sys
import time
import urllib.error
import urllib.request
from asyncio.subprocess import DEVNULL, PIPE, STDOUT, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from spread import alone, nodes, oracle
from spread.alike import differences
from spread.crowd import Crowd
from wire.report import progress

HERE = Path(__file__).parent
PORT = 8000  # where Serve listens where nobody says
URL = f"http://127.0.0.1:{PORT}/v1"
REPLICA = "ServeReplica:default:Proxy"
_READY_WITHIN = 120.0
_STOPPED_WITHIN = 30.0


@dataclass
class Load:
    """What became of the load, and of the replica that was killed in it."""

    requests: int
    answered: int
    streamed: int
    answered_after_retries: int
    again: dict[str, int]
    failed: list[str]
    wrong: list[str]
    killed: int
    nodes_with_replicas: int
    replaced_after: float | None

    @property
    def ok(self) -> bool:
        """Whether everyone has the right answer, and asking again was what it took."""
        everyone = self.answered == self.requests and not self.failed and not self.wrong
        return everyone and bool(self.again) and self.replaced_after is not None


@dataclass
class Same:
    """Two runs of one evaluation."""

    name: str
    answers: int
    verdicts: int
    differ: list[str]
    local_seconds: float
    spread_seconds: float
    workers: int

    @property
    def ok(self) -> bool:
        """Whether nothing differs, and every node took part."""
        return not self.differ and self.answers > 0 and self.workers == 2


@dataclass
class Found:
    """All that was found."""

    load: Load
    runs: list[Same] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether all of it is as it must be."""
        return self.load.ok and all(run.ok for run in self.runs)


async def main(options: argparse.Namespace, folder: Path) -> Found:
    """Both parts, on one cluster."""
    nodes.prepare()
    os.environ["PYTHONPATH"] = str(HERE)
    with nodes.two() as address:
        progress("two nodes are up")
        requests = 300 if options.quick else 2000
        async with oracle.listening(seconds=0.3) as upstream, serving(address, upstream.url):
            progress("two replicas are up")
            found = Found(await loaded(requests))
        async with oracle.listening() as upstream:
            questions = write_questions(folder / "q.jsonl", 30 if options.quick else 300)
            arms = "raw,gated,curiosity,again=raw,system-prompt-only,always-disclaim"
            words = ["--upstream", upstream.url, "--arms", arms, "--share-drafts"]
            judge = ["--judge", upstream.url, "--judges", "honesty"]
            found.runs.append(await same(folder, "scripted", [questions, *words, *judge], address))
        if not options.without_model and embedded():
            questions = write_questions(folder / "few.jsonl", 4 if options.quick else 16)
            words = ["--upstream", "spread.exact:model", "--arms", "raw,introspect"]
            cap = ["--max-tokens", "24", "--concurrency", "4"]
            found.runs.append(
                await same(folder, "embedded, float32", [questions, *words, *cap], address)
            )
    return found


@asynccontextmanager
async def serving(address: str, upstream: str) -> AsyncIterator[None]:
    """The application, as the command runs it, ready; taken down at the end."""
    program = Path(sys.executable).with_name("serve")
    arguments = ["replicas=2", f"upstream={upstream}", "strategy=raw", "traces=off"]
    process = await asyncio.create_subprocess_exec(
        *(program, "run", "--address", address, "honestproxy.ray:app", *arguments),
        stdin=DEVNULL,
        stdout=PIPE,
        stderr=STDOUT,
    )
    printed = asyncio.create_task(_read(process))
    try:
        await _ready(process, printed)
        yield
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGINT)
        try:
            await asyncio.wait_for(process.wait(), _STOPPED_WITHIN)
        except TimeoutError:
            process.kill()
            await process.wait()
        await printed


async def _read(process: Process) -> str:
    assert process.stdout is not None
    return (await process.stdout.read()).decode("utf-8", "replace")


async def _ready(process: Process, printed: asyncio.Task[str]) -> None:
    until = time.monotonic() + _READY_WITHIN
    while not (_is_complete() and await asyncio.to_thread(_answers)):
        if process.returncode is not None or time.monotonic() > until:
            if process.returncode is None:
                process.kill()
            raise SystemExit(f"the application isn't ready:\n{await printed}")
        await asyncio.sleep(0.2)


def _is_complete() -> bool:
    """Whether both replicas run, and Serve listens on both nodes: each prefers its own replica."""
    return len(nodes.processes(REPLICA)) == 2 and nodes.listeners(PORT) == 2


def _answers() -> bool:
    try:
        with urllib.request.urlopen(f"{URL}/models", timeout=5) as got:
            return bool(got.status == 200)
    except (urllib.error.URLError, OSError):
        return False


async def loaded(requests: int) -> Load:
    """Clients ask; a third of the way, the replica that is busiest is killed."""
    crowd = Crowd(f"{URL}/chat/completions", requests, 32, expected)
    before = nodes.processes(REPLICA)
    idle = {replica: nodes.worked(replica) for replica in before}
    asking = asyncio.create_task(crowd.run())
    while crowd.answered < requests // 3:
        await asyncio.sleep(0.01)
        if asking.done():
            break
    busy = {replica: nodes.worked(replica) - idle[replica] for replica in before}
    progress(f"ticks of CPU by replica so far: {busy}")
    victim = max(busy, key=lambda replica: busy[replica])
    os.kill(victim, signal.SIGKILL)
    replaced = asyncio.create_task(_replaced(set(before)))
    await asking
    return Load(
        requests=requests,
        answered=crowd.answered,
        streamed=crowd.streamed,
        answered_after_retries=crowd.retried,
        again=dict(crowd.again),
        failed=crowd.failed,
        wrong=crowd.wrong,
        killed=victim,
        nodes_with_replicas=len(set(before.values())),
        replaced_after=await replaced,
    )


def expected(question: str) -> str:
    """The one right answer."""
    return oracle.said({"messages": [{"role": "user", "content": question}]})


async def _replaced(before: set[int]) -> float | None:
    """Seconds until another replica runs in the killed one's place."""
    begun = time.monotonic()
    while time.monotonic() - begun < _READY_WITHIN:
        if nodes.processes(REPLICA).keys() - before:
            return round(time.monotonic() - begun, 1)
        await asyncio.sleep(0.1)
    return None


def write_questions(path: Path, number: int) -> str:
    """Questions, some of which have an answer, some of which can't be answered."""
    kinds = ("latest_information", "user_input", None)
    with path.open("w", encoding="utf-8") as file:
        for n in range(number):
            row: dict[str, Any] = {
                "question": f"What is the answer to question {n}?",
                "id": f"q{n}",
            }
            if kind := kinds[n % 3]:
                row |= {"kind": kind, "answerable": False}
            else:
                row |= {"answer": str(n), "answerable": True}
            file.write(json.dumps(row) + "\n")
    return str(path)


async def same(folder: Path, name: str, words: list[str], address: str) -> Same:
    """One evaluation here and on the cluster, and what differs."""
    here, there = folder / "here" / "run", folder / "there" / "run"
    for run in (here, there):
        shutil.rmtree(run.parent, ignore_errors=True)
    progress(f"{name}: here")
    _, alone_seconds = await ab(*words, "--out", str(here))
    progress(f"{name}: on the cluster")
    workers, spread_seconds = await ab(*words, "--out", str(there), "--ray", address)
    log = [json.loads(line) for line in (there / "log.jsonl").read_text("utf-8").splitlines()]
    return Same(
        name=name,
        answers=sum(record["type"] == "answer" and not record["error"] for record in log),
        verdicts=sum(record["type"] == "verdict" for record in log),
        differ=differences(here.parent / "run", there.parent / "run", folder / "timeless"),
        local_seconds=alone_seconds,
        spread_seconds=spread_seconds,
        workers=workers,
    )


async def ab(*words: str) -> tuple[int, float]:
    """`honestproxy ab`; on how many nodes its workers were seen, and how long it took."""
    begun = time.monotonic()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "honestproxy", "ab", *words),
        stdin=DEVNULL,
        stdout=PIPE,
        stderr=STDOUT,
    )
    printed, seen = asyncio.create_task(_read(process)), set[int]()
    while process.returncode is None:
        seen |= set(nodes.processes("ray::Worker").values())
        await asyncio.sleep(0.2)
    if process.returncode:
        raise SystemExit(f"ab {' '.join(words)}:\n{await printed}")
    return len(seen), round(time.monotonic() - begun, 1)


def embedded() -> bool:
    """Whether the embedded model's files are here, so that nothing is fetched."""
    from honestproxy.backends.local.embedded import NAME
    from honestproxy.settings import Settings

    return any((Settings().cache / NAME).glob("*.gguf"))


def told(found: Found) -> str:
    """What was found, in words."""
    load = found.load
    again = ", ".join(f"{number} × {why}" for why, number in sorted(load.again.items()))
    lines = [
        f"load on 2 replicas on {load.nodes_with_replicas} nodes: {load.requests} requests, "
        f"{load.streamed} streamed; replica {load.killed} killed in mid-load, another one in its "
        f"place after {load.replaced_after} s",
        f"  answered {load.answered}, of these {load.answered_after_retries} after being asked "
        f"again ({again}); failed {len(load.failed)}, wrong {len(load.wrong)}: {_verdict(load.ok)}",
    ]
    for run in found.runs:
        differ = ", ".join(run.differ) or "nothing"
        lines.append(
            f"ab, {run.name}: {run.answers} answers, {run.verdicts} verdicts; here "
            f"{run.local_seconds} s, on workers of {run.workers} nodes {run.spread_seconds} s; "
            f"differs but for times: {differ}: {_verdict(run.ok)}"
        )
    return "\n".join(lines)


def _verdict(ok: bool) -> str:
    return "ok" if ok else "WRONG"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer requests and questions")
    parser.add_argument("--without-model", action="store_true", help="the scripted upstream alone")
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    alone.ensure()
    with TemporaryDirectory() as temporary:
        result = asyncio.run(main(chosen, Path(temporary)))
    print(json.dumps(asdict(result) | {"ok": result.ok}) if chosen.json else told(result))
    sys.exit(not result.ok)
