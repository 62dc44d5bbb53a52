"""Values that stand elsewhere, as `env:NAME` or `file:PATH`, and what of a value may be shown."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from honestproxy.settings.fields import REFERENCES

_AS: Final = {"env": "env:NAME", "file": "file:PATH"}
_LARGEST: Final = 65_536
_PASSWORD: Final = re.compile(r"(?<=://)([^/?#]*?):.*@")
_SECRET_QUERY: Final = re.compile(r"(?i)([?&][^=&]*(?:key|password|pwd|secret|token)[^=&]*=)[^&#]*")
BLOT: Final = "***"


def resolved(reference: str, environ: Mapping[str, str]) -> str:
    """The value that is named. Raises ValueError, which says what is wrong and never the value."""
    kind, _, name = reference.partition(":")
    if not name.strip():
        raise ValueError(f"{kind}: names nothing: write {_AS[kind]}")
    value = _variable(name, environ) if kind == "env" else _content(Path(name).expanduser())
    if value.startswith(REFERENCES):
        raise ValueError(f"what {kind}:{name} holds is a reference again, not a value")
    return value


def is_reference(value: object) -> bool:
    """Whether it says where a value stands."""
    return isinstance(value, str) and value.startswith(REFERENCES)


def is_open(status: os.stat_result) -> bool:
    """Whether others on this machine can read a file of that status.

    Its group may, where we are not its owner: a mounted secret is root's, and ours by group alone.
    """
    if os.name == "nt":
        return False
    return bool(status.st_mode & (0o077 if status.st_uid == os.geteuid() else 0o007))


def exposed(path: Path) -> str | None:
    """What mends a file that other users of this machine can read; None where they can't."""
    if not is_open(path.stat()):
        return None
    return f"others on this machine can read {path}: chmod 600 {path}"


def blotted(text: str) -> str:
    """A URL without the password that it may hold, and without keys in its query."""
    return _SECRET_QUERY.sub(rf"\1{BLOT}", _PASSWORD.sub(rf"\1:{BLOT}@", text))


def _variable(name: str, environ: Mapping[str, str]) -> str:
    value = environ.get(name, "").strip()
    if not value:
        what = "is empty" if name in environ else "is not set"
        raise ValueError(f"the environment's variable {name} {what}")
    return value


def _content(path: Path) -> str:
    try:
        if told := exposed(path):
            raise ValueError(told)
        with path.open("rb") as file:
            value = file.read(_LARGEST + 1).decode("utf-8").strip()
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not UTF-8 text") from None
    except OSError as error:
        raise ValueError(f"{path} can't be read: {error.strerror}") from None
    if not value:
        raise ValueError(f"{path} is empty")
    if len(value) > _LARGEST or len(value.splitlines()) > 1:
        raise ValueError(f"{path} holds more than one line")
    return value
