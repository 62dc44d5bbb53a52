"""`/healthz`: whether the proxy runs; `/readyz`: whether it is the one to ask just now."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse

router = APIRouter()

PATHS = ("/healthz", "/readyz")


@router.get("/healthz")
async def health() -> dict[str, str]:
    """Whether the proxy answers; says nothing of the upstream."""
    return {"status": "ok"}


@router.get("/readyz")
async def ready(request: Request) -> JSONResponse:
    """Whether its model is loaded, and it isn't being stopped."""
    state = request.app.state_of_life
    return JSONResponse({"status": state}, 200 if state == "ready" else 503)
