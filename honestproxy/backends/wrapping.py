"""A backend around another, which has what that has."""

from __future__ import annotations

from typing import Any

from honestproxy.types import Backend


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
        await self._inner.aclose()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._inner, name)

    def __repr__(self) -> str:
        return repr(self._inner)
