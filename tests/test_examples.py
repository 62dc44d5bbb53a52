"""Every example, and every code block of the README, is run against a played upstream."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from honestproxy.settings import load
from honestproxy.trace import Honesty, Trace

ROOT = Path(__file__).parent.parent
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", (ROOT / "README.md").read_text("utf-8"), re.M | re.S)
SAYS = {
    "openai_sdk": ["I can't see today's price.", "latest_information"],
    "streaming": ["I can't see today's price.", "rewritten after 3 calls"],
    "choose_strategy": ["body: gated", "header: single", "model name: raw"],
    "in_process": ["I can't see today's price.", "draft:", "prompt curiosity/merge"],
    "own_backend": ["You said: Good morning"],
    "own_prompts": ["Answer in formal German."],
    "several_upstreams": [
        "gpt-5: https://api.openai.com/v1, gated",
        "gpt-5-mini: https://api.openai.com/v1, raw",
        "llama-3: http://127.0.0.1:8000/v1, gated",
    ],
    "wrapped_client": ["I can't see today's price.", "rewritten: ", "streamed: rewritten"],
}


def blocks(language: str) -> list[str]:
    """The README's code blocks in one language."""
    return [text for found, text in BLOCKS if found == language]


@pytest.fixture(scope="module")
def environ(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """An environment in which a proxy listens at OPENAI_BASE_URL, with a played upstream."""
    home = tmp_path_factory.mktemp("home")
    environ = {
        **os.environ,
        "PYTHONPATH": str(ROOT / "tests"),
        "HONESTPROXY_UPSTREAM": "played:small",
        "HOME": str(home),
        "OPENAI_API_KEY": "none",
    }
    command = [sys.executable, "-m", "honestproxy", "serve", "--port", "0", "--json"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=environ, cwd=home
    ) as proxy:
        try:
            yield environ | {"OPENAI_BASE_URL": json.loads(proxy.stdout.readline())["url"]}
        finally:
            proxy.kill()


def said_by(command: list[str], environ: dict[str, str]) -> str:
    """What a command prints, if it ends well."""
    done = subprocess.run(
        command, env=environ, cwd=environ["HOME"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def here(text: str, environ: dict[str, str]) -> str:
    """A block of the README with the proxy's address in the place of the usual one."""
    usual = "http://127.0.0.1:8400/v1"
    assert usual in text or "OpenAI()" in text  # which reads OPENAI_BASE_URL
    return text.replace(usual, environ["OPENAI_BASE_URL"])


def test_every_example_is_run():
    assert set(SAYS) == {file.stem for file in (ROOT / "examples").glob("*.py")}


@pytest.mark.parametrize("name", SAYS)
def test_an_example_does_what_it_says(name, environ):
    said = said_by([sys.executable, str(ROOT / "examples" / f"{name}.py")], environ)
    for part in SAYS[name]:
        assert part in said


@pytest.mark.parametrize("code", blocks("python"))
def test_a_python_block_of_the_readme_runs(code, environ):
    said_by([sys.executable, "-c", here(code, environ)], environ)


@pytest.mark.skipif(not shutil.which("curl"), reason="no curl")
def test_the_curl_line_of_the_readme_runs(environ):
    (line,) = [text for text in blocks("bash") if text.startswith("curl")]
    answer = json.loads(said_by(["bash", "-c", here(line, environ)], environ))
    assert answer["honesty"]["outcome"]


def test_the_make_targets_of_the_readme_exist():
    text = "\n".join(blocks("bash"))
    for target in re.findall(r"^make (\w+)", text, re.M):
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text("utf-8"), re.M), target


@pytest.mark.parametrize("text", blocks("toml"))
def test_a_toml_block_of_the_readme_is_valid(text, tmp_path):
    path = tmp_path / "honestproxy.toml"
    path.write_text(text, "utf-8")
    keys = dict.fromkeys(re.findall(r"env:(\w+)", text), "a-key")
    assert load(path, environ=keys).model_fields_set


@pytest.mark.parametrize("text", blocks("json"))
def test_the_honesty_object_of_the_readme_has_the_real_fields(text):
    assert set(json.loads(text)) == set(Honesty(Trace("gated")).body())


def test_every_block_of_the_readme_is_of_a_kind_that_is_tested():
    assert {language for language, _ in BLOCKS} <= {"python", "bash", "toml", "json", "text"}
