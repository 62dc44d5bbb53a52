"""The request that an SDK made, from which each call to the model is made."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, Final
from urllib.parse import quote, unquote

from honestproxy.errors import UpstreamBroken, UpstreamError, UpstreamTimeout, UpstreamUnreachable
from honestproxy.types import ChatRequest
from honestproxy.wire.request import STRATEGY_HEADER

RAISED: Final = "x-honestproxy-raised"
"""Header by which an error of ours tells which exception of the inner client it stands for."""

_NOT_SENT: Final = frozenset({"content-length", "transfer-encoding", STRATEGY_HEADER})
_DEPLOYMENT: Final = re.compile(rb"/deployments/([^/]+)$")


@dataclass(slots=True)
class Origin:
    """An SDK's request to `<base><suffix>`, and what was raised by calls made from it.

    Its URL, headers and extensions (timeouts among them) are those of each call.
    """

    library: ModuleType
    request: Any
    suffix: str
    raised: list[Exception] = field(default_factory=list)

    def call(self, method: str, path: str, headers: Mapping[str, str], content: Any) -> Any:
        """A request of the library's to a path below the base."""
        changed = {name.lower().encode(): value.encode() for name, value in headers.items()}
        gone = changed.keys() | {name.encode() for name in _NOT_SENT}
        kept = [item for item in self.request.headers.raw if item[0].lower() not in gone]
        return self.library.Request(
            method,
            self._url(path.encode(), content),
            headers=[*kept, *changed.items()],
            content=content,
            extensions=dict(self.request.extensions),
        )

    def failed(self, error: Exception, *, begun: bool = False) -> UpstreamError:
        """Ours for what the inner client raised, which the transport raises again."""
        self.raised.append(error)
        said = f"{type(error).__name__}: {error}".removesuffix(": ")
        told = {RAISED: str(len(self.raised) - 1)}
        if isinstance(error, self.library.TimeoutException):
            return UpstreamTimeout(f"no answer in time ({said})", headers=told)
        if begun:
            return UpstreamBroken(f"the upstream broke off in mid-answer ({said})", headers=told)
        return UpstreamUnreachable(f"can't reach the upstream ({said})", headers=told)

    def _url(self, path: bytes, content: Any) -> Any:
        url = self.request.url
        own, _, query = url.raw_path.partition(b"?")
        base = own.removesuffix(self.suffix.encode())
        if path == b"/models":
            base = _DEPLOYMENT.sub(b"", base)
        elif (found := _DEPLOYMENT.search(base)) and b"@" in unquote(found[1]).encode():
            base = base[: found.start(1)] + _deployment(found[1], content)
        path, _, more = path.partition(b"?")
        query = b"&".join(filter(None, (query, more)))
        return url.copy_with(raw_path=base + path + (b"?" + query if query else b""))


def _deployment(named: bytes, content: bytes) -> bytes:
    """Azure has the model's name in the URL, too, where a strategy's suffix must go as well."""
    model = ChatRequest(content).model
    is_suffixed = unquote(named.decode()).startswith(f"{model}@")
    return quote(model, safe="").encode() if is_suffixed else named


ORIGIN: Final[ContextVar[Origin]] = ContextVar("origin")
"""The request that the current turn answers: its calls are tasks, and tasks inherit it."""
