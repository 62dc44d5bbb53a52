"""Everything that can be set: names, types, limits and defaults."""

from __future__ import annotations

import ipaddress
import json
import math
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

from platformdirs import user_cache_path, user_data_path
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationInfo,
    field_validator,
)
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

ENV_PREFIX: Final = "HONESTPROXY_"
DEFAULT_UPSTREAM: Final = "local:smollm2-135m-instruct"

STRATEGY_NAMES: Final = ("raw", "curiosity", "gated", "single", "critique", "introspect")
"""Strategies that a setting may name: the keys of `strategies.STRATEGIES`."""

_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""A header's name (RFC 9110, section 5.6.2)."""

_HOST: Final = re.compile(r"[\w.:%-]+")
"""A name, or an address that stood in brackets."""

_NUMBERS: Final = (int, float, int | None, float | None)

DEFAULT_NAME: Final = "default"
"""What the setting `upstream` is called where upstreams are told apart."""

REFERENCES: Final = ("env:", "file:")
"""How a value that stands elsewhere is named; `load` puts it in."""


def _words(value: Any) -> Any:
    """A list; as text it is JSON, or words with commas between them."""
    if not isinstance(value, str):
        return value
    if (listed := _listed(value)) is not None:
        return listed
    return tuple(part.strip() for part in value.split(",") if part.strip())


def _listed(text: str) -> list[Any] | None:
    if not text.lstrip().startswith("["):
        return None
    try:
        found = json.loads(text)
    except ValueError:
        return None
    return found if isinstance(found, list) else None


def _patterns(value: Any) -> Any:
    """As `_words`, but text that isn't JSON is one pattern: those hold commas."""
    if not isinstance(value, str):
        return value
    listed = _listed(value)
    return (value,) if listed is None else listed


def _in_place(value: Any) -> Any:
    if isinstance(value, str) and value.startswith(REFERENCES):
        raise ValueError("env: and file: are read by load(); give the value itself here")
    return value


def _host(given: str) -> str:
    """The host that is meant, where a URL, a port or brackets are written around it."""
    with suppress(ValueError):
        ipaddress.ip_address(given)
        return given.lower()
    with suppress(ValueError):
        url = urlsplit(given if "://" in given else f"//{given}")
        if url.hostname and _HOST.fullmatch(url.hostname) and url.port != 0:
            return url.hostname
    raise ValueError(f"{given!r} names no host; write such as proxy.example, of each its own")


def _no_switch(fields: Mapping[str, FieldInfo], value: Any, name: str | None) -> Any:
    """Refuse true where a number belongs: to Python it is 1."""
    if isinstance(value, bool) and fields[name or ""].annotation in _NUMBERS:
        raise ValueError("Input should be a number, not true or false")
    return value


Words = Annotated[tuple[str, ...], BeforeValidator(_words)]
Patterns = Annotated[tuple[str, ...], BeforeValidator(_patterns)]
Key = Annotated[SecretStr, BeforeValidator(_in_place)]
Address = Annotated[str, BeforeValidator(_in_place)]
"""A URL that may hold a password."""


class _Table(BaseModel):
    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        validate_default=True,
        hide_input_in_errors=True,
        allow_inf_nan=False,
    )

    @field_validator("*", mode="before")
    @classmethod
    def _numbers(cls, value: Any, info: ValidationInfo) -> Any:
        return _no_switch(cls.model_fields, value, info.field_name)


class UpstreamSettings(_Table):
    """`[upstreams.NAME]`: one of several upstreams, and the models that it answers for."""

    url: str = Field(
        description="Where answers come from: any upstream spec.",
        examples=["http://127.0.0.1:8000/v1"],
    )
    key: Key | None = Field(
        None, description="Its API key: env:NAME or file:PATH.", examples=["env:HOUSE_KEY"]
    )
    models: Words = Field(
        (), description="Patterns of model names, such as gpt-*.", examples=[["llama-*", "qwen*"]]
    )
    fallbacks: Words = Field((), description="Upstreams asked where this one fails.")
    pass_key: bool = Field(
        False, description="Whether it gets the client's own Authorization, having no key."
    )


