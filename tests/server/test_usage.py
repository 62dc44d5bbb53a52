"""Tokens as upstreams tell them: counts are counted, and whatever else they write is none."""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path
from typing import Any

import pytest

from honestproxy.server.access import keys
from honestproxy.server.access.usage import Overheard, count, summed
from honestproxy.server.account import Account
from tests.proxy import Proxy, ask, proxy, script
from tests.upstreams import Reply, answer, completion

ODD = ["7", -1, 1.5, True, None, [7], 10**30]
"""What an upstream may write where a count should be."""


def telling(total: Any, text: str = "Paris.") -> Reply:
    usage = {"prompt_tokens": total, "completion_tokens": total, "total_tokens": total}
    return answer(completion(text, usage=usage))


async def asked(on: Proxy, key: str) -> int:
    return (await on.post(ask(), Authorization=f"Bearer {key}"))[0]


@pytest.mark.parametrize("told", ODD)
def test_what_is_no_count_is_none(told: object) -> None:
    assert count(told) is None
    assert summed([{"total_tokens": told}], "total_tokens") is None
    assert summed([{"total_tokens": told}, {"total_tokens": 7}], "total_tokens") == 7


@pytest.mark.parametrize(("told", "taken"), [(b"7", 7), (b"-7", 0), (b"1" * 30, 0), (b"7e9", 0)])
async def test_of_a_relayed_reply_too(told: bytes, taken: int) -> None:
    async def send(_: object) -> None:
        pass

    heard = Overheard()
    body = b'{"usage": {"total_tokens": ' + told + b"}}"
    await heard.hearing(send)({"type": "http.response.body", "body": body})
    assert heard.tokens() == taken


@pytest.mark.parametrize("told", ODD)
async def test_whatever_is_told_everyone_hears_of_the_request(told: object) -> None:
    shares = {"raw": 1, "gated": 1e-9}
    async with proxy(script(draft=telling(told)), experiment=shares) as on:
        assert (await on.post(ask(user="one")))[0] == 200
        async with on.session.get(f"{on.url}/honesty/experiment") as got:
            arm = (await got.json())["arms"]["raw"]
        async with on.session.get(f"{on.url}/honesty/experiment/records") as got:
            record = json.loads(await got.text())
        async with on.session.get(on.url.removesuffix("/v1") + "/metrics") as got:
            text = await got.text()
    assert (arm["requests"], arm["tokens"], record["usage"]) == (1, 0, {})
    assert 'api="chat",outcome="passed_through",status="200",strategy="raw"} 1.0' in text
    assert "honestproxy_tokens_total{" not in text


def test_an_observer_that_fails_keeps_no_other_from_being_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    told: list[Account] = []

    class Failing:
        def note(self, account: Account) -> None:
            raise TypeError("of no use")

    class Told:
        def note(self, account: Account) -> None:
            told.append(account)

    account = Account("chat")
    account.close([Failing(), Told()])
    assert told == [account]
    assert "Failing failed" in caplog.text


async def test_no_key_gets_tokens_back(tmp_path: Path) -> None:
    key, _ = keys.create(tmp_path / "keys", spend=30)
    taken = script(draft=telling(-1_000_000, "word " * 30))
    async with proxy(taken, keys=tmp_path / "keys", strategy="raw") as on:
        assert [await asked(on, key) for _ in range(2)] == [200, 429]


async def test_no_word_of_an_upstreams_gets_into_the_log_as_a_count(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, "honestproxy.access")
    async with proxy(script(draft=telling("planted")), log_level="debug", strategy="raw") as on:
        await on.post(ask())
        while not any(record.getMessage() == "request" for record in caplog.records):
            await asyncio.sleep(0.01)
    assert "planted" not in str([vars(record) for record in caplog.records])
