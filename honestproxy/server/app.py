"""The application: its routes, its backend's life, and errors in OpenAI's shape."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.responses import Response

from honestproxy import __version__, backends
from honestproxy.errors import HonestProxyError, InvalidRequest
from honestproxy.pipeline import Pipeline
from honestproxy.server import chat, models
from honestproxy.server.catalog import Catalog
from honestproxy.settings import Settings
from honestproxy.types import Backend, write


def create_app(settings: Settings | None = None, backend: Backend | None = None) -> FastAPI:
    """The proxy as an ASGI application; without a backend, it opens the one that settings name.

    Raises SettingsError, PromptError or BackendError where they can't work.
    """
    settings = settings or Settings()
    pipeline = Pipeline(backend or backends.load(settings), settings)
    app = FastAPI(
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
    app.include_router(chat.router)
    app.include_router(models.router)
    app.add_exception_handler(HonestProxyError, _refuse)
    app.add_exception_handler(HTTPException, _refuse_http)
    app.add_exception_handler(Exception, _refuse_bug)
    return app


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
