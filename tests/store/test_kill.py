"""The kill test, in small: what is counted as written is there after kill -9."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

KILL = Path(__file__).parent.parent.parent / "benchmarks" / "kill.py"


@pytest.mark.skipif(sys.platform != "linux", reason="the benchmarks read /proc")
@pytest.mark.parametrize("traces", ["facts", "texts"])
def test_what_is_counted_as_written_outlives_a_kill(traces):
    command = [sys.executable, KILL, "--rounds", "2", "--requests", "300", "--json"]
    done = subprocess.run([*command, "--traces", traces], capture_output=True, timeout=200)
    assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()
    rounds = json.loads(done.stdout)
    assert [one["integrity"] for one in rounds] == ["ok", "ok"]
    assert all(one["answered"] >= 60 and one["stored"] >= one["written"] for one in rounds)
