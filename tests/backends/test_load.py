"""Upstream specs, and backends of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from honestproxy import backends
from honestproxy.backends.upstreams import Upstreams
from honestproxy.errors import BackendError, SettingsError
from honestproxy.pipeline import Pipeline
from honestproxy.router import routed
from honestproxy.settings import Settings
from honestproxy.types import ChatRequest

OWN = '''
from honestproxy.types import ChatResponse, Chunk

class Plain:
    """The least that a backend can be; its stream is any async iterator."""
    async def complete(self, request):
        return ChatResponse.of("Hello.")
    def stream(self, request):
        return Pieces()

class Pieces:
    def __init__(self):
        self.left = [Chunk.of("Hel"), Chunk.of("lo."), Chunk.of(finish_reason="stop")]
    def __aiter__(self):
        return self
    async def __anext__(self):
        if not self.left:
            raise StopAsyncIteration
        return self.left.pop(0)

made = Plain()
def factory():
    return Plain()
number = 3
async def odd():
    yield 1
'''


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of a user's own, importable from where the command is run."""
    name = f"own_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(OWN, "utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return name


@pytest.mark.parametrize("attr", ["Plain", "made", "factory"])
async def test_a_backend_needs_no_more_than_complete_and_stream(own: str, attr: str) -> None:
    settings = Settings(upstream=f"{own}:{attr}", strategy="raw")
    pipeline = Pipeline(backends.load(settings), settings)
    fields: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
    assert (await pipeline.complete(ChatRequest(fields))).text == "Hello."
    streamed = [c.text async for c in pipeline.stream(ChatRequest({**fields, "stream": True}))]
    assert "".join(streamed) == "Hello."
    assert await pipeline.models() == []
    await pipeline.aclose()


async def test_that_is_so_among_several_upstreams_too(own: str) -> None:
    table = {"own": {"url": f"{own}:made", "models": ["own-*"], "fallbacks": ["default"]}}
    settings = Settings(
        upstream=f"{own}:Plain", upstreams=table, fallbacks=("own",), strategy="raw"
    )  # type: ignore[arg-type]
    pipelines = routed(Upstreams(settings), settings)
    for model in ("own-1", "other"):
        asked = ChatRequest({"model": model, "messages": [{"role": "user", "content": "Hi"}]})
        assert (await pipelines.complete(asked)).text == "Hello."
    assert [model["id"] for model in await pipelines.models()] == []
    await pipelines.aclose()


@pytest.mark.parametrize("attr", ["number", "odd", "missing"])
def test_what_is_no_backend_is_a_settings_error(own: str, attr: str) -> None:
    with pytest.raises(SettingsError, match=f"{own}:{attr}"):
        backends.load(Settings(upstream=f"{own}:{attr}"))


@pytest.mark.parametrize("text", ["raise OSError('no disk')", "def broken(:\n"])
def test_a_module_that_breaks_is_a_settings_error(tmp_path: Path, text: str, own: str) -> None:
    (tmp_path / "breaks.py").write_text(text, "utf-8")
    with pytest.raises(SettingsError, match=r"breaks:x.*(no disk|invalid syntax|SyntaxError)"):
        backends.load(Settings(upstream="breaks:x"))


@pytest.mark.parametrize("spec", ["nonsense", "local:", "http//x", ""])
def test_a_spec_that_names_nothing_lists_what_could_be(spec: str) -> None:
    with pytest.raises(SettingsError, match="give a URL such as"):
        backends.load(Settings(upstream=spec))


def test_a_url_is_an_openai_compatible_server() -> None:
    loaded = backends.load(Settings(upstream="http://127.0.0.1:9/v1"))
    assert repr(loaded) == "OpenAICompatible('http://127.0.0.1:9/v1')"
    assert backends.traits(loaded).default_strategy == "gated"


def test_a_model_folder_that_isnt_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="nowhere"):
        backends.load(Settings(upstream=f"local:{tmp_path}/nowhere"))
