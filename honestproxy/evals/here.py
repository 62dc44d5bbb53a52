"""A run's upstreams and judges, opened in this process."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any, Protocol, Self

from honestproxy import backends
from honestproxy.compatible import Compatible
from honestproxy.evals.answers import Answers, Entrants
from honestproxy.evals.arms import Arm
from honestproxy.evals.asking import Common, Entrant, Says
from honestproxy.evals.judges import Judge
from honestproxy.evals.judging import Judging
from honestproxy.evals.patience import Patience
from honestproxy.evals.runs import Judging as AnyJudging
from honestproxy.settings import Settings
from honestproxy.strategies import READING
from honestproxy.types import Backend

Load = Callable[[Settings], Awaitable[Backend]]
"""Opens the upstream of some settings, ready to answer."""


@dataclass(frozen=True, slots=True)
class Asking:
    """How everyone is asked: under which settings, how often again, with which fields beside."""

    settings: Settings
    patience: Patience = field(default_factory=Patience)
    fields: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Bench:
    """Who judges: these judges, played by a model of an upstream, at most so many at a time."""

    judges: Sequence[Judge]
    upstream: str
    model: str | None = None
    concurrency: int = 8


class Place(Protocol):
    """Where a run's questions are asked."""

    @property
    def concurrency(self) -> int:
        """How many are asked at once."""
        ...

    async def known(self, arms: Sequence[Arm]) -> list[Arm]:
        """The arms, their models known: where none is named, the first that is listed."""
        ...

    async def answers(self, arms: Sequence[Arm]) -> Answers:
        """What makes the answers of arms whose models are known. Raises EvaluationError."""
        ...

    async def judging(self, bench: Bench) -> AnyJudging:
        """What judges them."""
        ...


class Here:
    """In this process: each upstream is opened once, and closed at the end."""

    def __init__(self, asking: Asking, load: Load, concurrency: int = 8) -> None:
        self.concurrency = concurrency
        self._asking = asking
        self._load = load
        self._open = AsyncExitStack()
        self._backends: dict[str, tuple[Settings, Backend]] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close what was opened."""
        await self._open.aclose()

    async def known(self, arms: Sequence[Arm]) -> list[Arm]:
        """The arms, their models known; their upstreams are then open."""
        found = []
        for arm in arms:
            if arm.upstream:
                _, backend = await self._of(arm.upstream, arms)
                model = arm.model or await Compatible(backend).first_model()
                arm = replace(arm, model=model)
            found.append(arm)
        return found

    async def answers(self, arms: Sequence[Arm]) -> Entrants:
        """What makes the answers of arms whose models are known. Raises EvaluationError."""
        found: dict[str, Entrant] = {a.name: Says(a.name, a.text) for a in arms if a.text}
        for upstream in dict.fromkeys(arm.upstream for arm in arms if arm.upstream):
            settings, backend = await self._of(upstream, arms)
            common = Common(upstream, backend, settings, self._asking.patience)
            own = [arm for arm in arms if arm.upstream == upstream]
            found |= {one.name: one for one in common.entrants(own, self._asking.fields)}
        return Entrants([found[arm.name] for arm in arms])

    async def judging(self, bench: Bench) -> Judging:
        """What judges the answers; its upstream is its own, even where an arm asks it, too."""
        settings = settings_of(self._asking.settings, bench.upstream)
        backend = await self._opened(settings)
        return Judging(
            bench.judges,
            backend,
            bench.model or await Compatible(backend).first_model(),
            upstream=bench.upstream,
            concurrency=bench.concurrency,
            patience=self._asking.patience,
            timeout=settings.step_timeout,
        )

    async def _of(self, upstream: str, arms: Sequence[Arm]) -> tuple[Settings, Backend]:
        if upstream not in self._backends:
            own = [arm.strategy for arm in arms if arm.upstream == upstream]
            settings = settings_of(self._asking.settings, upstream, own)
            self._backends[upstream] = settings, await self._opened(settings)
        return self._backends[upstream]

    async def _opened(self, settings: Settings) -> Backend:
        backend = await self._load(settings)
        self._open.push_async_callback(Compatible(backend).aclose)
        return backend


async def ready(settings: Settings, progress: Callable[[str], object] | None = None) -> Backend:
    """The one upstream that settings name, ready to answer; a local model loads first.

    No other one stands in for it, and nobody but the run asks it again: answers are an arm's own.
    """
    backend = backends.opened(settings)
    told = () if progress is None else (progress,)
    try:
        if hasattr(backend, "load"):
            await backend.load(*told)
            strategy = settings.strategy or backends.traits(backend).default_strategy
            if strategy in READING and hasattr(backend, "load_reader"):
                await backend.load_reader(*told)  # the first fit takes a while
    except BaseException:
        await Compatible(backend).aclose()
        raise
    return backend


def settings_of(settings: Settings, upstream: str, strategies: Sequence[str] = ()) -> Settings:
    """The settings for one upstream. The key goes to nobody but those that it is for."""
    is_there = _keyed(upstream) == _keyed(settings.upstream)
    changes = {
        "upstream": upstream,
        "upstream_key": settings.upstream_key if is_there else None,
        "model": None,
        "strategy": next((name for name in strategies if name in READING), "raw"),
        "strategies_allowed": None,
    }
    return settings.model_copy(update=changes)


def _keyed(upstream: str) -> str:
    """Who gets an upstream's key: a URL's host, a provider of litellm's, or this one spec."""
    prefix, _, rest = upstream.partition(":")
    if prefix in ("http", "https"):
        return "/".join(upstream.split("/", 3)[:3])
    if prefix == "litellm" and "://" not in rest:  # some providers are asked at a model's URL
        return f"{prefix}:{rest.partition('/')[0]}"
    return upstream
