"""torch and transformers: imported on first use, in the way that suits a server."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Final

from honestproxy.errors import BackendError

INSTALL: Final = "local models need torch and transformers: pip install 'honestproxy[local]'"
_PATIENCE: Final = {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "1000"}


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
    """Let torch's threads soon sleep while they wait for one another; read once, at its import.

    Spinning without end, which is the default, makes a token take seconds as soon as other
    programs want the same cores; sleeping at once costs a quarter of the speed where nothing
    else runs. A very short spin lies between (29 tokens/s spinning on, 25 so, 23 asleep at
    once, on two quiet cores). A user's own values of these variables win.
    """
    wanted = {} if "torch" in sys.modules else _PATIENCE
    ours = {name: value for name, value in wanted.items() if name not in os.environ}
    os.environ |= ours
    try:
        yield
    finally:
        for name in ours:
            del os.environ[name]
