"""A scripted upstream of Responses, for tests."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.able import responses
from tests.able.mind import Called, Said
from tests.proxy import DRAFT, MARKS, MERGED, NO_DOUBT, Proxy, script
from tests.proxy import step_of as chat_step_of
from tests.upstreams import Reply, Seen, answer, events


def step_of(body: Mapping[str, Any]) -> str:
    """Which step sent this body."""
    words = json.dumps(body["input"])
    return next((step for step, mark in MARKS.items() if mark in words), "draft")


@dataclass
class Responding:
    """Answers Responses by step: a text, what was said, or a Reply of its own; keeps them all.

    `knows`: whether it knows Responses at all, rather than chat alone.
    """

    replies: dict[str, str | Said | Reply] = field(default_factory=dict)
    knows: bool = True
    stored: dict[str, dict[str, Any]] = field(default_factory=dict)
    made: int = 0

    def __call__(self, seen: Seen) -> Reply:
        path = seen.path.removeprefix("/v1")
        if path.startswith("/responses/"):
            return self._kept(seen.method, path.removeprefix("/responses/"))
        if path == "/responses" and self.knows:
            return self._answer(seen.json())
        if path == "/responses":
            return answer({"detail": "Not Found"}, status=404)
        return script(**self.replies)(seen)  # type: ignore[arg-type]

    def _kept(self, method: str, name: str) -> Reply:
        if name not in self.stored:
            return answer({"error": {"message": f"no response {name}"}}, status=404)
        if method == "DELETE":
            del self.stored[name]
            return answer({"id": name, "object": "response", "deleted": True})
        return answer(self.stored[name])

    def _answer(self, body: dict[str, Any]) -> Reply:
        step = step_of(body)
        usual = {"draft": DRAFT, "confusion": NO_DOUBT, "merge": MERGED}
        reply = self.replies.get(step, usual.get(step, f"The {step}."))
        if isinstance(reply, Reply):
            return reply
        said = Said(reply) if isinstance(reply, str) else reply
        self.made += 1
        made = responses.whole(body, said, self.made)
        if made["store"] is not False:
            self.stored[made["id"]] = made
        if not body.get("stream"):
            return answer(made)
        return typed(*responses.events(body, said, self.made))


def typed(*told: Mapping[str, Any], **more: Any) -> Reply:
    """A stream of typed events."""
    sent = [f"event: {one['type']}\ndata: {json.dumps(one)}\n\n".encode() for one in told]
    return events(*sent, done=False, **more)


def called(name: str, **arguments: Any) -> Said:
    """An answer that calls a function."""
    return Said(calls=(Called(name, json.dumps(arguments)),), finish="tool_calls")


def asked(on: Proxy) -> dict[str, dict[str, Any]]:
    """What was asked of the upstream's Responses, by step."""
    bodies = [seen.json() for seen in on.upstream.seen if seen.path == "/v1/responses"]
    return {step_of(body): body for body in bodies}


def asked_by_chat(on: Proxy) -> dict[str, dict[str, Any]]:
    """What was asked of the upstream's chat, by step."""
    bodies = [seen.json() for seen in on.upstream.seen if seen.path == "/v1/chat/completions"]
    return {chat_step_of(body): body for body in bodies}


def honesty(reply: Any) -> dict[str, Any]:
    """The object that says what was done."""
    return dict(reply.model_extra["honesty"])


async def told(on: Proxy, **ask: Any) -> list[Any]:
    """The events of a streamed response, by the SDK."""
    stream = await on.client.responses.create(**ask, stream=True)
    return [event async for event in stream]


def deltas(events: list[Any]) -> str:
    """The text that they say bit by bit."""
    return "".join(e.delta for e in events if e.type == "response.output_text.delta")
