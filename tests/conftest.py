"""Fixtures that any test may ask for."""

import gc
import os
import signal

from hypothesis import settings

from tests.llamacpp import llama_server

__all__ = ["llama_server"]

# A busy machine is no bug, and CI tries the same cases each time; elsewhere they are drawn anew.
settings.register_profile("here", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("here")

# A shell starts what it leaves in the background deaf to Ctrl-C, and so would be what tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    """Keep what was imported out of the garbage collector's way.

    Going through all of torch takes it half a second, in which no server of a test answers.
    """
    gc.collect()
    gc.freeze()
