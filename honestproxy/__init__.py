"""Inference-time honesty middleware: a drop-in proxy that makes any chat model honest."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from honestproxy.client import acompletion, completion, honest

__all__ = ["acompletion", "completion", "honest"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """The public names, imported when first asked for."""
    if name in __all__:
        return getattr(importlib.import_module("honestproxy.client"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
