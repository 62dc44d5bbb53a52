"""The compare page at `/`: one question, its raw and its wrapped answer side by side.

The files beside this one are all of it, as the browser gets them: nothing is built, and nothing
comes from elsewhere. What a model says is only ever text there; the policy below holds it to that.
"""

from __future__ import annotations

import hashlib
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final

from fastapi import APIRouter, Request, Response

from honestproxy import __version__
from honestproxy.errors import InvalidRequest
from honestproxy.server.access.guard import is_from_here
from honestproxy.strategies import STRATEGIES

if TYPE_CHECKING:
    from honestproxy.server.service import Service

router = APIRouter(include_in_schema=False)

TYPES: Final = {"html": "text/html", "css": "text/css", "js": "text/javascript"}
FILES: Final = frozenset(
    {
        *("access.js", "answer.js", "ask.js", "dialogs.js", "dom.js", "history.js", "page.css"),
        *("page.js", "steps.js", "store.js", "theme.js"),
    }
)
"""What `/page/…` serves; nothing else of this folder."""

POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "img-src 'self' data:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
_SAFE: Final = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_METHODS: Final = ["GET", "HEAD"]


@router.api_route("/", methods=_METHODS)
def page(request: Request) -> Response:
    """The page itself."""
    return _file(request, "index.html")


@router.api_route("/page/about.json", methods=_METHODS)
def about(request: Request) -> dict[str, Any]:
    """What the page lets choose from: strategies that work here, each with what it does."""
    service: Service = request.scope["service"]
    names = [name for name in service.catalog.strategies() if name != "raw"]
    return {
        "version": __version__,
        "strategies": [{"name": name, "about": _about(name)} for name in names],
        "default": service.pipeline.default_strategy,
        "model": service.settings.model,
        "keys": service.access.has_keys,
        "traces": service.access.has_keys or is_from_here(request.scope),
    }


@router.api_route("/page/{name}", methods=_METHODS)
def part(request: Request, name: str) -> Response:
    """A style sheet or a script of the page's."""
    if name not in FILES:
        raise InvalidRequest(f"{request.url.path}: there is no such path", status=404)
    return _file(request, name)


def _file(request: Request, name: str) -> Response:
    """A file, or that it hasn't changed."""
    body = (files(__name__) / name).read_bytes()
    tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    headers = {**_SAFE, "ETag": tag, "Cache-Control": "no-cache"}
    known = request.headers.get("if-none-match", "")
    if tag in (part.strip().removeprefix("W/") for part in known.split(",")):
        return Response(status_code=304, headers=headers)
    return Response(body, media_type=TYPES[name.rpartition(".")[2]], headers=headers)


def _about(name: str) -> str:
    """The first line of the strategy's docstring, which is written for users."""
    return (STRATEGIES[name].__doc__ or "").strip().partition("\n")[0]
