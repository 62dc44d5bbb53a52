"""Schemathesis on our OpenAPI document: no 5xx of ours, and no answer that the document forbids."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tests.able import chat, responses
from tests.able.mind import Asked, Said, say
from tests.able.server import DONE, embedded, typed
from tests.outside.environments import installed, run
from tests.proxy import MARKS, proxy
from tests.upstreams import Reply, Seen, answer, event, events

UNFIT = {
    "unsupported_method": "what the document doesn't list is relayed, whatever its method",
    "positive_data_acceptance": "a strategy or a model that the document can't list may be refused",
}
"""Checks that say nothing about us, and why."""


def patient(seen: Seen) -> Reply:
    """An upstream that takes whatever it gets for a good request."""
    if seen.method == "GET":
        return answer({"object": "list", "data": [{"id": "m", "object": "model"}]})
    step = next((mark for mark in MARKS.values() if mark.encode() in seen.body), "")
    said, body = say(Asked("m", step or "?", "user")), {"model": "m", "input": "?"}
    is_streamed = b'"stream":true' in seen.body.replace(b" ", b"")
    if seen.path.endswith("/chat/completions"):
        return _chat(said, is_streamed)
    if seen.path.endswith("/responses"):
        made: Any = map(typed, responses.events(body, said, 1))
        return events(*made, done=False) if is_streamed else answer(responses.whole(body, said, 1))
    return embedded(body)


def _chat(said: Said, is_streamed: bool) -> Reply:
    if not is_streamed:
        return answer(chat.whole({"model": "m"}, said))
    body = {"model": "m", "stream_options": {"include_usage": True}}
    return events(*map(event, chat.chunks(body, said)), DONE, done=False)


@pytest.mark.parametrize("strategy", ["raw", "gated"])
async def test_our_document_and_our_answers_agree(strategy: str, tmp_path: Path) -> None:
    program = installed("schemathesis", "bin/st")
    async with proxy(patient, strategy=strategy, model="m") as on:
        url = on.url.replace("/v1", "/openapi.json")
        options = ["--phases=examples,coverage,fuzzing", "--max-examples=40", "--no-color"]
        options += ["--continue-on-failure"]
        options += [f"--exclude-checks={','.join(UNFIT)}"]
        in_ci = os.environ.get("CI")
        options += ["--generation-deterministic" if in_ci else "--generation-database=none"]
        code, printed = await run(program, "run", url, *options, env={}, cwd=tmp_path)
    assert code == 0, printed
