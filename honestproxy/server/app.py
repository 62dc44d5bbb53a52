"""The application: its routes, its backend's life, and errors in OpenAI's shape."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from honestproxy import __version__, backends
from honestproxy.errors import HonestProxyError, InvalidRequest
from honestproxy.pipeline import Pipeline
from honestproxy.server import chat, document, experiment, models, page, relay, responses, traces
from honestproxy.server.answering import refuse
from honestproxy.server.catalog import Catalog
from honestproxy.server.experiment import Experiment
from honestproxy.server.guard import Guard
from honestproxy.settings import Settings
from honestproxy.types import Backend, write


class Proxy(FastAPI):
    """The proxy as an ASGI application.

    Requests that are answered by the pipeline go past the framework's layers: those cost more
    than all that the pipeline does under `raw`. The same endpoints are routes as well, for the
    OpenAPI document and for an application that this one is mounted in.
    """

    direct: dict[str, ASGIApp]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or one event of the server's life."""
        if scope["type"] == "http" and (refused := self.state.guard.refusal(scope)):
            return await refuse(send, refused)
        if scope["type"] == "http" and scope["method"] == "POST":
            path = scope["path"]
            endpoint = self.direct.get(path) or self.direct.get(_plain(path))
            if endpoint is not None:
                scope["app"] = self
                return await endpoint(scope, receive, send)
        return await super().__call__(scope, receive, send)


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


def create_app(settings: Settings | None = None, backend: Backend | None = None) -> FastAPI:
    """The proxy as an ASGI application; without a backend, it opens the one that settings name.

    Raises SettingsError, PromptError or BackendError where they can't work.
    """
    settings = settings or Settings()
    pipeline = Pipeline(backend or backends.load(settings), settings)
    app = Proxy(
        title="honestproxy",
        version=__version__,
        lifespan=_lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json",
    )
    app.state.settings = settings
    app.state.pipeline = pipeline
    app.state.catalog = Catalog(pipeline, settings)
    app.state.guard = Guard(settings.host, settings.allowed_hosts)
    app.state.traces = traces.LastTraces()
    app.state.experiment = Experiment(settings)
    parts = pipeline, app.state.catalog, settings
    endpoints: list[tuple[str, ASGIApp, dict[str, Any]]] = [
        (chat.PATH, chat.ChatCompletions(*parts), document.CHAT),
        (responses.PATH, responses.Responses(*parts), document.RESPONSES),
    ]
    app.direct = {path: endpoint for path, endpoint, _ in endpoints}
    for path, endpoint, told in endpoints:
        app.add_api_route(path, _route(endpoint), methods=["POST"], openapi_extra=told)
    for part in (models, page, traces, experiment):
        app.include_router(part.router)
    anything = _route(relay.Relay(pipeline))
    app.add_api_route(
        "/v1/{path:path}", anything, methods=list(relay.METHODS), include_in_schema=False
    )
    app.add_exception_handler(HonestProxyError, _refuse)
    app.add_exception_handler(HTTPException, _refuse_http)
    app.add_exception_handler(Exception, _refuse_bug)
    return app


def _route(endpoint: ASGIApp) -> Any:
    async def answer(_: Request) -> Response:
        return Direct(endpoint)

    return answer


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncGenerator[None, None]:
    pipeline: Pipeline = app.state.pipeline
    warm_up = getattr(pipeline.backend, "load", None)
    if warm_up is not None:
        await warm_up()
    yield
    await pipeline.aclose()


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
    return refusal(HonestProxyError("honestproxy failed on this request; its log says why"))
