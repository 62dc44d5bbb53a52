"""Places for requests: a fair queue, and what is told to those who get none."""

from __future__ import annotations

import asyncio
import json

import pytest

from honestproxy.errors import InvalidRequest, Overloaded, Stopping
from honestproxy.server.access.caller import Caller
from honestproxy.server.admission import Admission
from honestproxy.server.degrading import lesser
from honestproxy.settings import Settings
from tests.proxy import DOUBT, DRAFT, Proxy, Script, ask, proxy, script
from tests.upstreams import Reply, Seen


class Client:
    """A request's way through the admission: asks for a place, holds it, gives it back."""

    def __init__(self, admission: Admission, key: str) -> None:
        self._admission = admission
        self._caller = Caller(id=key)
        self._done = asyncio.Event()
        self._left = asyncio.Event()
        self.inside = False
        self.task = asyncio.create_task(self._go())

    async def _go(self) -> None:
        scope = {"client": ("127.0.0.1", 1)}
        async with self._admission.place(self._caller, scope, self._receive):
            self.inside = True
            await self._done.wait()

    async def _receive(self) -> dict[str, str]:
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def done(self) -> None:
        self._done.set()
        await self.task
        await asyncio.sleep(0)

    def leave(self) -> None:
        self._left.set()


async def clients(admission: Admission, keys: str) -> list[Client]:
    """One client for each letter, in that order; the letter is its key."""
    found = [Client(admission, key) for key in keys]
    await asyncio.sleep(0)
    return found


def places(number: int, **more: object) -> Admission:
    return Admission(Settings(max_concurrency=number, **more))


async def finish(*several: Client) -> None:
    for one in several:
        await one.done()


async def test_callers_take_turns_whoever_asks_most() -> None:
    admission = places(1)
    first, *waiting = await clients(admission, "xaaaabbc")
    served, inside = "", first
    while waiting:
        await inside.done()
        (inside,) = [one for one in waiting if one.inside]
        waiting.remove(inside)
        served += inside._caller.id or ""
    await inside.done()
    assert served == "abcabaa"
    assert (admission.busy, admission.waiting, admission.shed) == (0, 0, 0)


async def test_one_callers_requests_are_answered_in_their_order() -> None:
    admission = places(1)
    several = await clients(admission, "aaaa")
    for one in several:
        assert [each.inside for each in several if not each.task.done()].index(True) == 0
        await one.done()


async def test_a_full_queue_turns_away_with_when_to_come_again() -> None:
    admission = places(1, max_queue=1)
    inside, waits, refused = await clients(admission, "aaa")
    with pytest.raises(Overloaded) as caught:
        await refused.task
    assert (caught.value.status, caught.value.code) == (429, "overloaded")
    assert caught.value.type == "rate_limit_error"
    assert int(caught.value.headers["retry-after"]) >= 1
    assert (admission.busy, admission.waiting, admission.shed) == (1, 1, 1)
    await finish(inside, waits)


async def test_a_caller_that_fills_the_queue_makes_room_for_others() -> None:
    admission = places(1, max_queue=3)
    inside, *noisy, quiet = await clients(admission, "aaaab")
    with pytest.raises(Overloaded):
        await noisy[-1].task
    await inside.done()
    assert noisy[0].inside
    await noisy[0].done()
    assert quiet.inside
    await finish(quiet, noisy[1])


async def test_who_waits_too_long_is_turned_away() -> None:
    admission = places(1, queue_timeout=0.05)
    inside, waits = await clients(admission, "ab")
    with pytest.raises(Overloaded, match=r"0\.05 s"):
        await waits.task
    assert (admission.waiting, admission.shed) == (0, 1)
    await inside.done()


async def test_a_client_that_leaves_gives_its_turn_up() -> None:
    admission = places(1)
    inside, leaves, stays = await clients(admission, "aab")
    leaves.leave()
    with pytest.raises(InvalidRequest) as caught:
        await leaves.task
    assert caught.value.status == 499
    assert (admission.waiting, admission.shed) == (1, 0)
    await inside.done()
    assert stays.inside
    await stays.done()
    assert admission.busy == 0


async def test_a_cancelled_waiter_passes_its_place_on() -> None:
    admission = places(1)
    inside, first, second = await clients(admission, "abc")
    inside._done.set()
    await asyncio.sleep(0)  # the place is the first one's by now, which doesn't know yet
    first.task.cancel()
    await asyncio.wait((first.task, inside.task))
    await asyncio.sleep(0)
    assert second.inside
    await second.done()
    assert admission.busy == 0


async def test_other_limits_hold_at_once_and_nobody_is_lost() -> None:
    admission = places(1)
    several = await clients(admission, "abcd")
    admission.adopt(Settings(max_concurrency=3))
    await asyncio.sleep(0)
    assert [one.inside for one in several] == [True, True, True, False]
    admission.adopt(Settings(max_concurrency=1))
    await finish(several[0], several[1])
    assert not several[3].inside
    await finish(several[2])
    assert several[3].inside
    await several[3].done()


async def test_at_the_end_whoever_waits_is_told_so() -> None:
    admission = places(1)
    inside, waits = await clients(admission, "ab")
    admission.end()
    with pytest.raises(Stopping) as caught:
        await waits.task
    assert (caught.value.status, caught.value.headers["retry-after"]) == (503, "1")
    await inside.done()


