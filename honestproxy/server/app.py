"""The application: its routes, its service's life, and errors in OpenAI's shape."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

from fastapi import FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from honestproxy import __version__
from honestproxy.backends.upstreams import Upstreams
from honestproxy.errors import HonestProxyError, InvalidRequest, Unauthorized
from honestproxy.server import (
    chat,
    document,
    experiment,
    health,
    models,
    page,
    relay,
    responses,
)
from honestproxy.server.access.caller import let_in
from honestproxy.server.account import Account
from honestproxy.server.admission import stopping
from honestproxy.server.answering import bug, refuse
from honestproxy.server.endpoint import Endpoint
from honestproxy.server.seeing import metrics
from honestproxy.server.service import Service
from honestproxy.server.traces import recording as traces
from honestproxy.settings import Settings
from honestproxy.types import Backend, write

DIRECT: Final[Mapping[str, tuple[Endpoint, dict[str, Any]]]] = {
    chat.PATH: (chat.ChatCompletions(), document.CHAT),
    responses.PATH: (responses.Responses(), document.RESPONSES),
}
"""What the pipeline answers, by path, and how the OpenAPI document tells of it."""

_ENDPOINTS: Final = {path: endpoint for path, (endpoint, _) in DIRECT.items()}
_RELAY: Final = relay.Relay()
_PARTS: Final = (health, models, page, traces, experiment, metrics)

_UNCOUNTED: Final = ("/v1/models", "/v1/honesty/")
"""Below these nothing is answered or relayed."""

_LAST_WORDS: Final = 1.0
"""Seconds that requests are given at the very end, when the server has cut them off."""


class Proxy(FastAPI):
    """The proxy as an ASGI application.

    Requests that are answered by the pipeline go past the framework's layers: those cost more
    than all that the pipeline does under `raw`. The same endpoints are routes as well, for the
    OpenAPI document and for an application that this one is mounted in.
    """

    service: Service
    loading: asyncio.Event | None = None
    """Set by the server while a model loads: until then requests wait, all but those for health."""

    stopping = False
    """Set by the server: no other requests should be sent here."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self._reloading = asyncio.Lock()
        self._retiring: asyncio.Task[None] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or one event of the server's life."""
        if scope["type"] != "http":
            return await super().__call__(scope, receive, send)
        if self.loading is not None and scope["path"] not in health.PATHS:
            await self.loading.wait()
        service = self.service
        scope = {**scope, "service": service}  # a copy: the caller may keep theirs for long
        with service:
            if refused := service.guard.refusal(scope) or let_in(scope, service.access):
                return await _turned_away(scope, send, refused)
            if scope["method"] == "POST":
                path = scope["path"]
                endpoint = _ENDPOINTS.get(path) or _ENDPOINTS.get(_plain(path))
                if endpoint is not None:
                    scope["app"] = self
                    return await endpoint(scope, receive, send)
            try:
                return await super().__call__(scope, receive, send)
            except asyncio.CancelledError:
                if not service.admission.ended:
                    raise
                with suppress(RuntimeError):  # its answer had begun
                    await refuse(send, stopping())

    @property
    def state_of_life(self) -> str:
        """Where it is between its beginning and its end: loading, ready or stopping."""
        if self.stopping:
            return "stopping"
        return "ready" if self.loading is None else "loading"

    async def start(self) -> None:
        """Load what takes its time."""
        await self.service.start()

    async def reload(self, settings: Settings) -> None:
        """Answer what comes from now on by other settings; what is under way ends by its own.

        Raises SettingsError, PromptError or BackendError where they can't work, and goes on as
        before.
        """
        async with self._reloading:
            before = self.service
            after = Service(settings, before=before)
            try:
                await after.start()
            except BaseException:
                await after.aclose(before)
                raise
            self.service = after
            after.admission.adopt(settings)
            if after.store is not None:
                after.store.days = settings.trace_days
            if after.metrics is not None:
                after.metrics.reloaded(done=True)
            retiring = _retired(before, after, self._retiring)
            self._retiring = asyncio.create_task(retiring, name="retire")

    async def aclose(self) -> None:
        """Let go of everything, once those that were cut off have had their last words."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_LAST_WORDS):
                await self.service.idle()
                if self._retiring is not None:
                    await self._retiring
        await self.service.aclose()


async def _retired(before: Service, after: Service, earlier: asyncio.Task[None] | None) -> None:
    """Close a service once it is idle, and the one before it: they may share what they close."""
    if earlier is not None:
        await earlier
    await before.retire(after)


async def _turned_away(scope: Scope, send: Send, error: HonestProxyError) -> None:
    """Refuse what doesn't even come to an endpoint, on the account that it would have had."""
    path = _plain(scope["path"])
    if path in _ENDPOINTS or (path.startswith("/v1/") and not path.startswith(_UNCOUNTED)):
        account = Account(_ENDPOINTS[path].api if path in _ENDPOINTS else "relay")
        account.failed, account.is_strangers = error.message, isinstance(error, Unauthorized)
        await refuse(account.heard(send), error)
        account.close(scope["service"].observers)
    else:
        await refuse(send, error)


