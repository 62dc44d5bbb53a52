"""What must stay true of the repository as a whole."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic_core import PydanticUndefined

from honestproxy.settings import Settings
from honestproxy.strategies import STRATEGIES

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "honestproxy"
README = (ROOT / "README.md").read_text("utf-8")

ABOVE = ["settings", "wire", "turn", "pipeline", "strategies", "backends", "server", "client"]
FORBIDDEN = {
    "document": [""],
    "types": ["errors", "templates", "trace", "call", "conversation", "doubts", "run", *ABOVE],
    "errors": [""],
    "timers": [""],
    "templates": ABOVE,
    "trace": ABOVE,
    "call": ABOVE,
    "conversation": ABOVE,
    "replies": ["doubts", *ABOVE],
    "doubts": ABOVE,
    "streams": ["trace", "call", "conversation", "doubts", "run", *ABOVE],
    "compatible": ABOVE,
    "settings": ["wire", "turn", "pipeline", "strategies", "backends", "server"],
    "wire": ["backends", "turn", "pipeline", "strategies", "server"],
    "backends": ["turn", "pipeline", "strategies", "server"],
    "store": ["trace", "call", "run", *ABOVE],
    "turn": ["wire", "pipeline", "strategies", "backends", "server"],
    "strategies": ["wire", "pipeline", "backends", "server"],
    "several": ["wire", "pipeline", "run", "weighing", "strategies", "backends", "server"],
    "weighing": ["wire", "pipeline", "run", "strategies", "backends", "server"],
    "run": ["wire", "pipeline", "strategies", "backends", "server"],
    "verbatim": ["wire", "pipeline", "strategies", "backends", "server"],
    "pipeline": ["wire", "server"],
    "router": ["wire", "server"],
    "evals": ["server", "client", "ray"],
    "server": ["client", "evals", "ray"],
    "client": ["ray"],
    "ray": ["client"],
}
"""By part of the package, what it may not import; "" is all of ours. None may import `cli`."""

HEAVY = {
    "litellm": "backends/litellm",
    "torch": "backends/local",
    "transformers": "backends/local",
    "gguf": "backends/local",
    "safetensors": "backends/local",
    "fastapi": "server",
    "typer": "cli",
    "rich": "cli",
    "sqlalchemy": "store",
    "alembic": "store",
    "ray": "ray",
}
"""Packages that only one part may import. The doctor may ask torch what it can do."""


def imports(file: Path) -> Iterator[str]:
    """Every module that a file imports, anywhere in it, even for types alone."""
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: a relative import"
            yield f"{node.module}"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def sources(part: str = "") -> list[Path]:
    """The files of a part: a module or a folder of the package."""
    module = PACKAGE / f"{part}.py"
    found = [module] if part and module.is_file() else sorted((PACKAGE / part).rglob("*.py"))
    assert found, f"no files in {part}"
    return found


def test_every_part_has_its_place():
    parts = {file.relative_to(PACKAGE).with_suffix("").parts[0] for file in sources()}
    assert parts == {*FORBIDDEN, "cli", "__init__", "__main__"}


@pytest.mark.parametrize("part", FORBIDDEN)
def test_dependencies_point_one_way(part):
    banned = tuple(f"honestproxy.{name}".rstrip(".") + "." for name in [*FORBIDDEN[part], "cli"])
    for file in sources(part):
        for name in imports(file):
            assert not f"{name}.".startswith(banned), f"{file.relative_to(ROOT)} imports {name}"


@pytest.mark.parametrize("package", HEAVY)
def test_a_heavy_package_is_imported_by_one_part_alone(package):
    allowed = [PACKAGE / HEAVY[package], PACKAGE / "cli" / "checks.py"]
    for file in sources():
        if package in {name.partition(".")[0] for name in imports(file)}:
            homes = [
                home for home in allowed if home in (file, file.with_suffix(""), *file.parents)
            ]
            assert homes, f"{file.relative_to(ROOT)} imports {package}"


def test_importing_the_package_brings_in_nothing_heavy():
    modules = "honestproxy, honestproxy.pipeline, honestproxy.server, honestproxy.cli"
    heavy = "{'torch', 'transformers', 'litellm'}"
    code = f"import sys, {modules}; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def settings_table() -> str:
    """The table of settings, as the code has it."""
    lines = ["| setting | default | what it is |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        lines.append(f"| `{name}` | {_default(name, field.default)} | {field.description} |")
    return "\n".join(lines)


def _default(name: str, value: object) -> str:
    if value is PydanticUndefined:
        return {"cache": "the user's cache folder", "exemplars": "in the user's data folder"}[name]
    if value in (None, (), {}):
        return "–"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def block(name: str) -> str:
    """What stands in docs/settings.md between the comments `name` and `/name`."""
    _, _, rest = (ROOT / "docs/settings.md").read_text("utf-8").partition(f"<!-- {name}")
    inside, end, _ = rest.partition(f"<!-- /{name} -->")
    assert end, f"the page has no block {name}"
    return inside.partition("-->")[2].strip()


def test_the_page_of_settings_tells_every_one_as_it_is():
    assert block("settings") == settings_table(), f"it should be:\n\n{settings_table()}\n"


def test_the_readme_tells_every_strategy():
    table = README.partition("## Strategies")[2].partition("\n\n`gated`")[0]
    rows = [line.split("`")[1] for line in table.splitlines() if line.startswith("| `")]
    assert rows == list(STRATEGIES)


def test_the_readme_links_lead_somewhere():
    for target in {part.partition(")")[0] for part in README.split("](")[1:]}:
        assert target.startswith("https://") or (ROOT / target).exists(), target


def test_no_module_has_grown_too_long():
    lengths = {file: len(file.read_text("utf-8").splitlines()) for file in sources()}
    assert not {str(file): n for file, n in lengths.items() if n > 450}
