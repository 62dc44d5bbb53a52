"""The same claims with openai 3, which stands on httpx2, in an environment of its own."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.outside.environments import installed, run

HERE = Path(__file__).parent
PRINT = "import openai, sys; print(openai.__version__, 'httpx' in sys.modules)"


def packages() -> Path:
    """Where that environment keeps its packages: before our own on the path, they win."""
    found = installed("openai3").parent.parent.glob("lib/python3*/site-packages")
    return next(found)


async def test_with_openai_3_all_holds_as_well() -> None:
    env = {"PYTHONPATH": str(packages())}
    _, version = await run(sys.executable, "-c", PRINT, env=env)
    assert version.startswith("3."), version
    assert version.endswith("False\n"), version
    tests = HERE / "test_wrapped.py"
    code, printed = await run(sys.executable, "-m", "pytest", "-q", tests, env=env)
    assert code == 0, printed
    assert " passed" in printed
    assert "skipped" not in printed
