"""Timers that share the loop's: they ring in time or a moment later, or never."""

from __future__ import annotations

import asyncio
import gc
import weakref

import pytest

from honestproxy import timers


class Bell:
    def __init__(self) -> None:
        self.rung = asyncio.Event()

    def ring(self) -> None:
        self.rung.set()


@pytest.mark.parametrize("seconds", [0.0, 0.01, 0.05])
async def test_it_rings_never_before_its_time_and_soon_after(seconds: float) -> None:
    loop, bell = asyncio.get_running_loop(), Bell()
    begun = loop.time()
    timers.start(loop, seconds, bell)
    async with asyncio.timeout(5):
        await bell.rung.wait()
    assert loop.time() - begun >= seconds


async def test_who_is_taken_out_is_not_told() -> None:
    loop, bells = asyncio.get_running_loop(), [Bell(), Bell()]
    slots = [timers.start(loop, 0.02, bell) for bell in bells]
    slots[0].discard(bells[0])
    async with asyncio.timeout(5):
        await bells[1].rung.wait()
    await asyncio.sleep(0.05)
    assert not bells[0].rung.is_set()


async def test_those_of_one_moment_share_a_timer() -> None:
    loop = asyncio.get_running_loop()
    slots = {id(timers.start(loop, 600, Bell())) for _ in range(100)}
    assert len(slots) <= 2


async def test_what_has_been_taken_out_is_held_no_longer() -> None:
    loop, bell = asyncio.get_running_loop(), Bell()
    timers.start(loop, 600, bell).discard(bell)
    known = weakref.ref(bell)
    del bell
    gc.collect()
    assert known() is None
