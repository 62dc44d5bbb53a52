"""A settings file with everything in it, made from the settings' own descriptions and defaults."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from honestproxy.settings import ModelSettings, Settings, UpstreamSettings

_HEAD: Final = """\
# Settings of honestproxy, each with its default. Take the # off what you change.
# `honestproxy config check` tells whether it can work, `config show` what is in force.
# Flags and the environment (HONESTPROXY_PORT, HONESTPROXY_UPSTREAMS__HOUSE__KEY) come first."""

_TABLES: Final[dict[str, tuple[str, type[BaseModel]]]] = {
    "upstreams": ("house", UpstreamSettings),
    "models": ("gpt-5*", ModelSettings),
}


def text() -> str:
    """The whole file."""
    fields = Settings.model_fields
    parts = [_HEAD]
    parts += [_entry(name, field) for name, field in fields.items() if name not in _TABLES]
    for name, (inner, table) in _TABLES.items():
        about = _comment(str(fields[name].description))
        parts.append(f"{about}\n#[{name}.{_key(inner)}]\n" + "\n".join(_rows(table)))
    return "\n\n".join(parts) + "\n"


def _rows(table: type[BaseModel]) -> Iterator[str]:
    for name, field in table.model_fields.items():
        alike = Settings.model_fields.get(name) if table is ModelSettings else None
        about = [_comment(field.description)] if field.description else []
        yield "\n".join([*about, f"#{name} = {_toml(_sample(alike or field))}"])


def _entry(name: str, field: FieldInfo) -> str:
    about = str(field.description)
    if field.default_factory is None and field.default in (None, ()):
        about += " Unset by default."
    return f"{_comment(about)}\n#{name} = {_toml(_sample(field))}"


def _sample(field: FieldInfo) -> Any:
    """The default, or where there is none, an example."""
    default = field.get_default(call_default_factory=True, validated_data={})
    return field.examples[0] if field.examples else default


def _comment(about: str) -> str:
    return textwrap.fill(about, 98, initial_indent="# ", subsequent_indent="# ")


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return (
            "{" + ", ".join(f"{_key(name)} = {_toml(each)}" for name, each in value.items()) + "}"
        )
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, Path):
        return json.dumps(_from_home(value), ensure_ascii=False)
    return json.dumps(value, ensure_ascii=False)  # text, numbers and truth are the same in both


def _from_home(path: Path) -> str:
    home = Path.home()
    return f"~/{path.relative_to(home).as_posix()}" if path.is_relative_to(home) else str(path)


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else json.dumps(name)