class ModelSettings(_Table):
    """`[models."PATTERN"]`: what holds for models of that name instead of the settings above."""

    strategy: str | None = None
    capabilities: Words | None = None
    threshold: float | None = Field(None, ge=0, le=1)
    confusion_tokens: int | None = Field(None, ge=16)
    step_timeout: float | None = Field(None, gt=0)
    turn_timeout: float | None = Field(None, gt=0)
    max_calls: int | None = Field(None, ge=1)
    max_tokens: int | None = Field(None, ge=1)


class Settings(BaseSettings):
    """Everything that can be set, frozen. `None` means: decided by the upstream.

    Made by hand it is what its arguments say: only `load` reads environment and files.
    """

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX,
        env_nested_delimiter="__",
        frozen=True,
        extra="forbid",
        validate_default=True,
        hide_input_in_errors=True,
        allow_inf_nan=False,
    )

    upstream: str = Field(DEFAULT_UPSTREAM, description="Where answers come from.")
    upstream_key: Key | None = Field(
        None, description="Its API key: env:NAME or file:PATH.", examples=["env:UPSTREAM_KEY"]
    )
    upstreams: dict[str, UpstreamSettings] = Field(
        {}, description="Further upstreams by name, for models of their own or as fallbacks."
    )
    fallbacks: Words = Field(
        (),
        description="Upstreams by name that are asked, in this order, where `upstream` gives no "
        "answer, 408, 429 or 5xx.",
        examples=[["house"]],
    )
    model: str | None = Field(
        None, description="Model where a request names none.", examples=["gpt-4o-mini"]
    )
    models: dict[str, ModelSettings] = Field(
        {}, description="What holds for models of a name, by pattern; the first that fits."
    )
    strategy: str | None = Field(
        None, description="Strategy where a request names none.", examples=["gated"]
    )
    prompt_set: Literal["conversation", "paper"] = Field(
        "conversation", description="Prompts of `curiosity`: for conversations, or the paper's."
    )
    prompts: Path | None = Field(
        None, description="Folder with prompt files of your own.", examples=["prompts"]
    )
    capabilities: Words = Field(
        (), description="What the app adds, e.g. web_search.", examples=[["web_search"]]
    )
    threshold: float = Field(0.8, ge=0, le=1, description="Confidence below which doubts count.")
    on_failure: Literal["draft", "error"] = Field("draft", description="When a later step fails.")
    reply: Literal["body", "headers"] = Field("body", description="Where `honesty` is put.")
    usage: Literal["sum", "answer"] = Field("sum", description="Usage: all calls, or the last.")
    variants: bool = Field(True, description="List `model@strategy` under /v1/models.")
    strategies_allowed: Words | None = Field(
        None,
        description="Strategies a request may choose; all where unset.",
        examples=[["gated", "raw"]],
    )
    experiment: dict[str, float] | None = Field(
        None,
        description="Shares of a live A/B, e.g. raw=50,gated=50; a client's choice wins.",
        examples=[{"raw": 50, "gated": 50}],
    )
    experiment_header: str = Field(
        "X-Honesty-User", description="Header that names whose requests fall to one arm."
    )
    host: str = Field("127.0.0.1", description="Address to listen on.")
    allowed_hosts: Words = Field(
        (),
        description="Hosts and sites besides this machine's own that may ask, on loopback.",
        examples=[["proxy.example"]],
    )
    port: int = Field(8400, ge=0, le=65535, description="Port to listen on; 0 picks a free one.")
    stream_head_wait: float = Field(2.0, ge=0, description="Seconds before a stream's head.")
    ping_interval: float = Field(10.0, gt=0, description="Seconds between a stream's pings.")
    connect_timeout: float = Field(10.0, gt=0, description="Seconds to reach the upstream.")
    step_timeout: float = Field(600.0, gt=0, description="Seconds that one call may take.")
    turn_timeout: float = Field(900.0, gt=0, description="Seconds that a whole turn may take.")
    confusion_tokens: int | None = Field(
        None, ge=16, description="Token cap of an elicitation.", examples=[1024]
    )
    max_calls: int | None = Field(
        None, ge=1, description="Calls that one turn may make.", examples=[5]
    )
    max_tokens: int | None = Field(
        None, ge=1, description="Tokens after which no step begins.", examples=[50_000]
    )
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
    keys: Path | None = Field(
        None, description="File of this proxy's own keys, hashed.", examples=["keys.jsonl"]
    )
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
    trace_store: Address | None = Field(
        None,
        description="Database of the traces: an SQLAlchemy URL, sqlite or postgresql.",
        repr=False,
        examples=["sqlite:///traces.db"],
    )
    trace_days: float = Field(30.0, gt=0, description="Days that a trace is kept.")
    redact: Patterns = Field(
        (),
        description="Patterns (re) that are blotted out of stored texts, besides keys.",
        examples=[["[0-9]{16}"]],
    )
    metrics: bool = Field(True, description="Serve Prometheus metrics at /metrics.")
    otlp_endpoint: str | None = Field(
        None,
        description="Collector that OpenTelemetry spans are sent to, by OTLP over HTTP.",
        examples=["http://127.0.0.1:4318"],
    )
    log_format: Literal["text", "json"] = Field("text", description="How log lines are written.")
    log_level: Literal["error", "warning", "info", "debug"] = Field(
        "warning", description="What is logged: from info on each request, from debug each call."
    )
    answer_cache: Address | None = Field(
        None,
        description="Cache of whole answers: memory, or a redis:// URL.",
        repr=False,
        examples=["memory"],
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

    @field_validator("*", mode="before")
    @classmethod
    def _numbers(cls, value: Any, info: ValidationInfo) -> Any:
        return _no_switch(cls.model_fields, value, info.field_name)

    @field_validator("experiment", mode="before")
    @classmethod
    def _shares(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        pairs = [part.partition("=") for part in value.split(",") if part.strip()]
        names = [name.strip() for name, _, _ in pairs]
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"the arm {twice[0]!r} stands there twice")
        return {name.strip(): share.strip() or "1" for name, _, share in pairs}

    @field_validator("experiment", mode="after")
    @classmethod
    def _positive(cls, value: dict[str, float] | None) -> dict[str, float] | None:
        if value is None:
            return value
        if not math.isfinite(sum(value.values())):
            raise ValueError("shares that large add up to nothing: give such as raw=50,gated=50")
        if len(value) < 2 or min(value.values()) <= 0:
            raise ValueError("give two arms or more, each with a share above 0: raw=50,gated=50")
        return value

    @field_validator("prompts", "cache", "exemplars", "keys", mode="after")
    @classmethod
    def _home(cls, value: Path | None) -> Path | None:
        return value.expanduser() if value else value

    @field_validator("allowed_hosts", mode="after")
    @classmethod
    def _hosts(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(map(_host, value))

    @field_validator("otlp_endpoint", mode="after")
    @classmethod
    def _collector(cls, value: str | None) -> str | None:
        if value is not None:
            url = urlsplit(value)
            if url.scheme not in ("http", "https") or not url.hostname or url.port == 0:
                raise ValueError("needs http:// or https:// and a host, and most often port 4318")
        return value

    @field_validator("experiment_header", mode="after")
    @classmethod
    def _header(cls, value: str) -> str:
        if not _TOKEN.fullmatch(value):
            raise ValueError(f"{value!r} can't be a header's name: letters, digits and dashes")
        return value

    @field_validator("redact", mode="after")
    @classmethod
    def _compiled(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for number, pattern in enumerate(value, 1):
            try:
                found = re.compile(pattern)
            except (re.error, RecursionError, OverflowError) as error:
                raise ValueError(f"pattern {number} is no pattern of re's: {error}") from None
            if found.match(""):
                raise ValueError(f"pattern {number} fits everywhere, even where nothing is")
        return value

    def alone(self, name: str) -> Settings:
        """The same as if the upstream of that name were the only one."""
        if name == DEFAULT_NAME:
            return self
        own = self.upstreams[name]
        return self.model_copy(update={"upstream": own.url, "upstream_key": own.key})

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """What the arguments say, and nothing else."""
        return (init_settings,)
