"""The proxy as an application of Ray Serve: `serve run honestproxy.ray:app`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from ray import serve
from ray.serve import Application
from starlette.types import ASGIApp, Receive, Scope, Send

from honestproxy.errors import Forbidden, HonestProxyError, SettingsError
from honestproxy.ray.model import PREFIX, Model, Remote, answered
from honestproxy.server import create_app
from honestproxy.server.answering import refuse
from honestproxy.server.guard import is_loopback
from honestproxy.settings import DEFAULT_CONFIG, Settings, load

PROXY: Final = "Proxy"
MODEL: Final = "Model"
"""The deployments' names, by which a Serve configuration sets their options."""

_SECRET: Final = frozenset({"upstream_key"})
"""Settings that are no argument: Ray keeps and shows those."""


class Arguments(BaseModel):
    """What the application takes: these, and any setting by its name.

    `config` is the path of a settings file that is there on every node. `cpus` and `gpus` are
    what Ray reserves for a replica. `max_replicas` has Serve scale the proxies by what is under
    way: `target` requests a replica, from `replicas` on.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    config: Path | None = None
    replicas: int = Field(1, ge=1)
    max_replicas: int | None = Field(None, ge=1)
    target: float = Field(64, gt=0)
    cpus: float = Field(1, gt=0)
    model_replicas: int = Field(1, ge=1)
    model_cpus: float = Field(1, ge=0)
    model_gpus: float = Field(0, ge=0)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.max_replicas is not None and self.max_replicas < self.replicas:
            raise ValueError("max_replicas is below replicas")
        if shown := _SECRET & self.flags.keys():
            raise ValueError(
                f"{', '.join(shown)}: Ray shows arguments; put it into the settings "
                "file as env:NAME or file:PATH, or into the nodes' environment"
            )
        return self

    @property
    def flags(self) -> dict[str, Any]:
        """The settings among them."""
        return dict(self.model_extra or {})


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
    below = []
    if settings.upstream.startswith(PREFIX):
        below.append(_model(arguments, settings).bind(config, arguments.flags))
    ingress = Ingress(config, arguments.flags, has_model=bool(below))
    return _proxy(arguments, settings, ingress).bind(*below)


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

    def __init__(self, config: Path | None, flags: Mapping[str, Any], *, has_model: bool) -> None:
        self._config = config
        self._flags = flags
        self._has_model = has_model
        self._app: ASGIApp | None = None
        self._is_for_here = True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or begin."""
        if self._app is None:
            try:
                self._app = await self._made()
            except HonestProxyError as error:
                await receive()
                await send({"type": "lifespan.startup.failed", "message": error.message})
                return
        if scope["type"] == "http" and self._is_for_here and not _is_near(scope):
            await refuse(send, Forbidden(_TOO_FAR))
            return
        await self._app(scope, receive, send)

    async def _made(self) -> ASGIApp:
        settings = load(self._config, **self._flags)
        if settings.upstream.startswith(PREFIX) != self._has_model:
            raise SettingsError(
                f"this node's settings name the upstream {settings.upstream!r}, and those where "
                "the application was built another kind: give every node the same"
            )
        self._is_for_here = is_loopback(settings.host)
        return create_app(settings, await _reached() if self._has_model else None)


_TOO_FAR: Final = (
    "this proxy answers its own machine alone; to have it answer others, set `host` to the "
    "address that Serve listens on, and give it keys"
)


def _is_near(scope: Scope) -> bool:
    """Whether a request came from this machine; who asks for Serve itself has no address."""
    client = scope.get("client")
    return not client or is_loopback(str(client[0]))


async def _reached() -> Remote:
    """The model of this application."""
    own = serve.get_replica_context().app_name
    handle = serve.get_deployment_handle(MODEL, app_name=own)
    return Remote(handle, await answered(handle.traits.remote()))
