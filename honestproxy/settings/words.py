"""Words of an error in settings: a key as TOML has it, and the known name nearest to another."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from honestproxy.settings.fields import ModelSettings, Settings, UpstreamSettings
from honestproxy.settings.lines import Key


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint that names the known word nearest to `name`, or lists them all."""
    words = sorted(known)
    match = difflib.get_close_matches(name, words, n=1, cutoff=0.5)
    return f"did you mean {match[0]!r}?" if match else f"known are {', '.join(words)}"


def dotted(key: Key) -> str:
    """A key as TOML writes it: `models."gpt-5*".strategy`; an item as `fallbacks[1]`."""
    shown = ""
    for name in key:
        if isinstance(name, int):
            shown += f"[{name}]"
        else:
            bare = re.fullmatch(r"[A-Za-z0-9_-]+", name)
            shown += f".{name if bare else json.dumps(name, ensure_ascii=False)}"
    return shown.removeprefix(".")


def told(error: Mapping[str, Any]) -> tuple[Key, str]:
    """The key of one of pydantic's errors, and what is wrong there, without the value."""
    key: Key = tuple(error["loc"]) or ("?",)
    if error["type"] == "extra_forbidden":
        return key, unknown(key)
    if error["type"] == "missing":
        return key, f"{dotted(key)} is missing"
    message = str(error["msg"]).removeprefix("Value error, ")
    return key, f"{dotted(key)}: {message}{_as_table(key, error)}"


def unknown(key: Key) -> str:
    """What is wrong where no setting has that name."""
    return f"unknown setting {dotted(key)!r}; {nearest(str(key[-1]), _known(key))}"


def _known(key: Key) -> Iterable[str]:
    """The names that may stand where the key's last one does."""
    tables = {
        "upstreams": UpstreamSettings.model_fields,
        "models": ModelSettings.model_fields,
    }
    return tables.get(str(key[0]), ()) if len(key) > 1 else Settings.model_fields


def _as_table(key: Key, error: Mapping[str, Any]) -> str:
    """A hint where `[upstream.NAME]` was written for `[upstreams.NAME]`, and likewise."""
    plural = f"{key[0]}s"
    is_table = isinstance(error.get("input"), dict) and len(key) == 1
    return f"; did you mean [{plural}.…]?" if is_table and plural in Settings.model_fields else ""
