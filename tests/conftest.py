"""Fixtures that any test may ask for."""

import os

from hypothesis import settings

from tests.llamacpp import llama_server

__all__ = ["llama_server"]

# A busy machine is no bug, and CI tries the same cases each time; elsewhere they are drawn anew.
settings.register_profile("here", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("here")
