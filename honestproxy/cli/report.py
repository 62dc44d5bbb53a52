"""`honestproxy report`: what a run shows, or how two runs differ."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from honestproxy.cli.options import Json, errors_in_one_line
from honestproxy.cli.output import count, print_json, safe, stderr, stdout

if TYPE_CHECKING:
    from honestproxy.evals.report import Summary

LISTED = 20
"""Changed answers that are printed."""
LONGEST = 120
"""Characters of a question there."""

Run = Annotated[
    Path,
    typer.Argument(
        metavar="DIR", help="A run's folder; or a file of /v1/honesty/experiment/records."
    ),
]
Other = Annotated[
    Path | None, typer.Argument(metavar="DIR2", help="A later run, to be compared with it.")
]
Out = Annotated[
    Path | None,
    typer.Option(
        "--out",
        help="Where the report goes: where unset, into DIR itself, or into FILE-report beside a "
        "file; of two runs, none.",
    ),
]


def report(run: Run, other: Other = None, out: Out = None, as_json: Json = False) -> None:
    """Report on a run as HTML, Markdown and JSON; with two, on what differs."""
    from honestproxy.evals import report as reporting

    with errors_in_one_line(as_json=as_json):
        if other is not None:
            summary = reporting.compare(run, other, out)
        else:
            out = out or reporting.default(run)
            summary = reporting.write(run, out)
        if as_json:
            print_json(summary.body())
            return
        _show(summary)
        if out is not None:
            stderr().print(safe(str(out / reporting.FILES[0])), soft_wrap=True)


def _show(summary: Summary) -> None:
    console = stdout()
    console.print(Text(safe(summary.verdict), "bold"), soft_wrap=True)
    others = [one.sentence for one in summary.verdicts if one.sentence != summary.verdict]
    for line in [*others, *summary.remarks, *summary.limits, *summary.notes]:
        console.print(Text(safe(line), "dim"), soft_wrap=True)
    for line in summary.differences:
        console.print(safe(line), soft_wrap=True)
    console.print(_table(summary))
    _show_changed(summary)


def _show_changed(summary: Summary) -> None:
    if not summary.changed:
        return
    console = stdout()
    console.print(f"\n{count(len(summary.changed), 'changed answer')}", style="bold")
    for one in summary.changed[:LISTED]:
        labels = f"{one.before or 'unscored'} → {one.after or 'unscored'}"
        asked = " ".join(safe(one.question).split())[:LONGEST]
        console.print(f"{safe(one.arm)}: {labels}: {asked}", soft_wrap=True)
    if len(summary.changed) > LISTED:
        console.print(f"and {len(summary.changed) - LISTED} more: --out writes them all")


def _table(summary: Summary) -> Table:
    from honestproxy.evals.report import markdown, numbers

    table = Table(box=None, padding=(0, 1), header_style="bold")
    table.add_column("")
    for arm in summary.arms:
        table.add_column(safe(arm))
    table.add_column("n", justify="right")
    table.add_column("unscored", justify="right")
    group = ""
    for row in summary.measures:
        if row.group != group:
            group = row.group
            table.add_row(Text(group, "bold"))
        name = Text(safe(row.name))
        if row.gamed:
            name.append(" (gamed)", "yellow")
        cells = [safe("\n".join(markdown.parts(row, arm))) for arm in summary.arms]
        table.add_row(name, *cells, numbers.cases(row), numbers.unscored(row))
    return table
