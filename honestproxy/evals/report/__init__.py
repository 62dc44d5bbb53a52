"""The report of a run: verdict, table, plots and every answer, as HTML, Markdown and JSON.

The same data give the same report, byte for byte.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from honestproxy.evals.report import markdown
from honestproxy.evals.report.reading import Run, read
from honestproxy.evals.report.summary import Summary, summarise

FILES: Final = ("report.html", "report.md", "report.json")

__all__ = ["FILES", "Summary", "write"]


def write(folder: Path, out: Path | None = None) -> Summary:
    """Report on a run, in its folder or in `out`. Raises EvaluationError, BackendError."""
    return written(read(folder), out or default(folder))


def default(path: Path) -> Path:
    """Where a report goes: into the run's folder, or into one beside a file of live records."""
    return path.with_suffix("") if path.is_file() else path


def written(run: Run, out: Path) -> Summary:
    """Report on what was read."""
    summary = summarise(run)
    out.mkdir(parents=True, exist_ok=True)
    body = json.dumps(summary.body(), ensure_ascii=False, indent=1)
    (out / "report.json").write_text(body + "\n", "utf-8")
    (out / "report.md").write_text(markdown.render(summary), "utf-8")
    return summary
