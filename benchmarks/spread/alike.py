"""Whether two runs of an evaluation are the same, byte for byte, once their times are taken out.

What is taken out: `seconds` and `first` of each answer, `seconds` of its `honesty` and of each
step in there, and the trace's id. Each time becomes one number, in the log; reports are written
anew from the logs as they are then, in the order in which each run's answers ended.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from honestproxy.evals import report

_TIME = 1.0
_SAME_NAME = "run"


def differences(one: Path, other: Path, below: Path) -> list[str]:
    """The files of two runs that differ; `below` gets both, without their times."""
    first, second = (_timeless(path, below / path.name / _SAME_NAME) for path in (one, other))
    found = [
        name
        for name in ("config.json", "samples.jsonl", *report.FILES)
        if (first / name).read_bytes() != (second / name).read_bytes()
    ]
    # Answers end in another order each time, so that the logs are compared as sets of lines.
    if sorted(_lines(first)) != sorted(_lines(second)):
        found.append("log.jsonl")
    return found


def _timeless(run: Path, to: Path) -> Path:
    shutil.rmtree(to, ignore_errors=True)
    to.mkdir(parents=True)
    for name in ("config.json", "samples.jsonl"):
        shutil.copy(run / name, to / name)
    lines = [json.dumps(_without_times(json.loads(line))) for line in _lines(run)]
    (to / "log.jsonl").write_text("\n".join(lines) + "\n", "utf-8")
    report.write(to)
    return to


def _lines(run: Path) -> list[str]:
    return (run / "log.jsonl").read_text("utf-8").splitlines()


def _without_times(record: dict[str, Any]) -> dict[str, Any]:
    if record["type"] != "answer":
        return record
    for name in ("seconds", "first"):
        if record[name] is not None:
            record[name] = _TIME
    if honesty := record["honesty"]:
        honesty |= {"seconds": _TIME, "trace_id": ""}
        for step in honesty["steps"]:
            step["seconds"] = _TIME
    return record