def test_what_makes_several_calls_becomes_less_as_the_queue_fills() -> None:
    def anything(_: str) -> bool:
        return True

    names = ("gated", "curiosity", "critique", "single", "introspect", "raw")
    assert [lesser(name, 0.0, anything) for name in names] == list(names)
    some, half = ([lesser(name, much, anything) for name in names] for much in (0.01, 0.5))
    assert some == ["single", "single", "single", "single", "introspect", "raw"]
    assert half == ["raw", "raw", "raw", "raw", "introspect", "raw"]
    assert lesser("gated", 0.9, lambda name: name == "single") == "single"
    assert lesser("gated", 0.9, lambda _: False) == "gated"


class Held:
    """An upstream that never answers the first request, and all others at once."""

    def __init__(self, others: Script | None = None) -> None:
        self._others = others or script(confusion=DOUBT)
        self._seen = 0

    def __call__(self, seen: Seen) -> Reply:
        self._seen += 1
        return Reply([], then="hold") if self._seen == 1 else self._others(seen)


async def test_beyond_the_queue_a_client_is_told_429_in_openais_shape() -> None:
    limits = {"max_concurrency": 1, "max_queue": 0}
    async with proxy(Held(), **limits) as on:
        blocks = asyncio.create_task(on.post(ask()))
        await on.upstream.holding.wait()
        status, body, headers = await on.post(ask())
        blocks.cancel()
    assert (status, body["error"]["code"]) == (429, "overloaded")
    assert body["error"]["type"] == "rate_limit_error"
    assert int(headers["retry-after"]) >= 1


async def test_a_relayed_request_waits_for_a_place_like_any_other() -> None:
    async with proxy(Held(), max_concurrency=1, max_queue=0) as on:
        blocks = asyncio.create_task(on.post(ask()))
        await on.upstream.holding.wait()
        async with on.session.post(f"{on.url}/embeddings", json={"model": "m"}) as got:
            assert got.status == 429
        blocks.cancel()


async def test_a_place_that_comes_free_is_given_to_who_waits() -> None:
    async with proxy(Held(), max_concurrency=1, strategy="raw") as on:
        blocks = asyncio.create_task(on.post(ask()))
        await on.upstream.holding.wait()
        waits = asyncio.create_task(on.post(ask()))
        await asyncio.sleep(0.05)
        assert not waits.done()
        blocks.cancel()
        status, body, _ = await waits
    assert (status, body["choices"][0]["message"]["content"]) == (200, DRAFT)


async def pressed(on: Proxy, *bodies: dict[str, object]) -> list[tuple[object, ...]]:
    """Answers to requests that all wait for one place at once, in their order."""
    blocks = asyncio.create_task(on.post(ask("blocks")))
    await on.upstream.holding.wait()
    tasks = []
    for body in bodies:
        tasks.append(asyncio.create_task(on.post(body)))
        await asyncio.sleep(0.02)
    blocks.cancel()
    return [await task for task in tasks]


async def test_under_load_less_is_done_and_told() -> None:
    single = json.dumps({"doubts": []})
    replies = script(confusion=DOUBT, single=f"<limits>{single}</limits>\nAnswered.")
    limits = {"max_concurrency": 1, "max_queue": 4, "degrade": True}
    async with proxy(Held(replies), **limits) as on:
        # when each has its place, so many wait behind it: 3, 2, 1, 0
        told = await pressed(on, ask(), ask(), ask(), ask())
    headers = [answer[2] for answer in told]
    strategies = [told["x-honesty-strategy"] for told in headers]
    assert strategies == ["raw", "raw", "single", "gated"]
    assert headers[0]["x-honesty-reason"] == "under load: raw instead of gated"
    assert "under load: single instead of gated" in told[2][1]["honesty"]["reason"]
    assert "x-honesty-reason" not in headers[3]
    assert "under load" not in told[3][1]["honesty"]["reason"]


async def test_a_queue_that_a_reload_closes_is_full_for_those_who_wait() -> None:
    admission = places(1, max_queue=4)
    one, two, three = await clients(admission, "abc")
    assert admission.pressure == 0.5
    for most in (1, 0):
        admission.adopt(Settings(max_concurrency=1, max_queue=most))
        assert admission.pressure == 1.0
    await finish(one, two, three)
    assert admission.pressure == 0.0


async def test_under_load_all_stays_as_it_is_unless_told_otherwise() -> None:
    async with proxy(Held(), max_concurrency=1, max_queue=2) as on:
        told = await pressed(on, ask(), ask())
    assert [answer[2]["x-honesty-strategy"] for answer in told] == ["gated", "gated"]


async def test_what_may_not_answer_does_not_under_load_either() -> None:
    limits = {"max_concurrency": 1, "max_queue": 2, "degrade": True}
    async with proxy(Held(), strategies_allowed=("gated", "introspect"), **limits) as on:
        told = await pressed(on, ask(), ask())
    assert [answer[2]["x-honesty-strategy"] for answer in told] == ["gated", "gated"]


async def test_few_places_serve_many_in_the_end() -> None:
    async with proxy(script(), max_concurrency=2, strategy="raw") as on:
        told = await asyncio.gather(*(on.post(ask(str(n))) for n in range(30)))
    assert {status for status, _, _ in told} == {200}
