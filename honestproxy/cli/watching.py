"""A run's progress on a terminal: how much is done, how fast, what is left, what it cost."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from honestproxy.cli.output import stderr

if TYPE_CHECKING:
    from honestproxy.evals.runs import Tally, Watch


@contextmanager
def watched() -> Iterator[Watch]:
    """Shows a bar for as long as the block runs; nothing where stderr is no terminal."""
    console = stderr()
    if not console.is_terminal:
        yield lambda tally: None
        return
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[facts]}", markup=False),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("answers", total=None, facts="")

        def watch(tally: Tally) -> None:
            progress.update(task, completed=tally.done, total=tally.total, facts=_facts(tally))

        yield watch


def _facts(tally: Tally) -> str:
    seconds = time.monotonic() - tally.started
    rate = (tally.done - tally.kept) / seconds if seconds else 0.0
    parts = [
        f"{rate:.1f}/s",
        f"{tally.tokens:,} tokens",
        f"${tally.dollars:.4f}" if tally.priced else "",
        f"{tally.failed} failed" if tally.failed else "",
        f"{tally.judged} judged" if tally.judged else "",
    ]
    return " · ".join(filter(None, parts))
