"""torch and transformers: imported on first use, in the way that suits a server."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Final

from honestproxy.errors import BackendError

INSTALL: Final = "local models need torch and transformers: pip install 'honestproxy[local]'"
_WAITING: Final = "OMP_WAIT_POLICY"


def prepare() -> None:
    """Import both. Raises BackendError where one is missing."""
    try:
        with _patient_threads():
            import torch  # noqa: F401
        import transformers  # noqa: F401
    except ImportError:
        raise BackendError(INSTALL) from None


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without transformers' own progress bars: ours are lines, and go where they are wanted."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


@contextlib.contextmanager
def _patient_threads() -> Iterator[None]:
    """Let torch's threads sleep while they wait for one another; read once, at its import.

    Spinning, which is the default, is a quarter faster where nothing else runs (33 ms a
    token in place of 43, on two cores) and makes a token take seconds as soon as other
    programs want the same cores (2,800 ms in place of 80). `OMP_WAIT_POLICY=active` has it back.
    """
    if _WAITING in os.environ or "torch" in sys.modules:
        yield
        return
    os.environ[_WAITING] = "passive"
    try:
        yield
    finally:
        del os.environ[_WAITING]
