"""A command line of its own for each test: an empty folder, an empty cache, played upstreams."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from honestproxy.cli import app

UPSTREAMS = r'''
from honestproxy.backends.scripted import Scripted
from honestproxy.errors import UpstreamError

class Odd(Scripted):
    async def models(self, headers=None):
        return []

DOUBTS = """{"doubts": [{"kind": "latest_information",
 "statement": "I see no [b]live[/b] prices."}], "confidence": 0.1}"""

def reply(request):
    text = request.messages[-1]["content"]
    if "\n" not in text:
        return ["Gold costs ", "[red]2000[/red] \x1b[31mdollars."]
    return ["I can't see ", "today's price."] if "<draft>" in text else DOUBTS

gold = Scripted(reply, model="gold-1")
echo = Scripted(lambda request: request.messages[-1]["content"], model="echo-1")
system = Scripted(lambda request: request.messages[0]["content"])
busy = Scripted(lambda request: UpstreamError("slow down", status=429))
slow = Scripted(lambda request: "late", delay=60)
lists_nothing = Odd(lambda request: "hello")
'''

Invoke = Callable[..., Result]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to run in, with `played.py` beside it as upstreams."""
    monkeypatch.setenv("HONESTPROXY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "played", raising=False)
    (tmp_path / "played.py").write_text(UPSTREAMS, "utf-8")
    return tmp_path


@pytest.fixture
def cli() -> Invoke:
    """Runs `honestproxy …` in this process."""
    runner = CliRunner()

    def invoke(*words: object, stdin: str | None = None) -> Result:
        return runner.invoke(app, [str(word) for word in words], input=stdin)

    return invoke
