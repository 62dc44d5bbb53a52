"""Inference-time honesty middleware: a drop-in proxy that makes any chat model honest."""

__version__ = "0.1.0"
