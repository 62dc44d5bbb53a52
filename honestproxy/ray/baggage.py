"""What a worker needs of the machine that a run was started on: settings, and the user's files."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from honestproxy.settings import ENV_PREFIX, Settings
from honestproxy.templates import Prompts

_FOLDERS: Final = ("prompts", "exemplars")
"""Settings that name a folder whose files make answers what they are."""

Files = Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class Baggage:
    """Settings, and by setting the files of the folders that they name.

    The settings hold the upstream's key: it goes to the cluster, and to its upstream from there.
    """

    settings: Settings
    folders: Mapping[str, Files]

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """What is to be carried from here."""
        given = {name: getattr(settings, name) for name in _FOLDERS}
        return cls(settings, {name: _read(path) for name, path in given.items() if path})

    def unpacked(self, below: Path) -> Settings:
        """The settings as they hold on this machine, the folders laid out below a place.

        One that is empty, or isn't there, isn't there either.
        """
        here: dict[str, Path] = {name: below / name for name in self.folders}
        for name, files in self.folders.items():
            _write(here[name], files)
        if "cache" not in self.settings.model_fields_set:  # each machine has its own
            told = os.environ.get(f"{ENV_PREFIX}CACHE")
            here["cache"] = Path(told) if told else Settings().cache
        return self.settings.model_copy(update=here)


def fingerprint(settings: Settings) -> str:
    """A digest of all prompts: those that a worker sends are to be those that are here."""
    prompts = Prompts(settings.prompts)
    told = "\n".join(f"{name} {prompts[name].digest}" for name in sorted(prompts))
    return hashlib.sha256(told.encode()).hexdigest()[:16]


def _read(folder: Path) -> dict[str, bytes]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def _write(folder: Path, files: Files) -> None:
    if files:
        folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
