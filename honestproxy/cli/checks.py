"""The doctor's checks: each looks at one thing and says what would mend it."""

from __future__ import annotations

import asyncio
import os
import platform
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from typing import Literal

from honestproxy.cli import question
from honestproxy.cli.models import EMBEDDED, embedded_row
from honestproxy.cli.serve import listening
from honestproxy.errors import HonestProxyError
from honestproxy.settings import DEFAULT_CONFIG, ENV_PREFIX, Settings
from honestproxy.settings.references import blotted

State = Literal["ok", "note", "broken"]

_PATIENCE = 5.0
"""Seconds that an upstream is given to list its models."""


@dataclass(frozen=True, slots=True)
class Check:
    """One finding: `note` is worth knowing, `broken` is configured and can't work."""

    name: str
    state: State
    found: str
    remedy: str = ""


async def run_all(settings: Settings) -> list[Check]:
    """Every check, in the order in which one would mend things."""
    checks = [
        _python(),
        _packages(),
        _sources(),
        _prompts(settings),
        _exemplars(settings),
        _cache(settings),
        _port(settings),
        _torch(settings),
        _embedded(settings),
        _litellm(settings),
    ]
    return [*checks, await _upstream(settings)]


def _python() -> Check:
    found = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    return Check("Python", "ok", found)


def _packages() -> Check:
    names = ("honestproxy", "fastapi", "httptools", "uvloop", "pydantic", "openai")
    found = [f"{name} {version}" for name in names if (version := _version(name))]
    return Check("packages", "ok", ", ".join(found))


def _sources() -> Check:
    found = [str(DEFAULT_CONFIG)] if DEFAULT_CONFIG.is_file() else []
    found += sorted(name for name in os.environ if name.startswith(ENV_PREFIX))
    return Check("settings", "ok", ", ".join(found) or "defaults and flags")


def _prompts(settings: Settings) -> Check:
    where = f"shipped, and yours in {settings.prompts}" if settings.prompts else "shipped"
    try:
        question.check(settings)
    except HonestProxyError as error:
        return Check("prompts, strategy", "broken", error.message, "honestproxy prompts check")
    return Check("prompts, strategy", "ok", where)


def _exemplars(settings: Settings) -> Check:
    from honestproxy.backends.local import own

    try:
        number = len(own.load(settings.exemplars))
    except HonestProxyError as error:
        state: State = "broken" if _is_local(settings) else "note"
        remedy = "mend it, or honestproxy introspect fit --forget NAME"
        return Check("exemplars", state, error.message, remedy)
    found = f", and {number} of yours in {settings.exemplars}" if number else ""
    return Check("exemplars", "ok", f"shipped{found}")


def _cache(settings: Settings) -> Check:
    try:
        settings.cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=settings.cache):
            return Check("cache folder", "ok", str(settings.cache))
    except OSError as error:
        found = f"{settings.cache}: {error.strerror}"
        state: State = "broken" if _is_local(settings) else "note"
        return Check("cache folder", state, found, f"set {ENV_PREFIX}CACHE to one of yours")


def _port(settings: Settings) -> Check:
    name = f"port {settings.port}"
    try:
        listening(settings.host, settings.port).close()
    except HonestProxyError as error:
        return Check(name, "note", error.message, "a proxy may be running already; or --port")
    return Check(name, "ok", f"free on {settings.host}")


def _torch(settings: Settings) -> Check:
    lacking = [name for name in ("torch", "transformers", "gguf") if not _version(name)]
    if lacking:
        state: State = "broken" if _is_local(settings) else "note"
        remedy = "pip install 'honestproxy[local]' (only local models need it)"
        return Check("local models", state, f"{', '.join(lacking)} not installed", remedy)
    return Check("local models", "ok", f"torch {_version('torch')}, {_device()}")


def _device() -> str:
    import torch

    if torch.cuda.is_available():
        return f"on {torch.cuda.get_device_name()}"
    from honestproxy.backends.local.weights import has_fast_bfloat16

    native = "with" if has_fast_bfloat16() else "without"
    return f"on {torch.get_num_threads()} CPU threads, {native} fast bfloat16"


def _embedded(settings: Settings) -> Check:
    row = embedded_row(settings)
    if row["state"] == "ready":
        return Check(EMBEDDED, "ok", f"{row['path']}")
    return Check(EMBEDDED, "note", row["state"], "honestproxy models pull")


def _litellm(settings: Settings) -> Check:
    version = _version("litellm")
    if version:
        return Check("litellm", "ok", version)
    state: State = "broken" if settings.upstream.startswith("litellm:") else "note"
    remedy = "pip install 'honestproxy[litellm]' (only litellm: upstreams need it)"
    return Check("litellm", state, "not installed", remedy)


async def _upstream(settings: Settings) -> Check:
    if _is_local(settings):
        return Check("upstream", "ok", blotted(settings.upstream))
    try:
        async with asyncio.timeout(_PATIENCE), question.opened(settings) as pipeline:
            names = [str(model["id"]) for model in await pipeline.models()]
    except TimeoutError:
        found = f"{blotted(settings.upstream)} lists no models within {_PATIENCE:.0f} s"
        return Check("upstream", "broken", found, "is it running, and is the address right?")
    except HonestProxyError as error:
        return Check("upstream", "broken", error.message, "set upstream, and upstream_key")
    return Check("upstream", "ok", f"{blotted(settings.upstream)}: {', '.join(_some(names))}")


def _some(names: list[str]) -> Iterator[str]:
    yield from names[:3]
    if len(names) > 3:
        yield f"and {len(names) - 3} more"


def _is_local(settings: Settings) -> bool:
    return settings.upstream.startswith("local:")


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
