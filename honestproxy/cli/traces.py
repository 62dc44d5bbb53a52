"""`honestproxy traces`: what became of requests, as the store has it."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from honestproxy.cli.options import Json, ListByDefault, seconds, with_settings
from honestproxy.cli.output import count, print_json, safe, stderr, stdout
from honestproxy.errors import InvalidRequest, SettingsError
from honestproxy.settings import Settings, nearest
from honestproxy.types import Outcome

if TYPE_CHECKING:
    from honestproxy.store.rows import Filter, Rows
    from honestproxy.store.schema import Row

app = typer.Typer(cls=ListByDefault, help="Stored traces: list, show, export, purge, delete.")

_OUTCOMES: tuple[str, ...] = (*Outcome.__args__, "error", "client_left")  # type: ignore[attr-defined]
_MOST = 1_000_000
_WIDE = 200
"""Columns where no terminal says how many it has."""
_SHOWN = 16
"""Letters of an id in a list: enough for `show` and `delete`."""

Last = Annotated[int, typer.Option("--last", min=1, max=_MOST, help="How many; the newest first.")]
Since = Annotated[
    str | None, typer.Option("--since", metavar="1h", help="No older than that: 30m, 1h, 7d.")
]
OfOutcome = Annotated[
    str | None, typer.Option("--outcome", help=f"Only these: {', '.join(_OUTCOMES)}.")
]
OfModel = Annotated[str | None, typer.Option("--model", help="Only this model's.")]
Id = Annotated[str, typer.Argument(metavar="ID", help="The trace's id, or how it begins.")]
Out = Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Else to stdout.")]
Older = Annotated[
    str | None, typer.Option("--older", metavar="7d", help="What is older than that.")
]
All = Annotated[bool, typer.Option("--all", help="Every trace.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")]


@app.command("list")
@with_settings("trace_store", common=())
def list_(
    settings: Settings,
    last: Last = 20,
    since: Since = None,
    outcome: OfOutcome = None,
    model: OfModel = None,
    as_json: Json = False,
) -> None:
    """List the last traces: when, which model, what became of it, what it cost."""
    chosen = _filter(since, outcome, model)
    with _opened(settings) as rows:
        found = rows.last(last, chosen) if rows else []
    if as_json:
        print_json({"traces": [row.facts() for row in found]})
    elif rows is not None and not found:
        stderr().print("no trace fits", soft_wrap=True)
    elif found:
        stdout(None if sys.stdout.isatty() else _WIDE).print(_table(found))


@app.command()
@with_settings("trace_store", common=())
def show(settings: Settings, name: Id, as_json: Json = False) -> None:
    """Show one trace: its facts, and its steps with their texts where those were kept."""
    with _opened(settings) as rows:
        row = rows.find(rows.named(name)) if rows else None
    if row is None:
        raise _none(name)
    if as_json:
        print_json(_whole(row))
        return
    stdout().print(_facts(row))
    for step in (_whole(row)["trace"] or {}).get("steps", ()):
        _show_step(step)


@app.command()
@with_settings("trace_store", common=())
def export(
    settings: Settings,
    since: Since = None,
    outcome: OfOutcome = None,
    model: OfModel = None,
    out: Out = None,
) -> None:
    """Write traces as JSON, one a line, the oldest first."""
    chosen, number = _filter(since, outcome, model), 0
    with _opened(settings) as rows, _sink(out) as file:
        for row in rows.each(chosen) if rows else ():
            file.write(_line(row))
            number += 1
    if out:
        stderr().print(f"{count(number, 'trace')} in {out}", soft_wrap=True)


@app.command()
@with_settings("trace_store", common=())
def purge(
    settings: Settings,
    older: Older = None,
    everything: All = False,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Delete old traces, or all of them, for good."""
    if bool(older) == everything:
        raise InvalidRequest("say which: --older 7d, or --all")
    before = None if older is None else time.time() - seconds("--older", older)
    with _opened(settings) as rows:
        if rows is not None:
            _ask("all traces" if everything else f"all traces older than {older}", yes=yes)
        gone = rows.purge(before) if rows else 0
    if as_json:
        print_json({"purged": gone})
    elif rows is not None:
        stderr().print(f"{count(gone, 'trace')} purged", soft_wrap=True)


@app.command()
@with_settings("trace_store", common=())
def delete(settings: Settings, name: Id, as_json: Json = False) -> None:
    """Delete one trace for good."""
    with _opened(settings) as rows:
        whole = rows.named(name) if rows else None
        if rows is None or whole is None or not rows.discard(whole):
            raise _none(name)
    if as_json:
        print_json({"deleted": whole})
    else:
        stderr().print(f"{whole} is deleted", soft_wrap=True)


