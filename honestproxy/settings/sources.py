"""Where settings come from: a TOML file, the environment, flags; and where in it each stands."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from pydantic.fields import FieldInfo
from pydantic_settings import EnvSettingsSource

from honestproxy.errors import SettingsError
from honestproxy.settings.fields import ENV_PREFIX, Settings
from honestproxy.settings.lines import Key, lines

DEFAULT_CONFIG: Final = Path("honestproxy.toml")
_NESTED: Final = "__"
_TABLES: Final = ("upstreams", "models", "experiment")
"""Settings of which a variable may name a part."""
_OTHERS: Final = {"OTEL_EXPORTER_OTLP_ENDPOINT": "otlp_endpoint"}
"""Variables that aren't ours and set something here, where ours don't."""
_PLACE: Final = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)")


@dataclass(frozen=True)
class Source:
    """Settings from one place; `places` says where in it each key stands."""

    values: dict[str, Any] = field(default_factory=dict, repr=False)
    places: Mapping[Key, str] = field(default_factory=dict)
    file: Path | None = None

    def depth(self, key: Key) -> int:
        """How much of the way to a key is here."""
        inside: Any = self.values
        for depth, name in enumerate(key):
            is_here = isinstance(inside, dict) and name in inside
            if not is_here and not (
                isinstance(inside, list | tuple) and name in range(len(inside))
            ):
                return depth
            inside = inside[name]
        return len(key)

    def place(self, key: Key) -> str:
        """Where a key stands, or else the table that it belongs to."""
        above = (key[:length] for length in range(len(key), 0, -1))
        return next((self.places[part] for part in above if part in self.places), "")


class _Environment(EnvSettingsSource):
    """Reads variables; text that isn't JSON is left for the fields to read."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        super().__init__(Settings)
        self.env_vars = {name.lower(): value for name, value in environ.items()}

    def decode_complex_value(self, field_name: str, field: FieldInfo, value: Any) -> Any:
        """What JSON says, where it is an object or a list."""
        try:
            decoded = json.loads(value)
        except ValueError:
            return value
        return decoded if isinstance(decoded, dict | list) else value


def from_flags(flags: Mapping[str, Any]) -> Source:
    """What was given on the command line; None was not."""
    given = {name: value for name, value in flags.items() if value is not None}
    return Source(given, {(name,): f"--{name.replace('_', '-')}" for name in given})


def from_environ(environ: Mapping[str, str]) -> Source:
    """What variables `HONESTPROXY_<NAME>` say; `__` leads into tables, whose names are lower case.

    Those that are no setting are in it as well, to be told. One that is empty isn't set: that is
    how a compose file leaves a variable out.
    """
    prefix = ENV_PREFIX.lower()
    set_ones = ((name, value) for name, value in environ.items() if value)
    ours = {name: value for name, value in set_ones if name.lower().startswith(prefix)}
    places: dict[Key, str] = {}
    values = _Environment(ours)()
    for name in sorted(ours):
        whole, place = name.lower().removeprefix(prefix), f"environment {name}"
        key = tuple(whole.split(_NESTED))
        if key[0] not in Settings.model_fields or (len(key) > 1 and key[0] not in _TABLES):
            key = (whole,)
            values[whole] = ours[name]
        places[key] = place
        for depth in range(1, len(key)):  # for what is missing beside it
            places.setdefault(key[:depth], place)
    for name, setting in _OTHERS.items():
        if environ.get(name) and setting not in values:
            values[setting] = environ[name]
            places[(setting,)] = f"environment {name}"
    return Source(values, places)


def from_file(config: Path | None) -> Source:
    """What a TOML file says; none is needed here. Raises SettingsError where it can't be read."""
    path = config or DEFAULT_CONFIG
    if config is None and not path.is_file():
        return Source()
    text = _text(path)
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(_not_toml(path, text, str(error))) from None
    except RecursionError:
        raise SettingsError(f"{path}: not TOML: nested too deeply") from None
    return Source(values, {key: f"{path}:{line}" for key, line in lines(text).items()}, path)


def _text(path: Path) -> str:
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise SettingsError(f"{path}: can't be read: {error.strerror}") from None
    if raw.startswith(b"\xef\xbb\xbf"):
        raise SettingsError(f"{path}:1: begins with a byte order mark: save it as UTF-8 without")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise SettingsError(f"{path}:{line}: not UTF-8: save it as UTF-8") from None


def _not_toml(path: Path, text: str, why: str) -> str:
    """The parser's message, its line in front."""
    place = _PLACE.search(why)
    last = text.rstrip("\n").count("\n") + 1
    line = (place[1] or last) if place else last
    return f"{path}:{line}: not TOML: {_PLACE.sub('', why)}"
