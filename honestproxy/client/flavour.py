"""Which HTTP library a client is built on: httpx, httpx2, or whatever follows in their shape."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Final

_CLIENTS: Final = {"Client": False, "AsyncClient": True}


@dataclass(frozen=True, slots=True)
class Flavour:
    """The library's module, and whether the client is its asynchronous one."""

    library: ModuleType
    asynchronous: bool

    @classmethod
    def of(cls, http_client: Any) -> Flavour | None:
        """That of an HTTP client, by its classes: nothing is imported that isn't there."""
        for kind in type(http_client).__mro__:
            library = sys.modules.get(kind.__module__.partition(".")[0])
            if kind.__name__ in _CLIENTS and hasattr(library, "AsyncByteStream"):
                assert library is not None  # noqa: S101 - None has no such attribute
                return cls(library, _CLIENTS[kind.__name__])
        return None

    @property
    def client(self) -> Any:
        """The class of HTTP clients."""
        return self.library.AsyncClient if self.asynchronous else self.library.Client

    def stream(self, body: type) -> type:
        """A class of bodies, as the library demands them."""
        name = "AsyncByteStream" if self.asynchronous else "SyncByteStream"
        return type(body.__name__, (body, getattr(self.library, name)), {})
