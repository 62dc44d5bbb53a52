"""Settings, from flags, then `HONESTPROXY_*`, then a TOML file, then defaults."""

from __future__ import annotations

from honestproxy.settings.fields import (
    DEFAULT_NAME,
    DEFAULT_UPSTREAM,
    ENV_PREFIX,
    ModelSettings,
    Settings,
    UpstreamSettings,
)
from honestproxy.settings.loading import Gathered, gather, in_order, load
from honestproxy.settings.sources import DEFAULT_CONFIG
from honestproxy.settings.words import nearest

__all__ = [
    "DEFAULT_CONFIG",
    "DEFAULT_NAME",
    "DEFAULT_UPSTREAM",
    "ENV_PREFIX",
    "Gathered",
    "ModelSettings",
    "Settings",
    "UpstreamSettings",
    "gather",
    "in_order",
    "load",
    "nearest",
]
