"""Settings, from flags, then `HONESTPROXY_*`, then a TOML file, then defaults."""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from platformdirs import user_cache_path, user_data_path
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator

from honestproxy.errors import SettingsError

ENV_PREFIX = "HONESTPROXY_"
DEFAULT_UPSTREAM = "local:smollm2-135m-instruct"
DEFAULT_CONFIG = Path("honestproxy.toml")


class Settings(BaseModel):
    """Everything that can be set, frozen. `None` means: decided by the upstream."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    upstream: str = Field(DEFAULT_UPSTREAM, description="Where answers come from.")
    upstream_key: SecretStr | None = Field(None, description="Its API key.")
    model: str | None = Field(None, description="Model where a request names none.")
    strategy: str | None = Field(None, description="Strategy where a request names none.")
    prompt_set: Literal["conversation", "paper"] = Field(
        "conversation", description="Prompts of `curiosity`: for conversations, or the paper's."
    )
    prompts: Path | None = Field(None, description="Folder with prompt files of your own.")
    capabilities: tuple[str, ...] = Field((), description="What the app adds, e.g. web_search.")
    threshold: float = Field(0.8, ge=0, le=1, description="Confidence below which doubts count.")
    on_failure: Literal["draft", "error"] = Field("draft", description="When a later step fails.")
    reply: Literal["body", "headers"] = Field("body", description="Where `honesty` is put.")
    usage: Literal["sum", "answer"] = Field("sum", description="Usage: all calls, or the last.")
    variants: bool = Field(True, description="List `model@strategy` under /v1/models.")
    strategies_allowed: tuple[str, ...] | None = Field(
        None, description="Strategies a request may choose; all where unset."
    )
    experiment: dict[str, float] | None = Field(
        None, description="Shares of a live A/B, e.g. raw=50,gated=50; a client's choice wins."
    )
    experiment_header: str = Field(
        "X-Honesty-User", description="Header that names whose requests fall to one arm."
    )
    host: str = Field("127.0.0.1", description="Address to listen on.")
    allowed_hosts: tuple[str, ...] = Field(
        (), description="Hosts and sites besides this machine's own that may ask, on loopback."
    )
    port: int = Field(8400, ge=0, le=65535, description="Port to listen on; 0 picks a free one.")
    stream_head_wait: float = Field(2.0, ge=0, description="Seconds before a stream's head.")
    ping_interval: float = Field(10.0, gt=0, description="Seconds between a stream's pings.")
    connect_timeout: float = Field(10.0, gt=0, description="Seconds to reach the upstream.")
    step_timeout: float = Field(600.0, gt=0, description="Seconds that one call may take.")
    confusion_tokens: int | None = Field(None, ge=16, description="Token cap of an elicitation.")
    max_body_bytes: int = Field(50_000_000, gt=0, description="Largest request body.")
    cache: Path = Field(
        default_factory=lambda: user_cache_path("honestproxy", appauthor=False),
        description="Folder for fetched models and fitted readers.",
    )
    exemplars: Path = Field(
        default_factory=lambda: user_data_path("honestproxy", appauthor=False) / "exemplars",
        description="Folder with labelled questions of your own, which `introspect` learns from.",
    )

    @field_validator("capabilities", "strategies_allowed", "allowed_hosts", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("experiment", mode="before")
    @classmethod
    def _shares(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        pairs = [part.partition("=") for part in value.split(",") if part.strip()]
        return {name.strip(): share.strip() or "1" for name, _, share in pairs}

    @field_validator("experiment", mode="after")
    @classmethod
    def _positive(cls, value: dict[str, float] | None) -> dict[str, float] | None:
        if value is not None and (len(value) < 2 or min(value.values()) <= 0):
            raise ValueError("give two arms or more, each with a share above 0: raw=50,gated=50")
        return value

    @field_validator("prompts", "cache", "exemplars", mode="after")
    @classmethod
    def _home(cls, value: Path | None) -> Path | None:
        return value.expanduser() if value else value


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
