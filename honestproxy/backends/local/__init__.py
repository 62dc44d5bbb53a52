"""A model on this machine, by transformers and torch: the embedded one, or any chat model."""

from honestproxy.backends.local.backend import Local

__all__ = ["Local"]
