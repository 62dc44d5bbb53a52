"""Many machines, on Ray: the proxy as an application of Serve, evaluations over a cluster.

Needs `honestproxy[ray]`. `serve run honestproxy.ray:app` finds the application here.
"""

from __future__ import annotations

import importlib
from typing import Any

__all__ = ["app", "build_app"]


def __getattr__(name: str) -> Any:
    # Not at once: all of Serve comes with it, which an evaluation doesn't need.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module("honestproxy.ray.serving"), name)
