"""Which requests come from web pages that have no business here.

A page of any site may send requests to 127.0.0.1, or point its own name there; its answers may be
closed to it, but the upstream's key would have been used. What a browser sends without asking
first is therefore refused, and so is its asking.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Final
from urllib.parse import urlsplit

from starlette.types import Scope

from honestproxy.errors import Forbidden, HonestProxyError, InvalidRequest

_UNASKED: Final = frozenset({"", "text/plain", "application/x-www-form-urlencoded"})
"""Bodies that a browser sends for any page without asking first (a preflight), but for multipart:
uploads of SDKs are multipart, too. https://fetch.spec.whatwg.org/#cors-safelisted-request-header"""

_PASSED_ON: Final = frozenset({"forwarded", "via", "x-forwarded-for", "x-real-ip"})


_REMEMBERED: Final = 20
"""Names that we are called by and that were found good; reading one takes its time."""


class Guard:
    """Refuses what was meant for another host, or comes from another site's page.

    Hosts and sites are looked at only where the proxy listens on loopback; `allowed` names
    further ones.
    """

    def __init__(self, host: str, allowed: tuple[str, ...]) -> None:
        self._stands = is_loopback(host)
        self._allowed = {name.lower() for name in allowed}
        self._known: set[bytes] = set()

    def refusal(self, scope: Scope) -> HonestProxyError | None:
        """Why a request must not be answered; None where it may be."""
        headers = scope["headers"]
        told = dict(headers)
        if len(told) < len(headers) and [name for name, _ in headers].count(b"host") > 1:
            return InvalidRequest("the request names its host more than once")
        if scope["method"] == "POST" and (kind := _unasked(told)) is not None:
            message = (
                f"send application/json or multipart/form-data, not {kind or 'an unnamed type'}"
            )
            return InvalidRequest(message, status=415)
        if b"access-control-request-method" in told and scope["method"] == "OPTIONS":
            return Forbidden(
                "pages of other origins may not ask here, and no setting lets them (CORS); "
                "serve yours and the proxy under one host"
            )
        if not self._stands or scope.get("client") is None:  # in process: no web page
            return None
        return self._foreign(scope, told)

    def _foreign(self, scope: Scope, told: Mapping[bytes, bytes]) -> HonestProxyError | None:
        if (host := told.get(b"host", b"")) not in self._known:
            name = _name(b"//" + host)
            # Nobody else can own a name without a dot.
            if {".", ":"} & set(name) and not self._is_ours(name):
                return Forbidden(
                    f"requests for the host {name!r} are not answered here; name it in the "
                    "setting allowed_hosts if it is this proxy's"
                )
            if len(self._known) < _REMEMBERED:
                self._known.add(host)
        origin = told.get(b"origin", b"")
        # Without an origin, only following a link to the page itself comes from another site.
        is_foreign = not self._is_ours(_name(origin)) if origin else _crosses(scope, told)
        if is_foreign:
            return Forbidden(
                "requests of other sites' pages are not answered here; a site of yours goes into "
                "the setting allowed_hosts"
            )
        return None

    def _is_ours(self, name: str) -> bool:
        return is_loopback(name) or name in self._allowed


def is_loopback(name: str) -> bool:
    """Whether a host's name or address can only be this machine's own."""
    if name == "localhost" or name.endswith(".localhost"):
        return True
    with suppress(ValueError):
        address = ipaddress.ip_address(name)
        return (getattr(address, "ipv4_mapped", None) or address).is_loopback
    return False


def is_from_here(scope: Scope) -> bool:
    """Whether a client on this machine asks, not one far away through a proxy or a page of its own.

    A site that points its name at 127.0.0.1 comes from here, too, but calls us by that name.
    """
    headers = {name.decode("latin-1"): value for name, value in scope["headers"]}
    client = scope.get("client")
    if client is None or _PASSED_ON & headers.keys():
        return False
    return is_loopback(client[0]) and is_loopback(_name(b"//" + headers.get("host", b"")))


def path_of(scope: Scope) -> str:
    """The request's path, below where this application may be mounted in another."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))


def climbs(path: str) -> bool:
    """Whether a path, unquoted, leads above where it begins: to what no client is to reach."""
    return bool({".", ".."} & set(re.split(r"[/\\]", path)))


def _unasked(told: Mapping[bytes, bytes]) -> str | None:
    """The body's type, where there is a body and any page could have sent it so."""
    if b"transfer-encoding" not in told and told.get(b"content-length", b"0") == b"0":
        return None
    kind = told.get(b"content-type", b"").partition(b";")[0].strip().lower().decode("latin-1")
    return kind if kind in _UNASKED else None


def _crosses(scope: Scope, told: Mapping[bytes, bytes]) -> bool:
    if told.get(b"sec-fetch-site") != b"cross-site":
        return False
    is_link = scope["method"] in ("GET", "HEAD") and told.get(b"sec-fetch-mode") == b"navigate"
    return not (is_link and path_of(scope) == "/")


def _name(url: bytes) -> str:
    with suppress(ValueError):
        return (urlsplit(url.decode("latin-1")).hostname or "").lower()
    return ""
