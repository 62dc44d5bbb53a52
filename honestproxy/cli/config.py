"""`honestproxy config`: what is set and where, whether it can work, and a file to begin with."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import BaseModel, SecretStr

from honestproxy.cli.options import Json, with_settings
from honestproxy.cli.output import count, print_json, safe, stdout
from honestproxy.cli.serve import FLAGS
from honestproxy.errors import SettingsError
from honestproxy.settings import DEFAULT_CONFIG, Gathered, Settings, gather
from honestproxy.settings.lines import Key
from honestproxy.settings.references import blotted
from honestproxy.settings.words import dotted

app = typer.Typer(no_args_is_help=True, help="Settings: show, check, example.")

File = Annotated[Path | None, typer.Argument(help="TOML file; honestproxy.toml here where unset.")]


@app.command()
@with_settings(*FLAGS, read=gather)
def show(gathered: Gathered, as_json: Json = False) -> None:
    """Print each setting and where it comes from; keys and passwords never."""
    _check(gathered.mistakes)
    rows = list(_rows(gathered))
    if as_json:
        print_json({"settings": rows})
        return
    for row in rows:
        shown = _written(row["value"])
        stdout().print(safe(f"{row['key']} = {shown}  # {row['source']}"), soft_wrap=True)


@app.command()
@with_settings(*FLAGS, read=lambda config, **flags: (config, flags))
def check(
    given: tuple[Path | None, Mapping[str, Any]], file: File = None, as_json: Json = False
) -> None:
    """Say whether the settings can work, or every mistake in them; nothing is connected to."""
    from honestproxy.cli.config_checks import mistakes

    config, flags = given
    gathered = gather(file or config, **flags)
    _check([*gathered.mistakes, *mistakes(gathered)])
    settings = gathered.settings
    path = gathered.sources[0].file
    if as_json:
        print_json({"ok": True, "file": str(path) if path else None})
        return
    facts = [
        count(len(settings.model_fields_set), "setting"),
        count(1 + len(settings.upstreams), "upstream"),
        count(len(settings.models), "rule") + " for models",
    ]
    where = path or f"no {DEFAULT_CONFIG} here; what is set"
    stdout().print(f"{where}: in order ({', '.join(facts)})", soft_wrap=True)


@app.command()
def example() -> None:
    """Print a settings file with everything that can be set, commented out."""
    from honestproxy.cli.config_example import text

    sys.stdout.write(text())


def _check(mistakes: Any) -> None:
    if mistakes:
        raise SettingsError("\n".join(dict.fromkeys(mistakes)))


def _rows(gathered: Gathered) -> Iterator[dict[str, Any]]:
    for key, value in _values(gathered.settings):
        source, reference = gathered.source(key), gathered.references.get(key)
        shown = _shown(value, reference)
        if reference and not isinstance(value, SecretStr):
            source += f" ({reference})"
        yield {"key": dotted(key), "value": shown, "source": source}


def _values(settings: Settings) -> Iterator[tuple[Key, Any]]:
    """Each setting, and each one of a table; of rules for models, those that they make."""
    for name in Settings.model_fields:
        value = getattr(settings, name)
        tables = value if name in ("upstreams", "models") else None
        if tables is None:
            yield (name,), value
            continue
        for inner, table in tables.items():
            yield from (((name, inner, field), each) for field, each in _fields(name, table))


def _fields(name: str, table: BaseModel) -> Iterator[tuple[str, Any]]:
    for field, value in table:
        if name == "upstreams" or value is not None:
            yield field, value


def _shown(value: Any, reference: str | None = None) -> Any:
    """The value as JSON may hold it, without what is secret."""
    if isinstance(value, SecretStr):
        return f"set ({reference})" if reference else "set"
    if isinstance(value, str | Path):
        return blotted(str(value))
    if isinstance(value, tuple):
        return [_shown(item) for item in value]
    return value


def _written(value: Any) -> str:
    if value is None:
        return "–"
    is_secret = isinstance(value, str) and (value == "set" or value.startswith("set ("))
    return value if is_secret else json.dumps(value, ensure_ascii=False)
