"""The compare page over plain HTTP: its files, what they allow, and what there is to choose."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from honestproxy.backends.scripted import Scripted
from honestproxy.server import page
from honestproxy.settings import Settings
from tests.proxy import proxy, script, serving

FOLDER = Path(page.__file__).parent
FILES = sorted(file.name for file in FOLDER.iterdir() if file.suffix in (".css", ".js"))


def policy(headers) -> dict[str, str]:
    parts = (part.strip().partition(" ") for part in headers["content-security-policy"].split(";"))
    return {name: value for name, _, value in parts}


async def test_the_page_lets_in_nothing_from_elsewhere_and_nothing_inline() -> None:
    async with proxy(script()) as on, on.session.get(on.url.removesuffix("v1")) as got:
        assert (got.status, got.content_type) == (200, "text/html")
        allowed = policy(got.headers)
        assert allowed["default-src"] == "'none'"
        assert {allowed[name] for name in ("script-src", "style-src", "connect-src")} == {"'self'"}
        none = ("base-uri", "form-action", "frame-ancestors")
        assert {allowed[name] for name in none} == {"'none'"}
        assert got.headers["x-content-type-options"] == "nosniff"
        assert got.headers["referrer-policy"] == "no-referrer"
        body = await got.text()
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]+src=)", body)
    assert on.upstream.seen == []


@pytest.mark.parametrize("name", FILES)
async def test_every_file_is_served_typed_and_not_again_where_it_is_known(name: str) -> None:
    kind = "text/css" if name.endswith("css") else "text/javascript"
    async with proxy(script()) as on:
        url = on.url.replace("v1", f"page/{name}")
        async with on.session.get(url) as got:
            assert (got.status, got.content_type) == (200, kind)
            assert await got.read() == (FOLDER / name).read_bytes()
            tag = got.headers["etag"]
        known = {"If-None-Match": f'"other", W/{tag}'}
        async with on.session.get(url, headers=known) as got:
            assert (got.status, await got.read(), got.headers["etag"]) == (304, b"", tag)
        async with on.session.head(url) as got:
            assert (got.status, got.headers["etag"]) == (200, tag)


@pytest.mark.parametrize("name", ["__init__.py", "index.html", "../app.py", "..%2fapp.py", ""])
async def test_nothing_else_is_served(name: str) -> None:
    async with proxy(script()) as on, on.session.get(on.url.replace("v1", f"page/{name}")) as got:
        assert got.status == 404
        assert "error" in await got.json()


async def chosen_from(on, url: str) -> dict:
    async with on.session.get(url.replace("v1", "page/about.json")) as got:
        return await got.json()


async def test_the_strategies_are_those_that_work_here_and_are_allowed() -> None:
    async with proxy(script(), strategies_allowed=("raw", "gated", "introspect")) as on:
        told = await chosen_from(on, on.url)
        assert [one["name"] for one in told["strategies"]] == ["gated"]
        assert told["default"] == "gated"
        assert "doubt" in told["strategies"][0]["about"]


async def test_a_model_that_can_be_read_inside_can_be_introspected() -> None:
    class Read(Scripted):
        async def read(self, request):
            raise NotImplementedError

    async with proxy(script()) as on, serving(Settings(), Read(["hello"])) as url:
        told = await chosen_from(on, url)
        assert "introspect" in [one["name"] for one in told["strategies"]]
