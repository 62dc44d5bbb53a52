"""The benchmarks measure what they say: the right calls, and answers that are right."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="CPU and memory are read in /proc")


def test_each_strategy_makes_its_calls_and_gives_its_own_answer(tmp_path):
    plot = tmp_path / "proxy.svg"
    command = [sys.executable, BENCHMARKS / "proxy.py", "--only", "ours", "--json", "--plot", plot]
    done = subprocess.run(
        [*command, "--repeat", "1", "--seconds", "0.2"], capture_output=True, timeout=120
    )
    assert done.returncode == 0, done.stderr.decode()
    rows = {row["name"]: row for row in json.loads(done.stdout)["rows"]}
    assert {name: row["calls"] for name, row in rows.items()} == {
        "direct": 1,
        "ours, raw": 1,
        "ours, gated": 2,
        "ours, curiosity": 3,
        "ours with keys": 1,
        "ours with keys, curiosity": 3,
    }
    assert not any(row["errors"] for row in rows.values())
    assert rows["ours, curiosity"]["beyond"] > 0
    assert "ours, curiosity" in plot.read_text()
