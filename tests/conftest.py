"""Fixtures that any test may ask for."""

from tests.llamacpp import llama_server

__all__ = ["llama_server"]
