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


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


class UpstreamSettings(_Table):
    """`[upstreams.NAME]`: one of several upstreams, and the models that it answers for."""

    url: str = Field(description="Where answers come from: any upstream spec.")
    key: SecretStr | None = Field(None, description="Its API key: env:NAME or file:PATH.")
    models: tuple[str, ...] = Field((), description="Patterns of model names, such as gpt-*.")
    fallbacks: tuple[str, ...] = Field((), description="Upstreams asked where this one fails.")


class ModelSettings(_Table):
    """`[models."PATTERN"]`: what holds for models of that name instead of the settings above."""

    strategy: str | None = None
    capabilities: tuple[str, ...] | None = None
    threshold: float | None = Field(None, ge=0, le=1)
    confusion_tokens: int | None = Field(None, ge=16)
    step_timeout: float | None = Field(None, gt=0)
    turn_timeout: float | None = Field(None, gt=0)
    max_calls: int | None = Field(None, ge=1)
    max_tokens: int | None = Field(None, ge=1)


class Settings(_Table):
    """Everything that can be set, frozen. `None` means: decided by the upstream."""

    upstream: str = Field(DEFAULT_UPSTREAM, description="Where answers come from.")
    upstream_key: SecretStr | None = Field(None, description="Its API key.")
    upstreams: dict[str, UpstreamSettings] = Field(
        {}, description="Further upstreams by name, for models of their own or as fallbacks."
    )
    fallbacks: tuple[str, ...] = Field(
        (), description="Upstreams of that table, asked in this order where `upstream` fails."
    )
    model: str | None = Field(None, description="Model where a request names none.")
    models: dict[str, ModelSettings] = Field(
        {}, description="What holds for models of a name, by pattern; the first that fits."
    )
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
    turn_timeout: float = Field(900.0, gt=0, description="Seconds that a whole turn may take.")
    confusion_tokens: int | None = Field(None, ge=16, description="Token cap of an elicitation.")
    max_calls: int | None = Field(None, ge=1, description="Calls that one turn may make.")
    max_tokens: int | None = Field(None, ge=1, description="Tokens after which no step begins.")
    retries: int = Field(1, ge=0, le=10, description="Retries of connection errors, 502 and 503.")
    retry_429: bool = Field(False, description="Retry a 429 too, instead of passing it on.")
    breaker_failures: int = Field(
        10, ge=0, description="Failures in a row after which an upstream is left alone; 0: never."
    )
    breaker_seconds: float = Field(10.0, gt=0, description="Seconds for which it is left alone.")
    max_concurrency: int = Field(1000, ge=1, description="Requests that are answered at once.")
    max_queue: int = Field(1000, ge=0, description="Requests that wait for a place beyond those.")
    queue_timeout: float = Field(10.0, gt=0, description="Seconds that one waits at most.")
    degrade: bool = Field(
        False, description="Under pressure: gated becomes single, then raw, before any 429."
    )
    shutdown_timeout: float = Field(
        20.0, ge=0, description="Seconds that answers under way are given at the end."
    )
    keys: Path | None = Field(None, description="File of this proxy's own keys, hashed.")
    allow_open: bool = Field(
        False, description="Listen beyond this machine without keys of one's own."
    )
    max_body_bytes: int = Field(50_000_000, gt=0, description="Largest request body.")
    max_header_bytes: int = Field(65_536, gt=0, description="Largest request head.")
    max_messages: int = Field(10_000, gt=0, description="Most messages of a conversation.")
    body_timeout: float = Field(60.0, gt=0, description="Seconds for a request to come whole.")
    traces: Literal["off", "facts", "texts"] = Field(
        "facts", description="What is stored of each request: nothing, no text, or all."
    )
    trace_store: str | None = Field(
        None, description="Database of the traces: an SQLAlchemy URL, sqlite or postgresql."
    )
    trace_days: float = Field(30.0, gt=0, description="Days that a trace is kept.")
    redact: tuple[str, ...] = Field(
        (), description="Patterns (re) that are blotted out of stored texts, besides keys."
    )
    metrics: bool = Field(True, description="Serve Prometheus metrics at /metrics.")
    otlp_endpoint: str | None = Field(
        None, description="Collector that OpenTelemetry spans are sent to, by OTLP over HTTP."
    )
    log_format: Literal["text", "json"] = Field("text", description="How log lines are written.")
    answer_cache: str | None = Field(
        None, description="Cache of whole answers: memory, or a redis:// URL."
    )
    answer_cache_seconds: float = Field(3600.0, gt=0, description="Seconds an answer is cached.")
    cache: Path = Field(
        default_factory=lambda: user_cache_path("honestproxy", appauthor=False),
        description="Folder for fetched models and fitted readers.",
    )
    exemplars: Path = Field(
        default_factory=lambda: user_data_path("honestproxy", appauthor=False) / "exemplars",
        description="Folder with labelled questions of your own, which `introspect` learns from.",
    )

    @field_validator(
        *("capabilities", "strategies_allowed", "allowed_hosts", "fallbacks"), mode="before"
    )
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

    @field_validator("prompts", "cache", "exemplars", "keys", mode="after")
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
