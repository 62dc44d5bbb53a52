"""Which upstream answered, as stored rows and spans tell it: the model's own, or a fallback."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from honestproxy.settings import Settings
from honestproxy.store.database import Database
from honestproxy.store.rows import Filter, Rows
from honestproxy.store.schema import Row
from tests.collector import Collector, collector
from tests.proxy import DOUBT, ask, script, serving, step_of
from tests.upstreams import Reply, Seen, answer, upstream

DOWN = answer({"error": {"message": "down"}}, status=500)


@dataclass
class Several:
    """A proxy before three upstreams; its rows and spans are there once this is left."""

    url: str
    session: aiohttp.ClientSession
    at: dict[str, str]
    spans: Collector
    database: str

    async def post(self, path: str = "chat/completions", **body: Any) -> None:
        async with self.session.post(f"{self.url}/{path}", json=ask(**body)) as got:
            await got.read()
            assert got.status == 200

    def row(self) -> Row:
        database = Database(self.database)
        (found,) = Rows(database).each(Filter())
        database.close()
        return found

    def called(self) -> dict[str, str]:
        """The address that each step's span tells, by the upstream's name."""
        by_port = {url.split(":")[2].removesuffix("/v1"): name for name, url in self.at.items()}
        spans = [span.attributes for span in self.spans.of("CLIENT")]
        return {told["honestproxy.step"]: by_port[str(told["server.port"])] for told in spans}


@asynccontextmanager
async def several(folder: Path, first: Any, **settings: Any) -> AsyncIterator[Several]:
    """The default upstream, `house` for models llama-*, and `spare`, everyone's fallback."""
    async with (
        collector() as spans,
        upstream(first) as default,
        upstream(first) as house,
        upstream(script(confusion=DOUBT)) as spare,
        aiohttp.ClientSession() as session,
    ):
        known = Settings(
            upstream=default.url,
            upstreams={
                "house": {"url": house.url, "models": ["llama-*"], "fallbacks": ["spare"]},
                "spare": {"url": spare.url},
            },
            fallbacks=("spare",),
            retries=0,
            trace_store=f"sqlite:///{folder / 'traces.db'}",
            otlp_endpoint=spans.url,
            **settings,
        )
        at = {"default": default.url, "house": house.url, "spare": spare.url}
        async with serving(known) as url:
            yield Several(url, session, at, spans, known.trace_store or "")


@pytest.mark.parametrize("strategy", ["raw", "gated"])
@pytest.mark.parametrize("streamed", [False, True])
async def test_a_model_leads_to_its_own(tmp_path: Path, strategy: str, streamed: bool) -> None:
    async with several(tmp_path, script(), strategy=strategy) as on:
        await on.post(model="llama-3", stream=streamed)
    assert on.row().upstream == on.at["house"]
    assert set(on.called().values()) == {"house"}


@pytest.mark.parametrize("strategy", ["raw", "gated"])
@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("model", ["m", "llama-3"])
async def test_a_fallback_that_answered_is_named(
    tmp_path: Path, model: str, strategy: str, streamed: bool
) -> None:
    async with several(tmp_path, DOWN, strategy=strategy) as on:
        await on.post(model=model, stream=streamed)
    assert on.row().upstream == on.at["spare"]
    assert set(on.called().values()) == {"spare"}


async def test_of_several_calls_the_one_that_made_the_answer_counts(tmp_path: Path) -> None:
    fine = script(confusion=DOUBT)

    def without_merge(seen: Seen) -> Reply:
        return DOWN if step_of(seen.json()) == "merge" else fine(seen)

    async with several(tmp_path, without_merge, strategy="gated") as on:
        await on.post()
    assert on.row().upstream == on.at["spare"]
    assert on.called() == {"draft": "default", "confusion": "default", "merge": "spare"}


async def test_what_is_only_relayed_goes_by_its_model_too(tmp_path: Path) -> None:
    async with several(tmp_path, script()) as on:
        await on.post("completions", model="llama-3")
    assert on.row().upstream == on.at["house"]


async def test_no_query_of_an_upstreams_address_is_stored(tmp_path: Path) -> None:
    database = f"sqlite:///{tmp_path / 'traces.db'}"
    async with upstream(script()) as up, aiohttp.ClientSession() as session:
        known = Settings(upstream=f"{up.url}?sig=planted", trace_store=database)
        async with serving(known) as url, session.post(f"{url}/chat/completions", json=ask()):
            pass
    assert Several("", session, {}, Collector(), database).row().upstream == up.url
