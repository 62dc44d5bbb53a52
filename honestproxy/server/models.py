"""`/v1/models` and `/v1/models/{id}`."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request

from honestproxy.server import document
from honestproxy.wire.request import forwarded

router = APIRouter()


@router.get("/v1/models", openapi_extra=document.MODELS)
async def list_models(request: Request) -> dict[str, Any]:
    """The upstream's models and their variants `model@strategy`."""
    found: dict[str, Any] = await request.scope["service"].catalog.models(
        forwarded(request.headers), request.scope["caller"]
    )
    return found


@router.get("/v1/models/{name:path}", openapi_extra=document.MODEL)
async def retrieve_model(request: Request) -> dict[str, Any]:
    """One model; variants included."""
    name = request.path_params["name"]  # undeclared, so that no 422 of FastAPI's is documented
    found: dict[str, Any] = await request.scope["service"].catalog.model(
        name, forwarded(request.headers), request.scope["caller"]
    )
    return found
