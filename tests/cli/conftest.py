"""A command line of its own for each test: an empty folder and cache, and played upstreams."""

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from honestproxy.cli import app

TESTS = Path(__file__).parent.parent

Invoke = Callable[..., Result]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to run in; `played:…` can be named as an upstream."""
    monkeypatch.setenv("HONESTPROXY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("PYTHONPATH", str(TESTS))
    monkeypatch.syspath_prepend(TESTS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def cli() -> Invoke:
    """Runs `honestproxy …` in this process."""
    runner = CliRunner()

    def invoke(*words: object, stdin: str | None = None) -> Result:
        return runner.invoke(app, [str(word) for word in words], input=stdin)

    return invoke
