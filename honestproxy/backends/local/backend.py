"""The `local` backend: requests in, answers out, a model in a thread in between."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
import uuid
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Self, TypeVar

from honestproxy.backends import Traits
from honestproxy.backends.local import chat, choices, weights
from honestproxy.backends.local.embedded import Progress
from honestproxy.backends.local.engine import CLOSED, MAX_ROWS, Engine, Job, Piece, Writer
from honestproxy.backends.local.logprobs import Entry, Ledger, Spelling, Weighing
from honestproxy.backends.local.quote import Lead, Part
from honestproxy.backends.local.request import sampling
from honestproxy.backends.local.sampling import Sampling
from honestproxy.backends.local.sense import Sense
from honestproxy.backends.local.weights import Loaded
from honestproxy.doubts import Scores
from honestproxy.errors import BackendError, InvalidRequest, UnknownModel
from honestproxy.settings import Settings
from honestproxy.types import ChatRequest, ChatResponse, Chunk, Usage

T = TypeVar("T")
_log = logging.getLogger(__name__)


class Local:
    """A chat model on this machine: `smollm2-135m-instruct`, a folder, a GGUF file, a hub id.

    What a request leaves open comes from the model's own generation config; the embedded
    model decodes greedily, with a repetition penalty of 1.1 on what it has written (so that
    it doesn't loop) and at most 1024 tokens. A `seed` gives the same text again in float32;
    in bfloat16 it can drift with what shares the batch and what was read before. `logprobs`
    are the model's own: before penalties, biases and temperature.

    The model is loaded once, by `load` or by the first request. `dtype` ("float32") overrides
    the choice by what the machine is good at. Raises ModelUnavailable where the spec names
    nothing.
    """

    traits = Traits(default_strategy="introspect", confusion_tokens=512)

    def __init__(self, spec: str, settings: Settings, *, dtype: str | None = None) -> None:
        found = weights.parse(spec)
        cache = settings.cache
        if found.kind == "embedded":
            self.traits = replace(self.traits, rambles=True)
        loader = partial(weights.load, found, cache, dtype=dtype)
        self._begin(found.name, loader, cache, settings.exemplars)

    @classmethod
    def of(cls, model: Any, tokenizer: Any, name: str = "local") -> Self:
        """The backend of a model and tokenizer that transformers has loaded already."""
        self = cls.__new__(cls)
        self._begin(name, lambda told: weights.ready(model, tokenizer, name))
        return self

    def _begin(
        self,
        name: str,
        loader: Callable[[Progress], Loaded],
        cache: Path | None = None,
        exemplars: Path | None = None,
    ) -> None:
        self.name = name
        self._loader = loader
        self._cache = cache
        self._exemplars = exemplars
        # One thread for what takes long but isn't decoding: loading, templates, tokenising.
        self._desk = ThreadPoolExecutor(1, "honestproxy-local")
        self._lock = threading.Lock()
        self._loading: Future[_Ready] | None = None
        self._closed = threading.Event()
        self._created = int(time.time())

    async def load(self, progress: Progress | None = None) -> None:
        """Be ready to answer: fetch, convert and load what isn't yet. `progress` gets lines."""
        await self._ready(progress or _log.info)

    async def complete(self, request: ChatRequest) -> ChatResponse:
        """The whole answer. Cancelling it stops the model before its next token."""
        async with self._answering(request) as answer:
            texts = [""] * answer.n
            ends: list[str | None] = [None] * answer.n
            told: list[list[Entry]] = [[] for _ in texts]
            async for piece in answer.pieces():
                texts[piece.choice] += piece.text
                ends[piece.choice] = piece.finish_reason
                told[piece.choice] += piece.logprobs or ()
            logprobs = told if answer.weighed else [None] * answer.n
            choices = [_choice(i, texts[i], ends[i], logprobs[i]) for i in range(answer.n)]
            head = answer.head("chat.completion")
            return ChatResponse({**head, "choices": choices, "usage": answer.usage})

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Chunk, None]:
        """The answer as it is made, token by token. Closing it stops the model."""
        async with self._answering(request) as answer:
            head = answer.head("chat.completion.chunk")
            yield Chunk({**head, "choices": []})
            for choice in range(answer.n):
                yield _delta(head, choice, {"role": "assistant", "content": ""})
            async for piece in answer.pieces():
                if piece.text or piece.logprobs:
                    told = _listed(piece.logprobs)
                    yield _delta(head, piece.choice, {"content": piece.text}, logprobs=told)
                if piece.finish_reason:
                    yield _delta(head, piece.choice, {}, piece.finish_reason)
            if _wants_usage(request):
                yield Chunk({**head, "choices": [], "usage": answer.usage})

    async def models(self, headers: Mapping[str, str] | None = None) -> list[dict[str, Any]]:
        """The one model that is here. `headers` change nothing."""
        model = {"id": self.name, "object": "model", "created": self._created}
        return [{**model, "owned_by": "local"}]

    async def aclose(self) -> None:
        """End the model's thread and let go of its memory."""
        self._closed.set()
        self._desk.shutdown(wait=False, cancel_futures=True)
        if self._loading and self._loading.done() and not _failed(self._loading):
            await asyncio.to_thread(self._loading.result().engine.close)

    async def read(self, request: ChatRequest) -> Scores:
        """How likely each kind of doubt is, from the model's hidden states.

        The first call fits the reader, where `load_reader` hasn't. Raises InvalidRequest where
        the conversation can't be read, or the model shows no hidden states.
        """
        self._check_model(request.model)
        ready = await self._ready(_log.info)
        loaded = ready.loaded
        prepared = self._at_desk(chat.prompt, loaded.tokenizer, request, loaded.context)
        return await ready.sense.read(await asyncio.wrap_future(prepared))

    async def load_reader(self, progress: Progress | None = None) -> None:
        """Be ready to `read`: load the fitted reader, or fit it. `progress` gets lines."""
        ready = await self._ready(progress or _log.info)
        await ready.sense.ready(progress or _log.info)

    async def sense(self, model: str = "", progress: Progress | None = None) -> Sense:
        """What reads doubt inside the model; this loads the model, and fits nothing yet."""
        self._check_model(model)
        return (await self._ready(progress or _log.info)).sense

    async def choices(self, first: str, texts: Sequence[str]) -> list[float]:
        """How likely each text is after the first one: the sum of its tokens' log-probabilities.

        Plain text, without the chat template. What is read of `first` serves all texts, and the
        next call where that begins the same. Raises InvalidRequest, BackendError.
        """
        ready = await self._ready(_log.info)
        loaded = ready.loaded
        encoded = self._at_desk(choices.encoded, loaded.tokenizer, loaded.context, first, texts)
        asked = await asyncio.wrap_future(encoded)
        work = partial(choices.weighed, choices=asked)
        return await asyncio.wrap_future(ready.engine.look(work))

    async def inside(self, work: Callable[[Any, Any], T]) -> T:
        """Do `work(model, tokenizer)` in the model's thread, between two steps of decoding."""
        ready = await self._ready(_log.info)
        tokenizer = ready.loaded.tokenizer
        return await asyncio.wrap_future(ready.engine.call(lambda model: work(model, tokenizer)))

    @contextlib.asynccontextmanager
    async def _answering(self, request: ChatRequest) -> AsyncIterator[_Answer]:
        """An answer that the engine works on, until the block is left."""
        self._check_model(request.model)
        ready = await self._ready(_log.info)
        loop = asyncio.get_running_loop()
        prepared = self._at_desk(_prepare, ready, request, self.name, loop)
        answer = await asyncio.wrap_future(prepared)
        for job in answer.jobs:
            if job.writers or job.watch:
                ready.engine.submit(job)
        try:
            yield answer
        finally:
            _cancel(answer.jobs)

    def _check_model(self, name: str) -> None:
        if name not in ("", self.name):
            said = f"the model {name!r} does not exist here; there is {self.name!r}"
            raise UnknownModel(said, param="model")

    async def _ready(self, progress: Progress) -> _Ready:
        with self._lock:
            if self._loading is None or _failed(self._loading):
                self._loading = self._at_desk(self._load, progress)
            loading = self._loading
        # Shielded: one request that is cancelled must not cancel loading for the others.
        return await asyncio.shield(asyncio.wrap_future(loading))

    def _at_desk(self, work: Callable[..., T], *args: Any) -> Future[T]:
        if self._closed.is_set():
            raise BackendError(CLOSED)
        return self._desk.submit(work, *args)

    def _load(self, progress: Progress) -> _Ready:
        def told(line: str) -> None:
            if self._closed.is_set():
                raise BackendError(CLOSED)
            progress(line)

        loaded = self._loader(told)
        engine = Engine(loaded.model)
        weakref.finalize(self, engine.close, 30.0)  # at exit, too: no thread is left inside torch
        sense = Sense(engine, loaded, self.name, self._cache, self._exemplars)
        return _Ready(loaded, engine, sense, Spelling(loaded.tokenizer, loaded.decode))


