"""GGUF files made into folders that transformers loads fast: converted once, then kept."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from honestproxy.backends.local import runtime
from honestproxy.errors import BackendError, ModelUnavailable

FORMAT: Final = 1
"""Part of each folder's name: raise it when converting changes, and old folders don't count."""


def find_converted(cache: Path, key: str) -> Path | None:
    """The folder of converted weights for `key`, where it is there."""
    folder = _folder(cache, key)
    return folder if (folder / "config.json").is_file() else None


def converted(gguf: Path, cache: Path, key: str, progress: Callable[[str], None]) -> Path:
    """The folder of converted weights for a GGUF file, made where it isn't there yet.

    Raises ModelUnavailable where the file can't be read.
    """
    folder = _folder(cache, key)
    if found := find_converted(cache, key):
        return found
    with locked(folder.with_suffix(".lock"), progress):
        if found := find_converted(cache, key):  # another process was faster
            return found
        runtime.prepare()
        progress(f"converting {gguf.name}: 10 to 20 seconds, once")
        for stale in folder.parent.glob(f"{folder.name}-part-*"):
            shutil.rmtree(stale, ignore_errors=True)
        part = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f"{folder.name}-part-"))
        try:
            with runtime.quiet():
                _convert(gguf, part)
            shutil.rmtree(folder, ignore_errors=True)  # one that lost its config
            return part.replace(folder)
        finally:
            shutil.rmtree(part, ignore_errors=True)


@contextlib.contextmanager
def writing(cache: Path) -> Iterator[None]:
    """Say what to do where the cache folder can't be written."""
    try:
        yield
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise ModelUnavailable(
            f"the cache folder {cache} can't be used: {why}; "
            "choose another with --cache or HONESTPROXY_CACHE"
        ) from None


def key_of(gguf: Path) -> str:
    """A key for a user's own file that changes when the file does."""
    stat = gguf.stat()
    named = f"{gguf.resolve()}|{stat.st_size}|{stat.st_mtime_ns}"
    return hashlib.sha256(named.encode()).hexdigest()


@contextlib.contextmanager
def locked(path: Path, progress: Callable[[str], None]) -> Iterator[None]:
    """Hold a lock between processes; a dead holder's falls away by itself."""
    try:
        from filelock import FileLock, Timeout
    except ImportError:
        raise BackendError(runtime.INSTALL) from None
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    while True:
        try:
            lock.acquire(timeout=1)
            break
        except Timeout:
            progress("waiting for another process that prepares the same model")
    try:
        yield
    finally:
        lock.release()


def _folder(cache: Path, key: str) -> Path:
    return cache / "converted" / f"v{FORMAT}-{key[:16]}"


def _convert(gguf: Path, folder: Path) -> None:
    """Unpack the weights to bfloat16 and save them with tokenizer and chat template."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    where: dict[str, object] = {"gguf_file": gguf.name, "local_files_only": True}
    home = str(gguf.parent)
    try:
        tokenizer = AutoTokenizer.from_pretrained(home, **where)
        _obey_the_switch()
        # Left packed, which is the default, they could not be saved and would decode slowly.
        plain = GgufConfig(dequantize=True)
        model = AutoModelForCausalLM.from_pretrained(
            home, **where, dtype=torch.bfloat16, quantization_config=plain
        )
    except Exception as error:  # noqa: BLE001 -- a broken file fails in a hundred ways
        raise unreadable(gguf, error) from None
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _obey_the_switch() -> None:
    """Let the bar that shows while unpacking obey transformers' own switch, as the others do."""
    with contextlib.suppress(ImportError, AttributeError):
        from transformers import modeling_gguf_pytorch_utils
        from transformers.utils import logging

        modeling_gguf_pytorch_utils.tqdm = logging.tqdm


def unreadable(path: Path, error: Exception) -> ModelUnavailable:
    """What to say of files that transformers can't load."""
    if isinstance(error, ImportError):
        return ModelUnavailable(f"{path} can't be loaded: {error}; {runtime.INSTALL}")
    said = " ".join(str(error).split())[:300]
    return ModelUnavailable(
        f"{path} can't be loaded: is it cut off, or of a kind that transformers doesn't know? "
        f"({type(error).__name__}: {said})"
    )
