"""The pages for other tools: the settings they show are good, and lead where they say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from honestproxy.server import create_app
from honestproxy.settings import load
from honestproxy.strategies import STRATEGIES
from honestproxy.wire.request import split_suffix
from tests.test_repository import README, ROOT

PAGES = sorted((ROOT / "docs").glob("*.md"))
BLOCKS = [
    pytest.param(block, id=f"{page.stem}-{number}")
    for page in PAGES
    for number, block in enumerate(re.findall(r"```toml\n(.*?)```", page.read_text("utf-8"), re.S))
]


@pytest.mark.parametrize("toml", BLOCKS)
async def test_settings_on_the_pages_make_a_proxy(toml: str, tmp_path: Path) -> None:
    file = tmp_path / "honestproxy.toml"
    file.write_text(toml)
    environ = dict.fromkeys(re.findall(r"env:(\w+)", toml), "a-key")
    app = create_app(load(file, environ=environ))
    await app.service.aclose()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere_and_the_readme_leads_here(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)", page.read_text("utf-8")):
        assert target.startswith("https://") or (page.parent / target).exists(), target
    assert f"](docs/{page.name})" in README


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_flags_that_are_shown_exist(page: Path) -> None:
    from honestproxy.settings import Settings

    for command in re.findall(r"honestproxy serve ([^`\n]*)", page.read_text("utf-8")):
        for flag in re.findall(r"--([\w-]+)", command):
            assert flag.replace("-", "_") in Settings.model_fields, flag


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("qwen2.5-7b-instruct@q4_k_m", ("qwen2.5-7b-instruct@q4_k_m", None)),
        ("qwen2.5:7b@raw", ("qwen2.5:7b", "raw")),
    ],
)
def test_names_with_an_at_are_read_as_the_pages_say(name: str, split: tuple) -> None:
    assert split_suffix(name, STRATEGIES) == split
