"""The proxy's own keys: what a file of them holds, how it is read, and how it is changed.

A key is `hp-<id>-<secret>`. The secret is 32 random bytes, and only its SHA-256 is kept. No slow
hash is needed: those are for passwords, which can be guessed; nobody tries 2**256 secrets.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import stat
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
from filelock import FileLock, Timeout

from honestproxy.errors import InvalidRequest, SettingsError
from honestproxy.settings.references import is_open

PREFIX: Final = "hp"
_ID_BYTES: Final = 6
_SECRET_BYTES: Final = 32
_LOCKED_WITHIN: Final = 10.0
"""Seconds to wait for another command that changes the file."""

Keys = dict[str, "Key"]
Stamp = tuple[int, int, int]


class Key(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One key, without its secret. None means: no limit of that kind.

    Times are seconds since 1970. `tail` is the key's last characters, to tell keys apart;
    `spend` is tokens a day, by UTC.
    """

    id: str
    digest: str
    created: int
    tail: str = ""
    name: str = ""
    models: tuple[str, ...] | None = None
    strategies: tuple[str, ...] | None = None
    rpm: int | None = None
    tpm: int | None = None
    spend: int | None = None
    expires: int | None = None
    revoked: int | None = None
    admin: bool = False

    def state(self, now: float) -> str:
        """Whether it opens the door: `valid`, `expired` or `revoked`."""
        if self.revoked is not None:
            return "revoked"
        return "expired" if self.expires is not None and now >= self.expires else "valid"

    def told(self) -> dict[str, Any]:
        """What may be shown of it: all but the digest."""
        shown: dict[str, Any] = msgspec.to_builtins(self)
        return {name: value for name, value in shown.items() if name != "digest"} | {
            "state": self.state(time.time())
        }


_NOBODY: Final = Key(id="", digest="0" * 64, created=0, revoked=0)
"""What an unknown id is compared with, so that it takes as long as a known one."""


def made(**scopes: Any) -> tuple[str, Key]:
    """A new key, whole and as it is kept. The whole one is shown once and never again.

    Raises InvalidRequest for a name that can't be printed.
    """
    called = scopes.get("name")
    if called is not None and not called.isprintable():
        raise InvalidRequest(f"a key can't be called {called!r}: give a name that can be printed")
    name, secret = secrets.token_hex(_ID_BYTES), secrets.token_urlsafe(_SECRET_BYTES)
    whole = f"{PREFIX}-{name}-{secret}"
    kept = Key(id=name, digest=_digest(secret), created=int(time.time()), tail=whole[-4:], **scopes)
    return whole, kept


def matching(keys: Mapping[str, Key], given: str, now: float) -> Key | None:
    """The key that was given, if it is one of these and still holds."""
    prefix, _, rest = given.partition("-")
    name, _, secret = rest.partition("-")
    key = keys.get(name, _NOBODY)
    is_right = hmac.compare_digest(_digest(secret), key.digest)
    return key if is_right and prefix == PREFIX and key.state(now) == "valid" else None


def stamp(path: Path) -> Stamp | None:
    """What tells one state of the file from another; None where it isn't there."""
    try:
        now = path.stat()
    except OSError:
        return None
    return now.st_mtime_ns, now.st_ino, now.st_size


def read(path: Path) -> Keys:
    """All keys of a file. Raises SettingsError, naming the file and the line."""
    try:
        with path.open("rb") as file:
            _check_private(path, os.fstat(file.fileno()))
            lines = file.read().splitlines()
    except FileNotFoundError:
        raise SettingsError(
            f"keys: {path} doesn't exist; make a first key with "
            f"`honestproxy keys create --keys {path}`",
            param="keys",
        ) from None
    except OSError as error:
        raise SettingsError(f"keys: {path} can't be read: {error.strerror}", param="keys") from None
    keys: Keys = {}
    for number, line in enumerate(lines, 1):
        if line.strip():
            key = _read_line(path, number, line)
            keys[key.id] = key
    return keys


def create(path: Path, **scopes: Any) -> tuple[str, Key]:
    """Make a key and enter it into the file, which is made where there is none."""
    whole, kept = made(**scopes)
    _change(path, lambda keys: {**keys, kept.id: kept}, is_new=not path.exists())
    return whole, kept


def revoke(path: Path, name: str) -> Key:
    """Have a key open nothing any more. Raises InvalidRequest where there is none of that id."""
    found: list[Key] = []

    def revoked(keys: Keys) -> Keys:
        if name not in keys:
            known = ", ".join(keys) or "none"
            raise InvalidRequest(f"{path} holds no key with the id {name!r}; it holds {known}")
        key = keys[name]
        if key.revoked is None:
            key = msgspec.structs.replace(key, revoked=int(time.time()))
        found.append(key)
        return {**keys, name: key}

    _change(path, revoked)
    return found[0]


def _change(path: Path, how: Callable[[Keys], Keys], *, is_new: bool = False) -> None:
    """Put another state of the file in its place at once; a reader sees the one or the other."""
    if is_new:
        path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(f"{path}.lock", timeout=_LOCKED_WITHIN, mode=0o600):
            keys = {} if is_new and not path.exists() else read(path)
            _write(path, how(keys).values())
            owner = path.stat()
            if os.name != "nt" and owner.st_uid != os.geteuid():  # the lock is theirs, too
                os.chown(f"{path}.lock", owner.st_uid, owner.st_gid)
    except Timeout:
        raise SettingsError(f"keys: {path} is being changed by another command") from None


def _write(path: Path, keys: Iterable[Key]) -> None:
    target = path.resolve()  # a link stays one
    fresh = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    body = b"".join(msgspec.json.encode(key) + b"\n" for key in keys)
    try:
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            _hand_over(file.fileno(), target)
            file.write(body)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(target)
    finally:
        fresh.unlink(missing_ok=True)


def _hand_over(fresh: int, target: Path) -> None:
    """Let a new file be read by whoever reads the one it replaces. Raises SettingsError.

    Who runs the command may be root, and the proxy a user who could then read its keys no more:
    one that was revoked would stay open.
    """
    if os.name == "nt" or not target.exists():
        return
    now = target.stat()
    by_group = now.st_mode & stat.S_IRGRP
    if now.st_uid == os.geteuid() and not by_group:
        return
    try:
        os.fchown(fresh, now.st_uid, now.st_gid)
        os.fchmod(fresh, 0o600 | by_group)
    except OSError as error:
        raise SettingsError(
            f"keys: {target} is another user's, and what replaces it can't be made theirs "
            f"({error.strerror}): nothing is changed; run this command as the file's owner",
            param="keys",
        ) from None


def _check_private(path: Path, status: os.stat_result) -> None:
    if is_open(status):
        raise SettingsError(
            f"keys: {path} is open to other users of this machine; run `chmod 600 {path}`",
            param="keys",
        )


def _read_line(path: Path, number: int, line: bytes) -> Key:
    try:
        return msgspec.json.decode(line, type=Key)
    except msgspec.DecodeError as error:
        why = str(error)
    except UnicodeDecodeError:  # which msgspec doesn't count among its own
        why = "this is not UTF-8 text"
    raise SettingsError(f"keys: {path}, line {number}: {why}", param="keys")


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()
