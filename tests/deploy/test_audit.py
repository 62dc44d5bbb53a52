"""The audit's verdict, with a pip-audit that says what it is told to."""

from __future__ import annotations

import datetime
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.test_repository import ROOT

FOUND = {
    "name": "example",
    "version": "1.0",
    "vulns": [{"id": "PYSEC-1", "aliases": ["CVE-1"], "fix_versions": ["1.1"]}],
}
CLEAN = {"name": "other", "version": "2.0", "vulns": []}
SKIPPED = {"name": "strange", "skip_reason": "Dependency not found"}


def audited(folder: Path, says: object, *entries: dict[str, Any]) -> tuple[int, str]:
    """Its exit code and all that it printed."""
    shutil.copy(ROOT / "deploy" / "audit.py", folder)
    lines = [f"{n} = {v if n == 'until' else json.dumps(v)}" for e in entries for n, v in e.items()]
    table = "\n".join(["[[finding]]", *lines]) if entries else "finding = []"
    (folder / "audit.toml").write_text(table)
    (folder / "pip_audit.py").write_text(
        f"print({says if isinstance(says, str) else json.dumps(says)!r})"
    )
    told = {**os.environ, "PYTHONPATH": str(folder)}
    command = [sys.executable, folder / "audit.py", "shipped.txt"]
    done = subprocess.run(command, env=told, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def entry(**other: Any) -> dict[str, Any]:
    later = datetime.date.today() + datetime.timedelta(days=30)
    return {"id": "CVE-1", "package": "example", "reason": "not reached", "until": later} | other


def test_a_finding_without_a_reason_fails(tmp_path: Path) -> None:
    status, said = audited(tmp_path, {"dependencies": [FOUND, CLEAN]})
    assert status == 1
    assert "example 1.0: PYSEC-1, mended in 1.1" in said


def test_one_that_is_explained_by_any_of_its_names_does_not(tmp_path: Path) -> None:
    status, said = audited(tmp_path, {"dependencies": [FOUND, CLEAN]}, entry())
    assert (status, "1 findings explained, 0 problems" in said) == (0, True)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"until": "2020-01-01"}, "PYSEC-1"),
        ({"package": "other"}, "found no more"),
        ({"id": "CVE-2"}, "found no more"),
        ({"reason": " "}, "an entry needs"),
    ],
)
def test_a_reason_that_is_over_or_of_something_else_fails(
    tmp_path: Path, change: dict[str, str], why: str
) -> None:
    status, said = audited(tmp_path, {"dependencies": [FOUND, CLEAN]}, entry(**change))
    assert (status, why in said) == (1, True)


def test_a_package_that_nobody_knows_is_a_problem(tmp_path: Path) -> None:
    status, said = audited(tmp_path, {"dependencies": [CLEAN, SKIPPED]})
    assert (status, "strange: not looked at" in said) == (1, True)


@pytest.mark.parametrize("says", ["no JSON", {"dependencies": [SKIPPED, SKIPPED]}])
def test_a_service_that_cannot_be_asked_is_never_taken_for_a_clean_bill(
    tmp_path: Path, says: object
) -> None:
    status, said = audited(tmp_path, says)
    assert (status, "NOT AUDITED" in said) == (3, True)
