"""Inference-time honesty middleware: a drop-in proxy that makes any chat model honest."""

from __future__ import annotations

TYPE_CHECKING = False  # as typing's, whose import would cost more than all the rest here
if TYPE_CHECKING:
    from typing import Any

    from honestproxy.client import acompletion, completion, honest

__all__ = ["acompletion", "completion", "honest"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """The public names, imported when first asked for."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module("honestproxy.client"), name)
