"""Settings, from flags, then `HONESTPROXY_*`, then a TOML file, then defaults."""

from __future__ import annotations

from honestproxy.settings.fields import (
    DEFAULT_UPSTREAM,
    ENV_PREFIX,
    ModelSettings,
    Settings,
    UpstreamSettings,
)
from honestproxy.settings.loading import DEFAULT_CONFIG, load, nearest

__all__ = [
    "DEFAULT_CONFIG",
    "DEFAULT_UPSTREAM",
    "ENV_PREFIX",
    "ModelSettings",
    "Settings",
    "UpstreamSettings",
    "load",
    "nearest",
]
