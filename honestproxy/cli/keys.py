"""`honestproxy keys`: who may use this proxy, and for what."""

from __future__ import annotations

import time
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from honestproxy.cli.options import Json, ListByDefault, seconds, with_settings
from honestproxy.cli.output import print_json, safe, stderr, stdout
from honestproxy.errors import InvalidRequest, SettingsError
from honestproxy.settings import Settings, nearest

if TYPE_CHECKING:
    from honestproxy.server.access.keys import Key

app = typer.Typer(cls=ListByDefault, help="Keys of this proxy's own: create, list, revoke.")

_LONGEST = 100 * 365 * 86_400

Name = Annotated[str, typer.Option("--name", help="Whose it is; shown in lists.")]
Models = Annotated[
    str | None, typer.Option("--models", help="Models it may ask, by pattern: 'gpt-*,o3'.")
]
Strategies = Annotated[
    str | None, typer.Option("--strategies", help="Strategies it may use: gated,raw.")
]
Rpm = Annotated[int | None, typer.Option("--rpm", min=1, help="Requests a minute.")]
Tpm = Annotated[int | None, typer.Option("--tpm", min=1, help="Tokens a minute.")]
Spend = Annotated[int | None, typer.Option("--spend", min=1, help="Tokens a day, by UTC.")]
Expires = Annotated[
    str | None, typer.Option("--expires", metavar="30d", help="Until when: 12h, 30d, 8w.")
]
Admin = Annotated[
    bool, typer.Option("--admin", help="May read metrics, experiments and all traces.")
]
Id = Annotated[str, typer.Argument(help="The key's id, as `keys list` shows it.")]


@app.command()
@with_settings("keys", common=())
def create(
    settings: Settings,
    name: Name = "",
    models: Models = None,
    strategies: Strategies = None,
    rpm: Rpm = None,
    tpm: Tpm = None,
    spend: Spend = None,
    expires: Expires = None,
    admin: Admin = False,
    as_json: Json = False,
) -> None:
    """Make a key and print it: once, since only its hash is kept."""
    from honestproxy.server.access import keys

    whole, made = keys.create(
        _file(settings),
        name=name,
        models=_words(models),
        strategies=_known_strategies(_words(strategies)),
        rpm=rpm,
        tpm=tpm,
        spend=spend,
        expires=_until(expires),
        admin=admin,
    )
    if as_json:
        print_json({"key": whole, **made.told()})
        return
    print(whole)  # noqa: T201 - for a pipe: nothing else is on stdout
    stderr().print(
        f"kept as {made.id} in {_file(settings)}; the key itself is shown this once", soft_wrap=True
    )


@app.command("list")
@with_settings("keys", common=())
def list_(settings: Settings, as_json: Json = False) -> None:
    """List the keys: what each may do, never the key itself."""
    from honestproxy.server.access import keys

    found = [key.told() for key in keys.read(_file(settings)).values()]
    if as_json:
        print_json({"keys": found})
        return
    table = Table("id", "name", "ends in", "state", "created", "may", box=None, pad_edge=False)
    for key in found:
        table.add_row(
            *(key["id"], safe(key.get("name", "")), f"…{key['tail']}", key["state"]),
            *(_day(key["created"]), safe(_may(key))),
        )
    stdout().print(table)


@app.command()
@with_settings("keys", common=())
def revoke(settings: Settings, name: Id, as_json: Json = False) -> None:
    """Have a key open nothing any more; a running proxy notices within a second."""
    from honestproxy.server.access import keys

    key: Key = keys.revoke(_file(settings), name)
    if as_json:
        print_json(key.told())
    else:
        stderr().print(f"{key.id} is revoked", soft_wrap=True)


def _file(settings: Settings) -> Path:
    if settings.keys is None:
        raise SettingsError(
            "which file? Name it with --keys FILE, or as `keys` in honestproxy.toml, where "
            "`serve` finds it too"
        )
    return settings.keys


def _words(given: str | None) -> tuple[str, ...] | None:
    if given is None:
        return None
    return tuple(part.strip() for part in given.split(",") if part.strip())


def _known_strategies(names: Collection[str] | None) -> tuple[str, ...] | None:
    from honestproxy.strategies import STRATEGIES

    for name in names or ():
        if name not in STRATEGIES:
            raise InvalidRequest(f"unknown strategy {name!r}; {nearest(name, STRATEGIES)}")
    return None if names is None else tuple(names)


def _until(given: str | None) -> int | None:
    if given is None:
        return None
    if not 1 <= (after := seconds("--expires", given)) <= _LONGEST:
        raise InvalidRequest(f"--expires {given!r}: give a second at least, and 100 years at most")
    return int(time.time() + after)


def _day(at: int) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(at))


def _may(key: dict[str, Any]) -> str:
    """A key's scopes and limits in one line."""
    told = [", ".join(key[what]) for what in ("models", "strategies") if what in key]
    limits = {"rpm": "requests/min", "tpm": "tokens/min", "spend": "tokens/day"}
    told += [f"{key[what]} {unit}" for what, unit in limits.items() if what in key]
    told += [f"until {_day(key['expires'])}"] if "expires" in key else []
    return "; ".join([*told, *(["admin"] if key.get("admin") else [])]) or "all"
