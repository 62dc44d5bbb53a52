"""Settings, from flags, then `HONESTPROXY_*`, then a TOML file, then defaults."""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from honestproxy.errors import SettingsError
from honestproxy.settings.fields import ENV_PREFIX, Settings

DEFAULT_CONFIG = Path("honestproxy.toml")


def load(
    config: Path | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    **flags: Any,
) -> Settings:
    """Settings from all sources; a flag that is None was not given.

    Raises SettingsError, naming the source, the key and the nearest known one.
    """
    sources = [
        (f"{config or DEFAULT_CONFIG}", _from_file(config)),
        ("environment", _from_environ(os.environ if environ is None else environ)),
        ("command line", {name: value for name, value in flags.items() if value is not None}),
    ]
    merged: dict[str, Any] = {}
    origin: dict[str, str] = {}
    for source, values in sources:
        for key in values:
            _check_known(key, source)
        merged |= values
        origin |= dict.fromkeys(values, source)
    try:
        return Settings(**merged)
    except ValidationError as error:
        raise SettingsError("; ".join(_explain(error, origin))) from None


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint that names the known word nearest to `name`, or lists them all."""
    words = sorted(known)
    match = difflib.get_close_matches(name, words, n=1, cutoff=0.5)
    return f"did you mean {match[0]!r}?" if match else f"known are {', '.join(words)}"


def _check_known(key: str, source: str) -> None:
    if key not in Settings.model_fields:
        hint = nearest(key, Settings.model_fields)
        raise SettingsError(f"{source}: unknown setting {key!r}; {hint}")


def _explain(error: ValidationError, origin: Mapping[str, str]) -> Iterable[str]:
    for detail in error.errors(include_url=False, include_input=False):
        key = str(detail["loc"][0]) if detail["loc"] else "?"
        yield f"{origin.get(key, 'defaults')}: {key}: {detail['msg']}"


def _from_file(config: Path | None) -> dict[str, Any]:
    path = config or DEFAULT_CONFIG
    if config is None and not path.is_file():
        return {}
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise SettingsError(f"{path}: can't be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: not TOML: {error}") from None


def _from_environ(environ: Mapping[str, str]) -> dict[str, Any]:
    return {
        name.removeprefix(ENV_PREFIX).lower(): value
        for name, value in environ.items()
        if name.startswith(ENV_PREFIX)
    }
