"""Chat completions that are to be stored: of all calls, the one that is the answer stays."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.proxy import DOUBT, DRAFT, MERGED, NO_DOUBT, Proxy, ask, proxy, script, step_of
from tests.upstreams import Reply, Seen, answer, chunk, completion, event, events

PATH = "/v1/chat/completions"
TOOL = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}


@dataclass
class Storing:
    """An upstream that stores what is to be stored, each under an id of its own.

    `calls`: which choices of a draft call a tool. `refusing`: the status of every deletion.
    """

    confusion: str = DOUBT
    calls: tuple[int, ...] = ()
    refusing: int | None = None
    stored: dict[str, str] = field(default_factory=dict)
    made: int = 0

    def __call__(self, seen: Seen) -> Reply:
        if seen.method == "DELETE":
            name = seen.path.partition("?")[0].removeprefix(f"{PATH}/")
            if self.refusing:
                return answer({"error": {"message": "no"}}, status=self.refusing)
            return answer({"id": name, "deleted": bool(self.stored.pop(name))})
        body = seen.json()
        step = step_of(body)
        self.made += 1
        name = f"chatcmpl-{self.made}"
        if body.get("store"):
            self.stored[name] = step
        if step == "confusion":
            return script(confusion=self.confusion)(seen)
        text = DRAFT if step == "draft" else MERGED
        messages = [self._message(step, text, at) for at in range(body.get("n") or 1)]
        return _streamed(name, messages) if body.get("stream") else _whole(name, messages)

    def _message(self, step: str, text: str, at: int) -> dict[str, Any]:
        if step == "draft" and at in self.calls:
            return {"role": "assistant", "content": None, "tool_calls": [{"index": 0, **TOOL}]}
        return {"role": "assistant", "content": text}


def _whole(name: str, messages: list[dict[str, Any]]) -> Reply:
    ends = {"finish_reason": "stop"}
    choices = [{"index": at, "message": told, **ends} for at, told in enumerate(messages)]
    return answer(completion() | {"id": name, "choices": choices})


def _streamed(name: str, messages: list[dict[str, Any]]) -> Reply:
    ends = {"finish_reason": "stop"}
    choices = [{"index": at, "delta": told, **ends} for at, told in enumerate(messages)]
    return events(*(event(chunk() | {"id": name, "choices": [choice]}) for choice in choices))


def deleted(on: Proxy) -> list[str]:
    return [seen.path for seen in on.upstream.seen if seen.method == "DELETE"]


async def posted(on: Proxy, body: dict[str, Any]) -> str:
    sent = {"Authorization": "Bearer mine"}
    url = f"{on.url}/chat/completions?api-version=1"
    async with on.session.post(url, json=body, headers=sent) as got:
        assert got.status == 200
        return await got.text()


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_draft_that_a_merge_replaces_is_stored_no_longer(streamed: bool) -> None:
    above = Storing()
    async with proxy(above) as on:
        await posted(on, ask(store=True, metadata={"a": "b"}, stream=streamed))
    # The proxy has ended: what it still had to delete is deleted.
    [gone] = [seen for seen in on.upstream.seen if seen.method == "DELETE"]
    assert (gone.path, gone.body) == (f"{PATH}/chatcmpl-1?api-version=1", b"")
    assert gone.headers["Authorization"] == "Bearer mine"
    assert list(above.stored.values()) == ["merge"]


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_draft_that_is_kept_stays_stored(streamed: bool) -> None:
    above = Storing(confusion=NO_DOUBT)
    async with proxy(above) as on:
        await posted(on, ask(store=True, stream=streamed))
    assert (deleted(on), list(above.stored.values())) == ([], ["draft"])


@pytest.mark.parametrize("store", [{}, {"store": False}, {"store": None}])
async def test_what_is_not_to_be_stored_is_not_deleted(store: dict[str, Any]) -> None:
    async with proxy(Storing()) as on:
        await posted(on, ask(**store))
    assert deleted(on) == []


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(
    ("calls", "stored"), [((), ["merge"] * 3), ((1,), ["draft", "merge", "merge"])]
)
async def test_a_draft_of_several_choices_goes_once_none_of_them_is_kept(
    calls: tuple[int, ...], stored: list[str], streamed: bool
) -> None:
    above = Storing(calls=calls)
    async with proxy(above) as on:
        await posted(on, ask(store=True, n=3, stream=streamed))
    assert list(above.stored.values()) == stored
    assert len(deleted(on)) == (0 if calls else 1)


@pytest.mark.parametrize(("status", "told"), [(404, []), (405, []), (500, [True])])
async def test_a_deletion_that_fails_is_nobodys_trouble_and_logged_where_something_stays(
    status: int, told: list[bool], caplog: pytest.LogCaptureFixture
) -> None:
    async with proxy(Storing(refusing=status)) as on:
        assert MERGED in await posted(on, ask(store=True))
    assert ["still stored upstream" in record.message for record in caplog.records] == told
