"""What answers requests under one set of settings; a reload puts another in its place."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from honestproxy import backends
from honestproxy.pipeline import Pipeline
from honestproxy.server.account import Lasting, Observer
from honestproxy.server.admission import Admission
from honestproxy.server.cache import AnswerCache, answer_cache
from honestproxy.server.caller import Access
from honestproxy.server.catalog import Catalog
from honestproxy.server.door import Door, door
from honestproxy.server.experiment import Experiment
from honestproxy.server.guard import Guard
from honestproxy.server.metrics import Metrics
from honestproxy.server.traces import LastTraces
from honestproxy.settings import Settings
from honestproxy.types import Backend


class Service:
    """The parts that a request passes, made for one set of settings.

    What outlives these settings (traces, places, what observers have counted) is taken over from
    the service `before`. Raises SettingsError, PromptError or BackendError where the settings
    can't work; the service before is then as it was.
    """

    def __init__(
        self, settings: Settings, backend: Backend | None = None, before: Service | None = None
    ) -> None:
        self.settings = settings
        self.pipeline = Pipeline(backend or backends.load(settings), settings)
        self.catalog = Catalog(self.pipeline, settings)
        self.guard = Guard(settings.host, settings.allowed_hosts)
        self.access: Access = door(settings.keys, before.access if before else None)
        self.experiment = Experiment(settings)
        if before and before.experiment.is_like(self.experiment):
            self.experiment = before.experiment
        self.admission = Admission(settings)
        self.traces: LastTraces = before.traces if before else LastTraces()
        counted = (before and before.metrics) or Metrics()
        self.metrics: Metrics | None = counted if settings.metrics else None
        self.observers: tuple[Observer, ...] = (self.experiment,)
        if self.metrics is not None:
            self.observers += (self.metrics,)
        self.lasting: tuple[Lasting, ...] = ()
        if isinstance(self.access, Door):
            self.observers += (self.access.meters,)
            self.lasting += (self.access,)
        known = (before.answers, before.settings) if before else (None, None)
        self.answers: AnswerCache | None = answer_cache(settings, self.pipeline.prompts, *known)
        if self.answers is not None:
            self.lasting += (self.answers.store,)
        self._requests = 0
        self._retired: asyncio.Event | None = None

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """While one request is answered here."""
        self._requests += 1
        try:
            yield
        finally:
            self._requests -= 1
            if self._retired and not self._requests:
                self._retired.set()

    async def retire(self, successor: Service) -> None:
        """Close once the last request here is answered."""
        await self.idle()
        await self.aclose(successor)

    async def idle(self) -> None:
        """Return once no request is under way here."""
        self._retired = asyncio.Event()
        if self._requests:
            await self._retired.wait()

    async def start(self) -> None:
        """Load what takes its time, and begin what lasts; what is there already stays."""
        for part in self.lasting:
            await part.start()
        warm_up = getattr(self.pipeline.backend, "load", None)
        if warm_up is not None:
            await warm_up()

    async def aclose(self, other: Service | None = None) -> None:
        """Let go of connections, and of what lasts unless `other` goes on with it."""
        await self.pipeline.aclose()
        for part in self.lasting:
            if other is None or part not in other.lasting:
                await part.aclose()
