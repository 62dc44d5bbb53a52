"""A backend around another, which has what that has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from honestproxy.types import Backend


async def listed(backend: Backend, headers: Mapping[str, str]) -> list[dict[str, Any]]:
    """The backend's models; none where it doesn't say, as one's own may not."""
    models = getattr(backend, "models", None)
    return list(await models(headers)) if models else []


class Wrapping:
    """Asks `_inner`, and has all of its other attributes.

    What only some backends have is looked for by `hasattr`: a subclass that changes one of
    those defines it under an underscore, and names it in `__init__`.
    """

    def __init__(self, inner: Backend, *overridden: str) -> None:
        self._inner: Any = inner
        for name in overridden:
            if hasattr(inner, name):
                setattr(self, name, getattr(self, f"_{name}"))

    async def aclose(self) -> None:
        """Close the backend."""
        if close := getattr(self._inner, "aclose", None):
            await close()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._inner, name)

    def __repr__(self) -> str:
        return repr(self._inner)
