"""Who asks: a key of this proxy's own, or anyone where it has none; and what they may."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Final, Protocol

from starlette.types import Scope

from honestproxy.document import split_object, write
from honestproxy.errors import Forbidden, HonestProxyError, InvalidRequest, Unauthorized
from honestproxy.server.access.guard import is_from_here, path_of
from honestproxy.types import read

CREDENTIALS: Final = ("x-api-key", "authorization")
"""Where a client's key is looked for, in this order: SDKs always send the second."""

_HIDDEN: Final = frozenset(name.encode() for name in CREDENTIALS)
_PUBLIC: Final = frozenset({"/", "/healthz", "/readyz"})
_PUBLIC_BELOW: Final = "/page/"
_OWN: Final = "/v1/honesty/"
_FOR_ALL: Final = (f"{_OWN}feedback", f"{_OWN}traces/")
"""What of our own paths every key may use; others are for admins."""

_ALTERNATIVES: Final = frozenset({"models", "fallbacks"})
"""Where some gateways are told of further models, to ask if the first one fails."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, and what they may. None means: no limit of that kind.

    `id` names the key in logs, metrics and traces, and is no secret. `models` are patterns.
    """

    id: str | None = None
    models: tuple[str, ...] | None = None
    strategies: tuple[str, ...] | None = None
    admin: bool = False

    def may_use(self, model: str) -> bool:
        """Whether a model of that name may be asked."""
        return self.models is None or any(fnmatchcase(model, one) for one in self.models)

    def strategies_of(self, names: Iterable[str]) -> list[str]:
        """Those strategies of `names` that may be chosen."""
        return [n for n in names if self.strategies is None or n in self.strategies]

    def check_strategy(self, name: str) -> None:
        """Raise Forbidden, naming what is allowed, where that strategy may not answer."""
        if self.strategies is not None and name not in self.strategies:
            allowed = ", ".join(self.strategies) or "none"
            raise Forbidden(f"this key may not use strategy {name!r}; allowed are {allowed}")

    def check_model(self, name: str) -> None:
        """Raise Forbidden, naming what is allowed, where that model may not be asked."""
        if not self.may_use(name):
            allowed = ", ".join(self.models or ()) or "none"
            message = f"this key may not use model {name!r}; allowed are {allowed}"
            raise Forbidden(message, param="model")

    def confined(self, body: bytes) -> bytes:
        """A body in which every reader finds the one model that is checked here.

        Of a name that stands there twice, readers take the first or the last, and some take names
        in any case. Raises InvalidRequest for such names, and Forbidden for further models.
        """
        if self.models is None:
            return body
        try:
            fields = split_object(body)
            self._check_names(fields)
        except (ValueError, RecursionError):
            return body  # whoever reads it says what is wrong with it
        return write(fields)

    def check_relayed(self, body: bytes) -> None:
        """Raise Forbidden where a body to relay doesn't name a model that is allowed."""
        named = _value(body, "model")
        if not isinstance(named, str):
            message = "this key may only ask certain models, and the body names none in JSON"
            raise Forbidden(message, param="model")
        self.check_model(named)

    def _check_names(self, fields: Mapping[str, Any]) -> None:
        for name in fields:
            if name != "model" and name.casefold() == "model":
                raise InvalidRequest(f"unknown field {name!r}; did you mean 'model'?", param=name)
        for name in _ALTERNATIVES & fields.keys():
            others = read(fields[name])
            for other in others if isinstance(others, list) else [others]:
                self.check_model(other if isinstance(other, str) else write(other).decode())


ANYONE: Final = Caller(admin=True)
"""Everyone, where the proxy has no keys of its own."""

_NOBODY: Final = Caller()
"""Whoever brings no key where one is wanted."""


class Access(Protocol):
    """The door: tells who asks, and whether they may just now."""

    has_keys: bool
    """Whether the proxy has keys of its own; a client's key is then never sent upstream."""

    refused: int
    """Requests that came without a key that opens it."""

    def caller(self, headers: Mapping[str, str]) -> Caller:
        """Whose request this is, by its headers. Raises Unauthorized."""
        ...

    def admitted(self, caller: Caller) -> dict[str, str]:
        """Count a request; what its reply tells of the limits. Raises RateLimited."""
        ...


class Open:
    """A door that is open to everyone; the client's own key goes upstream where we have none."""

    has_keys = False
    refused = 0

    def caller(self, headers: Mapping[str, str]) -> Caller:
        """Anyone."""
        return ANYONE

    def admitted(self, caller: Caller) -> dict[str, str]:
        """No limits, and nothing to tell."""
        return {}


def let_in(scope: Scope, access: Access) -> HonestProxyError | None:
    """Enter into the scope who asks; or why this request must not be answered.

    With keys, the one that opened the door stays outside: nothing behind it ever sees the key,
    neither a log nor a trace nor an upstream.
    """
    if not access.has_keys:
        scope["caller"] = ANYONE
        return None
    path, told, kept = path_of(scope), {}, []
    for pair in scope["headers"]:
        if pair[0] in _HIDDEN:
            told[pair[0].decode()] = pair[1].decode("latin-1")
        else:
            kept.append(pair)
    scope["headers"], scope["caller"] = kept, _NOBODY
    if path in _PUBLIC or path.startswith(_PUBLIC_BELOW):
        return None
    try:
        scope["caller"] = caller = access.caller(told)
    except Unauthorized as error:
        return error.at_rest()
    if _is_for_admins(path) and not caller.admin:
        return Forbidden(f"{path} is for keys made with --admin")
    return None


def may_read(scope: Scope, caller: Caller, trace_key: str | None) -> bool:
    """Whether a trace, made with the key of that id, may be read or deleted by who asks.

    Without keys of our own, texts are for this machine's own clients.
    """
    if caller is ANYONE:
        return is_from_here(scope)
    return caller.admin or (caller.id is not None and caller.id == trace_key)


def may_keep(scope: Scope, caller: Caller) -> bool:
    """Whether who asks may have the texts of a request's steps kept to read them later."""
    return caller.id is not None or is_from_here(scope)


def _is_for_admins(path: str) -> bool:
    if path == "/metrics" or path.startswith("/metrics/"):
        return True
    return path.startswith(_OWN) and not path.startswith(_FOR_ALL)


def _value(body: bytes, name: str) -> Any:
    try:
        fields = split_object(body)
        return read(fields[name]) if name in fields else None
    except (ValueError, RecursionError):
        return None