@dataclass(frozen=True, slots=True)
class _Ready:
    loaded: Loaded
    engine: Engine
    sense: Sense
    spelling: Spelling


@dataclass(slots=True)
class _Answer:
    """One request in the engine's hands, and the way its pieces come back.

    `jobs`: more than one where there are more choices than are decoded at the same time.
    """

    jobs: list[Job]
    inbox: asyncio.Queue[Piece | BackendError]
    model: str
    n: int
    weighed: bool
    tokens: int = 0
    opening: int = 0
    begun: int = 0
    id: str = field(default_factory=lambda: f"chatcmpl-{uuid.uuid4().hex}")
    created: int = field(default_factory=lambda: int(time.time()))

    @property
    def prompt(self) -> int:
        """Tokens of the conversation; an opening that the answer gives back counts as answer."""
        return len(self.jobs[0].ids) - self.begun

    @property
    def usage(self) -> Usage:
        written = self.tokens + self.n * self.opening
        prompt = self.prompt
        counts = {"prompt_tokens": prompt, "completion_tokens": written}
        return Usage({**counts, "total_tokens": prompt + written})

    def head(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}

    async def pieces(self) -> AsyncIterator[Piece]:
        """All news until every choice has ended."""
        going = self.n
        while going:
            piece = await self.inbox.get()
            if isinstance(piece, BackendError):
                raise piece
            if piece.finish_reason:
                self.tokens += piece.tokens
                going -= 1
            yield piece


