"""What the container image holds beyond its base: the Containerfile's own command, run in a folder.

No container engine is needed, so the base itself isn't measured: it is taken for BASE. Exits 1
where an image would be over its limit, 3 where packages can't be fetched.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parent.parent
BASE: Final = 150
"""MB of python:3.11-slim-bookworm, unpacked: it is about 130, and may grow."""

LIMITS: Final = {"": 300, "litellm,postgres,redis,otel": 650}
"""MB of a whole image, by the build argument EXTRAS."""


def build_stage() -> str:
    """The instructions of the Containerfile's first stage, joined lines and no comments."""
    text = re.sub(r"(?m)^#.*\n", "", (ROOT / "deploy" / "Containerfile").read_text("utf-8"))
    return text.replace("\\\n", " ").split("\nFROM ")[1]


def copied(stage: str) -> list[str]:
    """What of the repository the stage copies."""
    found = re.findall(r"(?m)^COPY (.+) \S+$", stage)
    return [name for names in found for name in names.split()]


def installed(extras: str, folder: Path) -> Path:
    """Where the stage's commands have put what the image gets. Raises CalledProcessError."""
    stage, source, app = build_stage(), folder / "src", folder / "app"
    for name in copied(stage):
        target = source / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, target)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environ = {**os.environ, "EXTRAS": extras, "PATH": path}
    # The image's folder in its place here, and the cache that this machine has.
    for command in re.findall(r"(?m)^RUN (.+)$", stage):
        here = command.replace("/app", str(app)).replace("--no-cache-dir", "-qq")
        subprocess.run(["sh", "-c", here], cwd=source, env=environ, check=True)
    return app


def megabytes(folder: Path) -> float:
    """The bytes of all files below, in millions; links count as nothing."""
    files = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return sum(path.stat().st_size for path in files) / 1e6


def main() -> int:
    """Print each image's size beside its limit."""
    status = 0
    for extras, limit in LIMITS.items():
        with tempfile.TemporaryDirectory() as folder:
            try:
                own = megabytes(installed(extras, Path(folder)))
            except subprocess.CalledProcessError:
                print("not measured: packages can't be installed here", file=sys.stderr)
                return 3
            torch = any(Path(folder).rglob("site-packages/torch"))
        is_short = own + BASE >= limit or torch
        status = status or int(is_short)
        print(
            f"EXTRAS={extras or '(none)'}: {own:.0f} MB, and {BASE} MB taken for the base (not "
            f"measured): {own + BASE:.0f} MB of {limit} MB{', with torch' * torch}"
            f"  {'SHORT' if is_short else 'ok'}"
        )
    return status


if __name__ == "__main__":
    sys.exit(main())