@contextmanager
def _opened(settings: Settings) -> Iterator[Rows | None]:
    """The rows of the store; None, and a word about it, where there is none yet."""
    from honestproxy.store.database import Database, explained, located
    from honestproxy.store.rows import Rows

    database = Database(located(settings.trace_store))
    try:
        if database.is_there():
            with explained(database.name):
                yield Rows(database)
        else:
            message = f"no traces yet: {database.name} is made by `honestproxy serve`"
            stderr().print(message, soft_wrap=True)
            yield None
    finally:
        database.close()


def _filter(since: str | None, outcome: str | None, model: str | None) -> Filter:
    from honestproxy.store.rows import Filter

    if outcome is not None and outcome not in _OUTCOMES:
        raise InvalidRequest(f"--outcome {outcome!r}: {nearest(outcome, _OUTCOMES)}")
    begin = None if since is None else time.time() - seconds("--since", since)
    return Filter(since=begin, outcome=outcome, model=model)


def _ask(what: str, *, yes: bool) -> None:
    """Go on only if that is wanted."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise SettingsError(f"this deletes {what}; say --yes where nobody can be asked")
    if not typer.confirm(f"Delete {what}?", err=True):
        raise typer.Exit


def _none(name: str) -> InvalidRequest:
    return InvalidRequest(f"there is no trace {name!r}", status=404, code="trace_not_found")


def _whole(row: Row) -> dict[str, Any]:
    """The facts, and the whole trace where it was kept."""
    from honestproxy.types import read

    return {**row.facts(), "trace": read(row.trace.encode()) if row.trace else None}


def _line(row: Row) -> str:
    from honestproxy.types import write

    return write(_whole(row)).decode() + "\n"


@contextmanager
def _sink(out: Path | None) -> Iterator[Any]:
    if out is None:
        yield sys.stdout
        return
    with open(out, "w", encoding="utf-8", opener=_for_its_owner) as file:
        yield file


def _for_its_owner(path: str, flags: int) -> int:
    """A new file that only its owner can read, as the store is."""
    return os.open(path, flags, 0o600)


def _table(found: list[Row]) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0))
    for name in ("when", "trace"):
        table.add_column(name, no_wrap=True)
    for name in ("model", "strategy", "outcome"):  # these give way: no number is cut
        table.add_column(name, overflow="fold", min_width=4)
    for name in ("doubts", "calls", "tokens", "seconds"):
        table.add_column(name, no_wrap=True, justify="right")
    for row in found:
        numbers = (row.calls, row.total_tokens, f"{row.seconds:.2f}")
        table.add_row(
            *(_moment(row.created), row.id[:_SHOWN], safe(row.model or "–")),
            *(row.strategy or row.api, _outcome(row), _doubts(row)),
            *("–" if number is None else str(number) for number in numbers),
        )
    return table


def _moment(created: float) -> str:
    return time.strftime("%m-%d %H:%M", time.localtime(created))


def _outcome(row: Row) -> str:
    """What became of it, in a word or two."""
    if row.client_left:
        return "client left"
    if row.failed or row.outcome is None:
        return f"failed {row.status}" if row.failed else f"status {row.status}"
    return row.outcome.replace("_", " ")


def _doubts(row: Row) -> str:
    found = row.facts()["doubts"]
    return "–" if found is None else str(len(found))


def _facts(row: Row) -> Table:
    """Each fact that is known, on a line."""
    table = Table("", "", box=None, pad_edge=False, show_header=False)
    for name, value in row.facts().items():
        if value is None or value is False:
            continue
        if name == "created":
            value = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(value))
        elif name == "doubts":
            value = "\n".join(_doubt(doubt) for doubt in value) or "none"
        table.add_row(name.replace("_", " "), safe(str(value)))
    return table


def _doubt(doubt: dict[str, str]) -> str:
    kind = doubt["kind"].replace("_", " ")
    return f"{kind}: {doubt['statement']}" if "statement" in doubt else kind


def _show_step(step: dict[str, Any]) -> None:
    console = stdout()
    seconds = f" · {step['seconds']:.2f} s" if step.get("seconds") is not None else ""
    console.rule(f"{safe(step['name'])}{seconds}", align="left")
    for message in step.get("messages") or ():
        content = message.get("content")
        said = content if isinstance(content, str) else _line_of(message)
        console.print(f"{safe(str(message.get('role')))}: {safe(said)}", soft_wrap=True)
    console.print()
    console.print(safe(step.get("text") or step.get("error") or "(no text)"), soft_wrap=True)


def _line_of(message: dict[str, Any]) -> str:
    from honestproxy.types import write

    return write({name: value for name, value in message.items() if name != "role"}).decode()