def _prepare(
    ready: _Ready, request: ChatRequest, model: str, loop: asyncio.AbstractEventLoop
) -> _Answer:
    """Check and tokenise a request. Raises InvalidRequest."""
    loaded = ready.loaded
    wanted = sampling(request, loaded.defaults)
    ids, text, tokens, rest = _begin(loaded, request, wanted)
    cap = loaded.context if wanted.max_tokens is None else wanted.max_tokens
    room = min(cap - len(tokens), loaded.context - len(ids))
    ended = None if room > 0 else "length"
    shown = loaded.decode(tokens[:cap]).rstrip("\ufffd") if ended else text
    inbox: asyncio.Queue[Piece | BackendError] = asyncio.Queue()

    def tell(news: Piece | BackendError) -> None:
        try:
            loop.call_soon_threadsafe(inbox.put_nowait, news)
        except RuntimeError:  # the loop is closed: nobody is left to tell
            _cancel(jobs)

    def begin(told: list[Entry] | None = None) -> None:
        for i in range(wanted.n):
            tell(Piece(i, shown, ended, logprobs=told))

    def ledger() -> Ledger | None:
        return None if wanted.logprobs is None else Ledger(ready.spelling, wanted.logprobs)

    def writer(choice: int) -> Writer:
        ways = loaded.decode, loaded.ends, tokens, Lead(rest), ledger()
        return Writer(choice, wanted, room, *ways)

    writers = [] if ended else [writer(i) for i in range(wanted.n)]
    starts = range(0, max(1, len(writers)), MAX_ROWS)
    jobs = [Job(ids, writers[at : at + MAX_ROWS], tell) for at in starts]
    if text and (first := ledger()):
        jobs[0].watch = Weighing(ids, text, shown, first, ready.spelling, begin)
    elif text:
        begin()
    weighed, held = wanted.logprobs is not None, min(len(tokens), cap)
    return _Answer(jobs, inbox, model, wanted.n, weighed, opening=held, begun=len(tokens))


def _cancel(jobs: Sequence[Job]) -> None:
    for job in jobs:
        job.cancelled = True


def _begin(
    loaded: Loaded, request: ChatRequest, wanted: Sampling
) -> tuple[list[int], str, list[int], tuple[Part, ...]]:
    """A prompt's tokens, the answer's text and tokens at its end, and what is to come then."""
    tokenizer, context = loaded.tokenizer, loaded.context
    opening = chat.begun(tokenizer, request)
    if opening is None:
        return chat.prompt(tokenizer, request, context), "", [], ()
    tokens = chat.encode(tokenizer, opening.text)
    if wanted.stop:  # it may stand in the opening, so that is written like the rest
        ids = chat.prompt(tokenizer, request, context, "")
        return ids, "", [], (tuple(tokens), *opening.rest)
    try:
        ids = chat.prompt(tokenizer, request, context, opening.text)
        return ids, opening.text, tokens, opening.rest
    except InvalidRequest:  # unless it lies with the conversation, the opening ends the answer
        ids = chat.prompt(tokenizer, request, context, "")
        tokens = tokens[: context - len(ids)]
        return [*ids, *tokens], loaded.decode(tokens), tokens, ()


def _choice(
    index: int, text: str, finish_reason: str | None, logprobs: list[Entry] | None
) -> dict[str, Any]:
    told = {"message": {"role": "assistant", "content": text}, "logprobs": _listed(logprobs)}
    return {"index": index, **told, "finish_reason": finish_reason}


def _listed(logprobs: list[Entry] | None) -> dict[str, Any] | None:
    return None if logprobs is None else {"content": logprobs, "refusal": None}


def _delta(
    head: Mapping[str, Any],
    index: int,
    delta: Mapping[str, Any],
    end: str | None = None,
    logprobs: dict[str, Any] | None = None,
) -> Chunk:
    choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": end}
    return Chunk({**head, "choices": [choice]})


def _wants_usage(request: ChatRequest) -> bool:
    options = request.get("stream_options")
    return isinstance(options, dict) and options.get("include_usage") is True


def _failed(loading: Future[Any]) -> bool:
    return loading.done() and (loading.cancelled() or loading.exception() is not None)
