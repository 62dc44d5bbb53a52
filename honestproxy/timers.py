"""Timers of which hardly one ever rings: one of the event loop's serves all that are due together.

To start and to stop one of the loop's own for each costs several times as much.
"""

from __future__ import annotations

import asyncio
from typing import Final, Protocol
from weakref import WeakKeyDictionary

_STEPS: Final = ((5.0, 0.02), (30.0, 0.25))
"""Up to so many seconds away, a ring may be late by so many; beyond that, by `_COARSE`.

Each moment at which something may be due has a timer and a set, which stay until it has come.
"""
_COARSE: Final = 2.0


class Ringing(Protocol):
    """What is told that its time has come."""

    def ring(self) -> None:
        """The time has come. Must not raise."""
        ...


Slot = set[Ringing]
"""All that are due together: whoever doesn't want to be told any more is taken out of it."""

_SLOTS: Final[WeakKeyDictionary[asyncio.AbstractEventLoop, dict[float, Slot]]] = WeakKeyDictionary()


def start(loop: asyncio.AbstractEventLoop, seconds: float, one: Ringing) -> Slot:
    """Have `ring` called so many seconds from now, or a moment later."""
    slots = _SLOTS.get(loop)
    if slots is None:
        slots = _SLOTS[loop] = {}
    step = next((late for within, late in _STEPS if seconds < within), _COARSE)
    due = ((loop.time() + seconds) // step + 1) * step
    slot = slots.get(due)
    if slot is None:
        slot = slots[due] = set()
        loop.call_at(due, _ring, slots, due)
    slot.add(one)
    return slot


def _ring(slots: dict[float, Slot], due: float) -> None:
    for one in list(slots.pop(due)):
        one.ring()
