"""`honest`: a client that answers honestly, made from one that an app already has."""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from honestproxy.client.flavour import Flavour
from honestproxy.client.limits import own
from honestproxy.client.told import Told, told
from honestproxy.settings import Settings

C = TypeVar("C")

_ATTRIBUTE: Final = "honestproxy"
"""Where an HTTP client of ours keeps what is inside it."""

_WHAT: Final = (
    "pass an OpenAI client, such as OpenAI(), AsyncOpenAI(), AzureOpenAI() or AsyncAzureOpenAI()"
)


@dataclass(frozen=True, slots=True)
class _Inside:
    """What an HTTP client of ours was made from: an HTTP client, and an SDK's around it."""

    http: Any
    client: Any = None
    wrapped: weakref.ref[Any] | None = None


class Honest:
    """Makes an OpenAI client honest: `client = honest(OpenAI())`.

    The client that comes back is of the same class and does all that it did: typed replies,
    `stream` and `parse`, raw responses, retries, timeouts, `with_options`. Its chat requests are
    answered as `honestproxy serve` would answer them; all others go to the API as they are.

    Calls to the model are made by the client that was passed, each with the request's own
    address, headers and timeouts. Nothing is retried here: the SDK retries a request as a whole,
    where its first call fails; where a later one fails, the draft is the answer. Closing the
    honest client closes the other, as with copies made by `with_options`.

    Synchronous clients, asynchronous ones in any asyncio loop, and the Azure ones of both kinds,
    of openai 2 and 3. Models' variants (`model@strategy`) work but aren't listed.
    """

    def __call__(
        self, client: C, *, strategy: str | None = None, settings: Settings | None = None
    ) -> C:
        """The honest client; one that already is gets the new settings instead of its own.

        `settings` are `honestproxy.settings.Settings`, or what `honestproxy.settings.load` finds
        in environment and file; `upstream` and `upstream_key` don't matter. Raises TypeError for
        what is no OpenAI client, InvalidRequest for an unknown strategy.
        """
        inner: Any = self.raw(client)
        http = _honest_http(inner._client, strategy, settings)
        made: C = inner.with_options(http_client=http)
        setattr(http, _ATTRIBUTE, _Inside(inner._client, inner, weakref.ref(made)))
        return made

    def raw(self, client: C) -> C:
        """The client that was wrapped; one that isn't, as it is."""
        given: Any = client
        if not _is_openai(given):
            raise TypeError(f"{_told_type(given)} can't be made honest: {_WHAT}")
        inside: _Inside | None = getattr(given._client, _ATTRIBUTE, None)
        if inside is None:
            return client
        if inside.wrapped is not None and inside.wrapped() is given:
            return inside.client  # type: ignore[no-any-return]
        return given.with_options(http_client=inside.http)  # type: ignore[no-any-return]

    def http_client(
        self, client: Any, *, strategy: str | None = None, settings: Settings | None = None
    ) -> Any:
        """An HTTP client for whatever builds OpenAI clients by itself.

        `ChatOpenAI(http_client=honest.http_client(httpx.Client()))`. Takes an HTTP client, or an
        OpenAI client, whose own it wraps; of an honest one it is the one that it has.
        """
        if _is_openai(client):
            if hasattr(client._client, _ATTRIBUTE) and strategy is None and settings is None:
                return client._client
            return self(client, strategy=strategy, settings=settings)._client
        if Flavour.of(client) is None:
            what = f"{_WHAT}, or an httpx.Client or httpx.AsyncClient"
            raise TypeError(f"{_told_type(client)} can't be made honest: {what}")
        inside: _Inside | None = getattr(client, _ATTRIBUTE, None)
        inner = inside.http if inside else client
        made = _honest_http(inner, strategy, settings)
        setattr(made, _ATTRIBUTE, _Inside(inner))
        return made

    def trace(self, reply: Any) -> Told | None:
        """What was done to an answer: the `honesty` object of a reply; None where there is none.

        Takes completions, parsed ones and chunks, streams that have been read, raw responses,
        and replies that came from a proxy over HTTP. `raw` leaves a reply as it came, without.
        """
        return told(reply)

    def __repr__(self) -> str:
        return "honest"


def _honest_http(inner: Any, strategy: str | None, settings: Settings | None) -> Any:
    flavour = Flavour.of(inner)
    if flavour is None:
        raise TypeError(f"{_told_type(inner)} is no HTTP client in the shape of httpx's")
    from honestproxy.client.transport import wrapped  # half a second, so not before it is needed

    return wrapped(inner, flavour, own(settings, strategy))


def _is_openai(client: Any) -> bool:
    if isinstance(client, type):
        return False
    kinds = {(kind.__module__.partition(".")[0], kind.__name__) for kind in type(client).__mro__}
    return not kinds.isdisjoint({("openai", "OpenAI"), ("openai", "AsyncOpenAI")})


def _told_type(value: Any) -> str:
    is_class = isinstance(value, type)
    kind = value if is_class else type(value)
    return f"{'the class ' if is_class else 'a '}{kind.__module__}.{kind.__qualname__}"


honest: Final = Honest()
