"""The proxy as an application of Ray Serve: `serve run honestproxy.ray:app`."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from ray import serve
from ray.serve import Application
from starlette.types import ASGIApp, Receive, Scope, Send

from honestproxy.errors import Forbidden, HonestProxyError, SettingsError
from honestproxy.ray.model import Model, reached
from honestproxy.server import create_app
from honestproxy.server.access.guard import is_loopback
from honestproxy.server.answering import refuse
from honestproxy.settings import DEFAULT_CONFIG, Settings, load
from honestproxy.settings.references import is_reference
from honestproxy.types import Backend

PROXY: Final = "Proxy"
MODEL: Final = "Model"
"""The deployments' names, by which a Serve configuration sets their options."""

_LOCAL: Final = "local:"
"""What the spec of an upstream begins with that has its own deployment, unless told otherwise."""
_WITH_PASSWORDS: Final = ("trace_store", "answer_cache")
"""Settings that are URLs, in which a password may stand."""


class Arguments(BaseModel):
    """What the application takes: these, and any setting by its name.

    `config` is the path of a settings file that is there on every node; `cpus` and `gpus` are what
    Ray reserves for a replica. `max_replicas` has Serve scale the proxies by what is under way:
    `target` requests a replica, from `replicas` on. `apart` gives any upstream a deployment of its
    own, as a local model has it anyway: for a backend of one's own that needs a GPU, say.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    config: Path | None = None
    replicas: int = Field(1, ge=1)
    max_replicas: int | None = Field(None, ge=1)
    target: float = Field(64, gt=0)
    cpus: float = Field(1, gt=0)
    apart: bool | None = None
    model_replicas: int = Field(1, ge=1)
    model_cpus: float = Field(1, ge=0)
    model_gpus: float = Field(0, ge=0)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.max_replicas is not None and self.max_replicas < self.replicas:
            raise ValueError("max_replicas is below replicas")
        if any(not is_reference(secret) for secret in _secrets(self.flags)):
            raise ValueError(
                "a key or password is among them, and Ray shows arguments: say env:NAME or "
                "file:PATH, or put it into the settings file"
            )
        return self

    @property
    def flags(self) -> dict[str, Any]:
        """The settings among them."""
        return dict(self.model_extra or {})

    def has_model(self, settings: Settings) -> bool:
        """Whether the upstream is a deployment of its own."""
        return settings.upstream.startswith(_LOCAL) if self.apart is None else self.apart


def _secrets(flags: Mapping[str, Any]) -> Iterator[Any]:
    """What of settings nobody is to see, or where it stands."""
    tables = flags.get("upstreams") or {}
    keys = [table.get("key") for table in tables.values() if isinstance(table, dict)]
    yield from (key for key in (flags.get("upstream_key"), *keys) if key)
    urls = [str(flags.get(name) or "") for name in _WITH_PASSWORDS]
    yield from (url for url in urls if urlsplit(url).password)


def app(args: dict[str, Any]) -> Application:
    """The application, as Serve's commands and configuration files ask for it."""
    try:
        return build_app(Arguments(**args))
    except ValidationError as error:
        told = (
            ": ".join([*map(str, detail["loc"]), detail["msg"]])
            for detail in error.errors(include_url=False, include_input=False)
        )
        raise SettingsError(f"arguments: {'; '.join(told)}") from None


def build_app(arguments: Arguments | None = None) -> Application:
    """The application: proxies, and the local model if the settings name one.

    Raises SettingsError where they can't work on this machine, before anything is started.
    """
    arguments = arguments or Arguments()
    config = _found(arguments.config)
    settings = load(config, **arguments.flags)
    _check_closed(settings)
    ingress = _proxy(arguments, settings, Ingress(config, arguments, settings))
    if not arguments.has_model(settings):
        return ingress.bind()
    return ingress.bind(_model(arguments, settings).bind(config, arguments.flags))


def _check_closed(settings: Settings) -> None:
    if not (is_loopback(settings.host) or settings.keys or settings.allow_open):
        raise SettingsError(
            f"host {settings.host}: whoever reaches it could use the upstream with your key; give "
            "the proxy keys of its own (`keys`), or set `allow_open`"
        )


def _found(config: Path | None) -> Path | None:
    """The settings file by its full path: replicas run in other folders."""
    if config is None and not DEFAULT_CONFIG.is_file():
        return None
    return (config or DEFAULT_CONFIG).absolute()


def _proxy(arguments: Arguments, settings: Settings, ingress: Ingress) -> serve.Deployment:
    return serve.deployment(serve.ingress(ingress)()).options(
        name=PROXY,
        **_scaled(arguments),
        ray_actor_options={"num_cpus": arguments.cpus},
        # Who waits, and who is sent away, is the proxy's own business.
        max_ongoing_requests=settings.max_concurrency + settings.max_queue,
        graceful_shutdown_timeout_s=settings.shutdown_timeout,
    )


def _scaled(arguments: Arguments) -> dict[str, Any]:
    if arguments.max_replicas is None:
        return {"num_replicas": arguments.replicas}
    scaling = {
        "min_replicas": arguments.replicas,
        "max_replicas": arguments.max_replicas,
        "target_ongoing_requests": arguments.target,
    }
    return {"autoscaling_config": scaling}


def _model(arguments: Arguments, settings: Settings) -> serve.Deployment:
    return serve.deployment(Model).options(
        name=MODEL,
        num_replicas=arguments.model_replicas,
        ray_actor_options={"num_cpus": arguments.model_cpus, "num_gpus": arguments.model_gpus},
        max_ongoing_requests=settings.max_concurrency + settings.max_queue,
        graceful_shutdown_timeout_s=settings.shutdown_timeout,
    )


class Ingress:
    """An ASGI application that is made where its life begins: on its replica, by its settings."""

    def __init__(self, config: Path | None, arguments: Arguments, settings: Settings) -> None:
        self._config = config
        self._arguments = arguments
        self._mark = _mark(settings)
        self._app: ASGIApp | None = None
        self._is_for_here = True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or begin."""
        if self._app is None:
            try:
                self._app = await self._made()
            except HonestProxyError as error:
                if scope["type"] != "lifespan":
                    raise
                await receive()
                await send({"type": "lifespan.startup.failed", "message": error.message})
                return
        if scope["type"] == "http" and self._is_for_here and not _is_near(scope):
            await refuse(send, Forbidden(_TOO_FAR))
            return
        await self._app(scope, receive, send)

    async def _made(self) -> ASGIApp:
        arguments = self._arguments
        settings = load(self._config, **arguments.flags)
        if _mark(settings) != self._mark:
            raise SettingsError(
                "this node's settings name another upstream than those where the application was "
                "built: give every node the same file and environment"
            )
        self._is_for_here = is_loopback(settings.host)
        return create_app(settings, await _model_of(arguments, settings))


def _mark(settings: Settings) -> str:
    """What tells one upstream from another, and nothing of it: Ray keeps it."""
    return hashlib.sha256(settings.upstream.encode()).hexdigest()[:16]


_TOO_FAR: Final = (
    "this proxy answers its own machine alone; to have it answer others, set `host` to the "
    "address that Serve listens on, and give it keys"
)


def _is_near(scope: Scope) -> bool:
    """Whether a request came from this machine; who asks for Serve itself has no address."""
    client = scope.get("client")
    return not client or is_loopback(str(client[0]))


async def _model_of(arguments: Arguments, settings: Settings) -> Backend | None:
    """The model of this application, where it has one."""
    if not arguments.has_model(settings):
        return None
    own = serve.get_replica_context().app_name
    return await reached(serve.get_deployment_handle(MODEL, app_name=own))