def _plain(path: str) -> str:
    """The path without doubled or trailing slashes: no way past the pipeline leads over those."""
    return "/" + "/".join(part for part in path.split("/") if part)


class Direct(Response):
    """A response that an ASGI endpoint gives, for a route of the framework's."""

    def __init__(self, endpoint: ASGIApp) -> None:
        self._endpoint = endpoint
        self.background = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the endpoint answer."""
        await self._endpoint(scope, receive, send)


def create_app(
    settings: Settings | None = None, backend: Backend | Upstreams | None = None
) -> Proxy:
    """The proxy as an ASGI application; without a backend, it opens the one that settings name.

    A backend stands in for the setting `upstream`; all of them may be given, opened already.

    Raises SettingsError, PromptError or BackendError where they can't work.
    """
    service = Service(settings or Settings(), backend)
    app = Proxy(
        title="honestproxy",
        version=__version__,
        lifespan=_lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json",
    )
    app.service = service
    for path, (_, told) in DIRECT.items():
        app.add_api_route(path, _to_pipeline, methods=["POST"], openapi_extra=told)
    for part in _PARTS:
        app.include_router(part.router)
    app.add_api_route(
        "/v1/{path:path}", _to_upstream, methods=list(relay.METHODS), include_in_schema=False
    )
    app.add_exception_handler(HonestProxyError, _refuse)
    app.add_exception_handler(HTTPException, _refuse_http)
    app.add_exception_handler(Exception, _refuse_bug)
    return app


async def _to_pipeline(request: Request) -> Response:
    return Direct(_ENDPOINTS[request.scope["route"].path])


async def _to_upstream(request: Request) -> Response:
    if relay.OWN in request.scope["path"] and (methods := _methods(request.scope)):
        raise HTTPException(405, headers={"Allow": ", ".join(methods)})
    return Direct(_RELAY)


def _methods(scope: Scope) -> list[str]:
    """The methods that a path of ours takes, of which the request's is none."""
    routes = [r for part in _PARTS for r in part.router.routes if isinstance(r, Route)]
    near = (route for route in routes if route.matches(scope)[0] is Match.PARTIAL)
    return sorted({method for route in near for method in route.methods or ()})


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncGenerator[None, None]:
    assert isinstance(app, Proxy)  # noqa: S101 - narrows what the framework says
    await app.start()
    yield
    await app.aclose()


def refusal(error: HonestProxyError) -> Response:
    """An error as OpenAI's API would answer it."""
    body = write(error.body())
    return Response(body, error.status, error.headers, media_type="application/json")


async def _refuse(_: Request, error: Exception) -> Response:
    assert isinstance(error, HonestProxyError)  # noqa: S101 - narrows what the registration says
    return refusal(error)


async def _refuse_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - as above
    known = {404: "there is no such path", 405: "this path doesn't take that method"}
    what = known.get(error.status_code, str(error.detail))
    message = f"{request.method} {request.url.path}: {what}"
    shaped = InvalidRequest(message, status=error.status_code, headers=error.headers)
    return refusal(shaped)


async def _refuse_bug(_: Request, __: Exception) -> Response:
    return refusal(bug())
