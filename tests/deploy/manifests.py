"""Kubernetes manifests as an overlay makes them: what `kubectl kustomize` does, as far as ours go.

Resources, and patches that are JSON patches (RFC 6902) with add, replace and remove.
"""

from __future__ import annotations

import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from tests.test_repository import ROOT

KUBERNETES = ROOT / "deploy" / "kubernetes"
OVERLAYS = ("base", "overlays/production", "overlays/vllm")


def manifests(folder: Path) -> list[dict[str, Any]]:
    """Every object that a folder's kustomization makes."""
    told = yaml.safe_load((folder / "kustomization.yaml").read_text("utf-8"))
    assert told.keys() <= {"apiVersion", "kind", "resources", "patches"}
    found = [made for name in told["resources"] for made in _resource(folder / name)]
    for patch in told.get("patches", []):
        text = patch.get("patch") or (folder / patch["path"]).read_text("utf-8")
        targets = [made for made in found if _fits(made, patch["target"])]
        assert len(targets) == 1, patch["target"]
        for step in yaml.safe_load(text):
            _apply(targets[0], step)
    return found


def one(found: list[dict[str, Any]], kind: str, name: str = "honestproxy") -> dict[str, Any]:
    """The object of that kind and name."""
    (it,) = [made for made in found if (made["kind"], made["metadata"]["name"]) == (kind, name)]
    return it


def with_secrets_here(toml: str, folder: Path, contents: dict[str, str]) -> tuple[Path, set[str]]:
    """Those settings as a file, with secrets that are there; and the names of those it uses."""
    used = set()
    place = Path(tempfile.mkdtemp(dir=folder))
    for name, content in contents.items():
        file = place / name
        file.touch(0o600)
        file.write_text(content)
        for there in (f"/run/secrets/honestproxy/{name}", f"/run/secrets/{name}"):
            if f'{there}"' in toml:
                used.add(name)
                toml = toml.replace(there, str(file))
    assert "/run/secrets" not in toml
    tomllib.loads(toml)
    file = place / "honestproxy.toml"
    file.write_text(toml)
    return file, used


def _resource(path: Path) -> Iterator[dict[str, Any]]:
    if path.is_dir():
        yield from manifests(path.resolve())
    else:
        yield from yaml.safe_load_all(path.read_text("utf-8"))


def _fits(made: dict[str, Any], target: dict[str, str]) -> bool:
    return made["kind"] == target["kind"] and made["metadata"]["name"] == target["name"]


def _apply(made: dict[str, Any], step: dict[str, Any]) -> None:
    *way, last = step["path"].strip("/").split("/")
    inside: Any = made
    for part in way:
        inside = inside[int(part) if isinstance(inside, list) else part]
    if step["op"] == "remove":
        del inside[last]
    else:
        assert step["op"] == "add" or last in inside
        inside[last] = step["value"]
