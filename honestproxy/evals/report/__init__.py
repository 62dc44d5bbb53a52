"""The report of a run: verdict, table, plots and every answer, as HTML, Markdown and JSON.

The same data give the same report, byte for byte.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Final

from honestproxy.evals.report import comparing, html, markdown
from honestproxy.evals.report.reading import Run, read
from honestproxy.evals.report.summary import Summary, summarise

FILES: Final = ("report.html", "report.md", "report.json")

__all__ = ["FILES", "Summary", "compare", "default", "write"]


def write(path: Path, out: Path | None = None) -> Summary:
    """Report on a run, in its folder or in `out`. Raises EvaluationError, BackendError."""
    run = read(path)
    summary = summarise(run)
    _write(run, summary, out or default(path))
    return summary


def compare(first: Path, second: Path, out: Path | None = None) -> Summary:
    """How two runs differ; a report on it in `out`, where that is given."""
    one, other = read(first), read(second)
    differences = comparing.told(one, other)
    run = comparing.merged(one, other)
    summary = summarise(run)
    summary = replace(summary, differences=differences, changed=comparing.changed(run))
    if out is not None:
        _write(run, summary, out)
    return summary


def default(path: Path) -> Path:
    """Where a report goes: into the run's folder, or into one beside a file of live records."""
    return path.with_name(f"{path.stem}-report") if path.is_file() else path


def _write(run: Run, summary: Summary, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    body = json.dumps(summary.body(), ensure_ascii=False, indent=1)
    (out / FILES[2]).write_bytes(f"{body}\n".encode("utf-8", "replace"))
    (out / FILES[1]).write_bytes(markdown.render(summary).encode("utf-8", "replace"))
    with (out / FILES[0]).open("wb") as file:
        html.write(run, summary, file)
