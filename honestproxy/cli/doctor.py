"""`honestproxy doctor`: what works on this machine, and what would mend the rest."""

from __future__ import annotations

import asyncio
from dataclasses import asdict

import typer
from rich.table import Table
from rich.text import Text

from honestproxy.cli.checks import Check, run_all
from honestproxy.cli.options import FAILURE, Json, with_settings
from honestproxy.cli.output import noted, print_json, safe, stdout
from honestproxy.settings import Settings

_SIGNS = {"ok": ("✓", "green"), "note": ("!", "yellow"), "broken": ("✗", "red")}


@with_settings("prompts", "host", "port", "cache")
def doctor(settings: Settings, as_json: Json = False) -> None:
    """Check this machine; exits 1 where something that is configured can't work."""
    with noted("looking around …"):
        checks = asyncio.run(run_all(settings))
    if as_json:
        print_json({"checks": [asdict(check) for check in checks]})
    else:
        stdout().print(_table(checks))
    if any(check.state == "broken" for check in checks):
        raise typer.Exit(FAILURE)


def _table(checks: list[Check]) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in ("", "what", "found", "remedy"):
        table.add_column(heading, overflow="fold")
    for check in checks:
        sign, colour = _SIGNS[check.state]
        table.add_row(Text(sign, colour), check.name, safe(check.found), safe(check.remedy))
    return table
