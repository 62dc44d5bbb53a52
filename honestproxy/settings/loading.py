"""Settings from all sources, and every mistake in them at once, each with its place."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from honestproxy.errors import SettingsError
from honestproxy.settings import checks
from honestproxy.settings.fields import Settings
from honestproxy.settings.lines import Key
from honestproxy.settings.references import blotted, exposed, is_reference, resolved
from honestproxy.settings.sources import Source, from_environ, from_file, from_flags
from honestproxy.settings.words import dotted, told, unknown

_TABLES: Final = ("upstreams", "models")
"""What sources add to; of anything else, one source's value replaces another's."""

_ELSEWHERE: Final[tuple[Key, ...]] = (("upstream_key",), ("trace_store",), ("answer_cache",))
"""What may be named as `env:NAME` or `file:PATH`, besides the key of each upstream."""


@dataclass(frozen=True)
class Gathered:
    """Settings, where each comes from, and what is wrong with them.

    `settings` leaves out what is wrong. `references` says of values that stand elsewhere, where.
    """

    settings: Settings
    sources: tuple[Source, ...]
    references: Mapping[Key, str]
    mistakes: tuple[str, ...]

    def source(self, key: Key) -> str:
        """Where the value of a key comes from: file and line, a variable, a flag, or a default."""
        holder = _holder(self.sources, key)
        return holder.place(key) if holder and holder.depth(key) == len(key) else "default"

    def mistake(self, key: Key, what: str) -> str:
        """A mistake at a key, as it is told: its place, its name, and what is wrong."""
        return _mistake(self.sources, key, what)


def load(
    config: Path | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    **flags: Any,
) -> Settings:
    """Settings from flags, then `HONESTPROXY_*`, then a TOML file, then defaults.

    A flag that is None was not given. Raises SettingsError, a line for each mistake, naming file
    and line (or the variable, or the flag) and the key; never a secret.
    """
    return in_order(gather(config, environ=environ, **flags))


def in_order(gathered: Gathered) -> Settings:
    """The settings. Raises SettingsError where there are mistakes in them, with all of them."""
    if gathered.mistakes:
        raise SettingsError("\n".join(gathered.mistakes))
    return gathered.settings


def gather(
    config: Path | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    **flags: Any,
) -> Gathered:
    """The same with places and mistakes. Raises SettingsError where the file can't be read."""
    environ = os.environ if environ is None else environ
    sources = (from_file(config), from_environ(environ), from_flags(flags))
    merged = _merged(sources)
    found: list[str] = []
    references: dict[Key, str] = {}
    for key in _secret_keys(merged):
        value = _at(merged, key)
        try:
            _check_private(sources, key, value)
            if is_reference(value):
                references[key] = value
                _put(merged, key, resolved(value, environ))
        except (ValueError, OSError) as error:
            found.append(_mistake(sources, key, str(error)))
            _drop(merged, key)
    for key in _url_keys(merged):
        try:
            _check_private(sources, key, _at(merged, key))
        except ValueError as error:
            found.append(_mistake(sources, key, str(error)))
    defined = set(merged["upstreams"]) if isinstance(merged.get("upstreams"), dict) else set()
    settings, wrong = _validated(merged)
    found += [f"{_place(sources, key)}: {what}" for key, what in wrong]
    found += [_mistake(sources, key, what) for key, what in checks.mistakes(settings, defined)]
    return Gathered(settings, sources, references, tuple(sorted(found, key=_order)))


def _merged(sources: tuple[Source, ...]) -> dict[str, Any]:
    """All values, the later source's first; tables grow together."""
    merged: dict[str, Any] = {}
    for source in sources:
        for name, value in deepcopy(source.values).items():
            before = merged.get(name)
            if name in _TABLES and isinstance(before, dict) and isinstance(value, dict):
                merged[name] = _joined(before, value)
            else:
                merged[name] = value
    return merged


def _joined(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    joined = dict(before)
    for name, table in after.items():
        known = joined.get(name)
        if isinstance(known, dict) and isinstance(table, dict):
            joined[name] = {**known, **table}
        else:
            joined[name] = table
    return joined


def _secret_keys(merged: Mapping[str, Any]) -> Iterator[Key]:
    """The keys that are set and whose values are secret, or may be."""
    upstreams = merged.get("upstreams")
    tables = upstreams.items() if isinstance(upstreams, dict) else ()
    keys: list[Key] = [*_ELSEWHERE, *(("upstreams", name, "key") for name, _ in tables)]
    yield from (key for key in keys if isinstance(_at(merged, key), str))


def _url_keys(merged: Mapping[str, Any]) -> Iterator[Key]:
    """The keys of upstreams' URLs, in which a secret may stand."""
    upstreams = merged.get("upstreams")
    names = upstreams if isinstance(upstreams, dict) else ()
    keys: list[Key] = [("upstream",), *(("upstreams", name, "url") for name in names)]
    yield from (key for key in keys if isinstance(_at(merged, key), str))


def _check_private(sources: tuple[Source, ...], key: Key, value: str) -> None:
    """Raise ValueError for a secret that stands in a settings file which others can read."""
    source = _holder(sources, key)
    is_secret = blotted(value) != value or key[-1] in ("key", "upstream_key")
    if source is None or source.file is None or is_reference(value) or not is_secret:
        return
    if what := exposed(source.file):
        is_url = key[-1] in ("url", "upstream")
        raise ValueError(what if is_url else f"{what}, or write env:NAME or file:PATH in its place")


def _validated(merged: dict[str, Any]) -> tuple[Settings, list[tuple[Key, str]]]:
    """Settings without what is wrong, and what that was."""
    # Some names that are no settings would be instructions to pydantic-settings.
    strange: list[Key] = [(name,) for name in merged if name not in Settings.model_fields]
    wrong = [(key, unknown(key)) for key in strange]
    for key in strange:
        _drop(merged, key)
    while True:
        try:
            return Settings(**merged), wrong
        except ValidationError as error:
            found = [told(each) for each in error.errors(include_url=False)]
            wrong += found
            dropped = [_drop(merged, key) for key, _ in found]
            if not any(dropped):
                raise


def _at(merged: Mapping[str, Any], key: Key) -> Any:
    inside: Any = merged
    for name in key:
        inside = inside.get(name) if isinstance(inside, Mapping) else None
    return inside


def _put(merged: dict[str, Any], key: Key, value: str) -> None:
    inside = _at(merged, key[:-1])
    inside[key[-1]] = value


def _drop(merged: dict[str, Any], key: Key) -> bool:
    """Leave out a key, or else the nearest table above it that is there; whether one was."""
    for length in range(len(key), 0, -1):
        table: Any = _at(merged, key[: length - 1])
        if isinstance(table, dict) and key[length - 1] in table:
            del table[key[length - 1]]
            return True
    return False


def _holder(sources: tuple[Source, ...], key: Key) -> Source | None:
    """The source that a key's value comes from: the last of those that hold most of it."""
    best = max(reversed(sources), key=lambda source: source.depth(key))
    return best if best.depth(key) else None


def _place(sources: tuple[Source, ...], key: Key) -> str:
    holder = _holder(sources, key)
    return holder.place(key) if holder else ""


def _order(mistake: str) -> tuple[bool, str, int]:
    """Those of a file by line, and then all others."""
    line = re.match(r"(.*?):(\d+): ", mistake)
    return (False, line[1], int(line[2])) if line else (True, mistake, 0)


def _mistake(sources: tuple[Source, ...], key: Key, what: str) -> str:
    return f"{_place(sources, key) or 'default'}: {dotted(key)}: {what}"
