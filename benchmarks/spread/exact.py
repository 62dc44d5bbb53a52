"""The embedded model in float32, as an upstream that `ab` names `spread.exact:model`."""

from __future__ import annotations

from honestproxy.backends.local import Local
from honestproxy.backends.local.embedded import NAME
from honestproxy.settings import Settings


def model() -> Local:
    """One on each worker; in bfloat16 its text drifts with what shares the batch."""
    return Local(NAME, Settings(), dtype="float32")
