"""The reader of one local model: loaded from the cache or fitted, once, and then asked."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from honestproxy.backends.local import chat, features, reader
from honestproxy.backends.local import exemplars as labelled
from honestproxy.backends.local import own as users
from honestproxy.backends.local.embedded import Progress
from honestproxy.backends.local.engine import Job, Piece
from honestproxy.backends.local.exemplars import Exemplar
from honestproxy.backends.local.features import LONGEST, Layers, Shared, Tail
from honestproxy.backends.local.reader import Reader
from honestproxy.doubts import Scores
from honestproxy.errors import BackendError, HonestProxyError, InvalidRequest, PromptError
from honestproxy.types import ChatRequest

if TYPE_CHECKING:
    from honestproxy.backends.local.engine import Engine
    from honestproxy.backends.local.weights import Loaded

_log = logging.getLogger(__name__)
_EVERY: Final = 10
"""Batches between two lines of progress."""
KEPT: Final = 6
"""Fitted readers that stay in the cache, for every model and all of its exemplars so far."""


@dataclass(frozen=True, slots=True)
class Ready:
    """A fitted reader, the layers it may read, and the exemplars from which it learnt."""

    reader: Reader
    layers: Layers
    exemplars: Sequence[Exemplar]

    @property
    def numbers(self) -> list[int]:
        """The layers that are read, counted from 1."""
        return [self.layers.numbers[position] for position in self.reader.layers]


class Sense:
    """Reads doubt from inside a local model.

    `cache` is where fitted readers are kept, `folder` where the user's own exemplars are.
    """

    def __init__(
        self,
        engine: Engine,
        loaded: Loaded,
        name: str,
        cache: Path | None,
        folder: Path | None = None,
    ) -> None:
        self._engine = engine
        self._loaded = loaded
        self._name = name
        self._cache = cache
        self._folder = folder
        self._lock = threading.Lock()
        self._preparing: Future[Ready] | None = None

    async def read(self, ids: list[int]) -> Scores:
        """Scores of a conversation, given as the tokens that the model is to continue."""
        ready = await self.ready(_log.info)
        return ready.reader.read(await self._features(ids, ready))

    async def explain(
        self, request: ChatRequest, number: int
    ) -> tuple[Scores, list[tuple[Exemplar, float]]]:
        """Scores of a conversation, and the exemplars most like it, each with its cosine.

        Raises InvalidRequest where it can't be read.
        """
        ids = chat.prompt(self._loaded.tokenizer, request, self._loaded.context)
        ready = await self.ready(_log.info)
        features = await self._features(ids, ready)
        nearest = ready.reader.nearest(features, number)
        return ready.reader.read(features), [(ready.exemplars[i], c) for i, c in nearest]

    async def _features(self, ids: list[int], ready: Ready) -> Any:
        prefix = ready.reader.prefix
        begun = len(prefix) if _starts(ids, prefix) else 0
        with _translated():
            return await self._tail(
                ids, [ready.layers.modules[n - 1] for n in ready.numbers], begun
            )

    async def _tail(self, ids: Sequence[int], layers: Sequence[Any], begun: int) -> Any:
        """Layers' states at the end; what is read for them, the answer needn't read again."""
        asked: Future[Any] = Future()
        asked.set_running_or_notify_cancel()  # whoever gives up, the engine can still tell

        def tell(news: Piece | BackendError) -> None:
            if isinstance(news, BackendError):
                asked.set_exception(news)

        job = Job(ids, [], tell, Tail(layers, len(ids), begun, asked.set_result))
        self._engine.submit(job)
        try:
            return await asyncio.wrap_future(asked)
        finally:
            job.cancelled = True

    async def ready(self, progress: Progress, own: Sequence[Exemplar] | None = None) -> Ready:
        """The reader; the first call loads or fits it, in a thread of its own.

        `own` stands for the user's exemplars, where not for those in their folder; then what
        can't be kept is an error.
        """
        with self._lock:
            if self._preparing is None or own is not None or _failed(self._preparing):
                thread = ThreadPoolExecutor(1, "honestproxy-reader")
                self._preparing = thread.submit(self._prepared, progress, own)
                thread.shutdown(wait=False)  # once this is done
            preparing = self._preparing
        # Shielded: a request that is given up must not undo the fit for the next.
        return await asyncio.shield(asyncio.wrap_future(preparing))

    def _prepared(self, progress: Progress, own: Sequence[Exemplar] | None) -> Ready:
        layers = Layers.of(self._loaded.model)
        theirs = users.load(self._folder) if own is None else own
        exemplars = labelled.together(labelled.load(), theirs)
        digest = reader.digest(self._fingerprint(layers), exemplars)
        width = 2 * self._loaded.model.config.get_text_config().hidden_size
        path = self._cache / "readers" / f"{digest}.npz" if self._cache else None
        fitted = _kept(path, digest, width) if path else None
        if fitted is None:
            fitted = self._fit(exemplars, layers, digest, progress)
            if path:
                _keep(fitted, path, must=own is not None)
        return Ready(fitted, layers, exemplars)

    def _fit(
        self, exemplars: Sequence[Exemplar], layers: Layers, digest: str, progress: Progress
    ) -> Reader:
        import numpy as np

        started = time.perf_counter()
        said = f"learning where {self._name} is in doubt (once)"
        reader.check(exemplars)
        from threadpoolctl import threadpool_limits  # scikit-learn brings it

        prompts = self._tokenised(exemplars)
        alone = [p for p, e in zip(prompts, exemplars, strict=True) if len(e.messages) == 1]
        prefix = features.common(alone or prompts)
        shared = self._shared(prefix, layers)
        rows: dict[int, Any] = {}
        for number, (batch, begun) in enumerate(_batches(prompts, prefix)):
            if number % _EVERY == 0:
                progress(f"{said}: {len(rows)} of {len(prompts)} exemplars")
            chosen, begin = [prompts[i] for i in batch], shared if begun else None
            rows |= zip(batch, self._vectors(chosen, begin, layers), strict=True)
        vectors = np.stack([rows[i] for i in range(len(prompts))])
        with threadpool_limits(1, "blas"):  # several wait for one another longer than they work
            fitted = reader.fit(vectors, exemplars, digest, prefix)
        figures = ", ".join(f"{name} {value:.3f}" for name, value in fitted.figures.items())
        progress(f"{said}: {time.perf_counter() - started:.0f} s, {figures}")
        return fitted

    def _shared(self, prefix: Sequence[int], layers: Layers) -> Shared | None:
        with _translated():
            return self._engine.call(lambda model: features.prefix(model, prefix, layers)).result()

    def _vectors(self, prompts: Any, shared: Shared | None, layers: Layers) -> Any:
        work = partial(features.vectors, prompts=prompts, shared=shared, layers=layers)
        with _translated():
            return self._engine.call(work).result()

    def _tokenised(self, exemplars: Sequence[Exemplar]) -> list[list[int]]:
        return [self._prompt(exemplar)[-LONGEST:] for exemplar in exemplars]

    def _prompt(self, exemplar: Exemplar) -> list[int]:
        request = ChatRequest({"messages": list(exemplar.messages)})
        try:
            return chat.prompt(self._loaded.tokenizer, request, self._loaded.context)
        except InvalidRequest as error:  # nobody's request, but ours
            raise PromptError(f"{exemplar.where}: {error.message}") from None

    def _fingerprint(self, layers: Layers) -> dict[str, Any]:
        """What of the model the features depend on."""
        model = self._loaded.model
        weights = model.get_input_embeddings().weight[:64].detach().float().cpu().numpy()
        return {
            "name": self._name,
            "config": model.config.to_dict(),
            "dtype": str(model.dtype),
            "weights": hashlib.sha256(weights.tobytes()).hexdigest(),
            "template": str(self._loaded.tokenizer.chat_template),
            "layers": layers.numbers,
            "read": [LONGEST, features.TAIL],
        }


def _starts(ids: Sequence[int], prefix: Sequence[int]) -> bool:
    return len(ids) > len(prefix) and tuple(ids[: len(prefix)]) == tuple(prefix)


def _batches(
    prompts: Sequence[Sequence[int]], prefix: Sequence[int]
) -> Iterator[tuple[list[int], bool]]:
    """Positions of prompts of like length, and whether they all have the shared beginning."""
    begins = [bool(prefix) and _starts(ids, prefix) for ids in prompts]
    for begun in (True, False):
        some = [i for i, begin in enumerate(begins) if begin is begun]
        some.sort(key=lambda i: len(prompts[i]))
        for at in range(0, len(some), features.BATCH):
            yield some[at : at + features.BATCH], begun


def _kept(path: Path, digest: str, width: int) -> Reader | None:
    """The reader that is kept there; it is now the one that was used last."""
    found = reader.load(path, digest, width)
    if found:
        with contextlib.suppress(OSError):
            path.touch()
    return found


def _keep(fitted: Reader, path: Path, *, must: bool) -> None:
    try:
        reader.save(fitted, path)
    except OSError as error:
        said = f"the reader can't be kept in {path.parent}: {error.strerror}"
        if must:
            raise BackendError(f"{said}; free some space there, or choose --cache") from None
        _log.warning("%s", said)
    _prune(path.parent)


def _prune(folder: Path) -> None:
    """Take away the readers that were used longest ago."""
    with contextlib.suppress(OSError):  # another process may prune, too
        by_use = sorted(folder.glob("*.npz"), key=lambda path: path.stat().st_mtime)
        for stale in by_use[:-KEPT]:
            stale.unlink()


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """Whatever torch raises ends this reading only."""
    try:
        yield
    except HonestProxyError:
        raise
    except Exception as error:
        said = f"{type(error).__name__}: {error}"[:300]
        raise BackendError(f"the local model's states can't be read ({said})") from error


def _failed(preparing: Future[Any]) -> bool:
    return preparing.done() and (preparing.cancelled() or preparing.exception() is not None)
