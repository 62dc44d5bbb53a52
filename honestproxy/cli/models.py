"""`honestproxy models`: what can be asked here, and fetching the embedded model."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from honestproxy.cli import question
from honestproxy.cli.options import Json, ListByDefault, with_settings
from honestproxy.cli.output import noted, print_json, safe, stderr, stdout
from honestproxy.errors import InvalidRequest
from honestproxy.settings import DEFAULT_UPSTREAM, Settings
from honestproxy.settings.references import blotted

app = typer.Typer(cls=ListByDefault, help="Models that can be asked: list, pull.")

EMBEDDED = DEFAULT_UPSTREAM.removeprefix("local:")

Name = Annotated[str, typer.Argument(help="The model to fetch.")]


@app.command("list")
@with_settings("cache", "variants", "strategies_allowed")
def list_(settings: Settings, as_json: Json = False) -> None:
    """List models: the embedded one, those in the hub cache, and an upstream's own."""
    rows = [embedded_row(settings), *_hub_rows(), *asyncio.run(_upstream_rows(settings))]
    if as_json:
        print_json({"models": rows})
        return
    table = Table("model", "state", "upstream", "size", box=None, pad_edge=False)
    for row in rows:
        size = f"{row['bytes'] / 1e6:.0f} MB" if row["bytes"] else ""
        table.add_row(safe(row["id"]), row["state"], safe(row["upstream"]), size)
    stdout().print(table)


@app.command()
@with_settings("cache")
def pull(settings: Settings, name: Name = EMBEDDED, as_json: Json = False) -> None:
    """Fetch the embedded model into the cache, verify it, and convert it."""
    if name.removeprefix("local:") != EMBEDDED:
        raise InvalidRequest(
            f"{name!r} can't be pulled, only {EMBEDDED!r}; "
            "a model of the hub is fetched on first use: "
            "honestproxy serve --upstream local:ORGANISATION/NAME"
        )
    from honestproxy.backends.local import embedded

    with noted() as note:
        folder = embedded.fetch(settings.cache, note.update)
    row = embedded_row(settings)
    if as_json:
        print_json(row)
    else:
        stderr().print(f"{EMBEDDED} is ready in {folder}", soft_wrap=True)


def embedded_row(settings: Settings) -> dict[str, Any]:
    """The embedded model: whether it is there, where, and how large."""
    from honestproxy.backends.local import embedded

    state = embedded.locate(settings.cache)
    there = state.weights or state.gguf
    word = "ready" if state.ready else "fetched, not converted" if there else "not fetched"
    return _row(EMBEDDED, word, DEFAULT_UPSTREAM, there)


def _hub_rows() -> Iterator[dict[str, Any]]:
    """Models that other tools left in the Hugging Face cache; told by their folders alone."""
    home = Path(os.environ.get("HF_HOME", "~/.cache/huggingface")).expanduser()
    hub = Path(os.environ.get("HF_HUB_CACHE", home / "hub"))
    for folder in sorted(hub.glob("models--*--*")):
        if any(folder.glob("snapshots/*/config.json")):
            name = folder.name.removeprefix("models--").replace("--", "/", 1)
            yield _row(name, "in the hub cache", f"local:{name}", folder)


async def _upstream_rows(settings: Settings) -> list[dict[str, Any]]:
    """What `/v1/models` lists under these settings, each with the upstream that answers for it."""
    if settings.upstream.startswith("local:") and not settings.upstreams:
        return []
    from honestproxy.backends.upstreams import Upstreams
    from honestproxy.router import routed
    from honestproxy.server.catalog import Catalog
    from honestproxy.strategies import STRATEGIES
    from honestproxy.wire.request import split_suffix

    question.check(settings)
    pipeline = routed(Upstreams(settings), settings)
    try:
        listed = await Catalog(pipeline, settings).models({})
    finally:
        await pipeline.aclose()

    def row(name: str) -> dict[str, Any]:
        upstream = pipeline.of(split_suffix(name, STRATEGIES)[0]).settings.upstream
        return _row(name, "served", blotted(upstream), None)

    return [row(str(model["id"])) for model in listed["data"]]


def _row(name: str, state: str, upstream: str, path: Path | None) -> dict[str, Any]:
    return {
        "id": name,
        "state": state,
        "upstream": upstream,
        "path": str(path) if path else None,
        "bytes": _size(path) if path else None,
    }


def _size(path: Path) -> int:
    """Bytes on disk; links into a shared store count as what they lead to, once."""
    files = {file.resolve() for file in path.rglob("*") if file.is_file()} or {path}
    return sum(file.stat().st_size for file in files)
