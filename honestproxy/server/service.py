"""What answers requests under one set of settings; a reload puts another in its place."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING

from honestproxy.backends.upstreams import Upstreams
from honestproxy.errors import HonestProxyError
from honestproxy.router import routed
from honestproxy.server.access.caller import Access
from honestproxy.server.access.door import Door, door
from honestproxy.server.access.guard import Guard
from honestproxy.server.access.limits import today
from honestproxy.server.account import Lasting, Observer
from honestproxy.server.admission import Admission
from honestproxy.server.cache.answers import AnswerCache, answer_cache
from honestproxy.server.catalog import Catalog
from honestproxy.server.experiment import Experiment
from honestproxy.server.seeing.logs import access_log
from honestproxy.server.seeing.metrics import Metrics
from honestproxy.server.seeing.telemetry import Telemetry
from honestproxy.server.traces.recording import LastTraces
from honestproxy.server.traces.redaction import Redaction
from honestproxy.settings import Settings
from honestproxy.types import Backend

if TYPE_CHECKING:
    from honestproxy.server.traces.store import TraceStore

log = logging.getLogger(__name__)


class Service:
    """The parts that a request passes, made for one set of settings.

    What outlives these settings (traces, places, what observers have counted) is taken over from
    the service `before`. Raises SettingsError, PromptError or BackendError where the settings
    can't work; the service before is then as it was.
    """

    def __init__(
        self,
        settings: Settings,
        backend: Backend | Upstreams | None = None,
        before: Service | None = None,
    ) -> None:
        self.settings = settings
        kept: Upstreams | None = before.upstreams if before else None
        opened = backend if isinstance(backend, Upstreams) else Upstreams(settings, backend, kept)
        self.upstreams: Upstreams = opened
        self.pipeline = routed(opened, settings)
        self.catalog = Catalog(self.pipeline, settings)
        self.guard = Guard(settings.host, settings.allowed_hosts)
        self.access: Access = door(settings.keys, before.access if before else None)
        self.experiment = Experiment(settings, opened)
        if before and before.experiment.is_like(self.experiment):
            self.experiment = before.experiment
        self.admission: Admission = before.admission if before else Admission(settings)
        self.traces: LastTraces = before.traces if before else LastTraces()
        self.redaction = Redaction(settings.redact)
        self.store: TraceStore | None = _trace_store(settings, before.store if before else None)
        self.keeps_texts = self.store is not None and settings.traces == "texts"
        counted = (before and before.metrics) or Metrics()
        self.metrics: Metrics | None = counted if settings.metrics else None
        known = (before.answers, before.settings) if before else (None, None)
        self.answers: AnswerCache | None = answer_cache(settings, self.pipeline.prompts, *known)
        spans_before = before.telemetry if before else None
        self.telemetry: Telemetry | None = Telemetry.of(settings, spans_before)
        self.observers: tuple[Observer, ...] = tuple(self._observing())
        self.lasting: tuple[Lasting, ...] = tuple(self._lasting())
        self._requests = 0
        self._retired: asyncio.Event | None = None

    def _observing(self) -> Iterator[Observer]:
        """Who is told of each request's end."""
        if self.experiment.shares:
            yield self.experiment
        if self.metrics is not None:
            yield self.metrics
        if self.store is not None:
            yield self.store.notes(self.settings, self.redaction)
        if isinstance(self.access, Door):
            yield self.access.meters
        if (requests := access_log(self.settings)) is not None:
            yield requests
        if self.telemetry is not None:
            yield self.telemetry

    def _lasting(self) -> Iterator[Lasting]:
        """What begins with the server and ends with it, in this order."""
        if self.store is not None:
            yield self.store
        if isinstance(self.access, Door):
            yield self.access
        if self.answers is not None:
            yield self.answers.store
        if self.telemetry is not None:
            yield self.telemetry.sender

    def __enter__(self) -> None:
        """One more request is answered here."""
        self._requests += 1

    def __exit__(self, *_: object) -> None:
        """And has been answered."""
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
        await self._recall()
        await self.pipeline.load()

    async def aclose(self, other: Service | None = None) -> None:
        """Let go of connections, and of what lasts unless `other` goes on with it."""
        await self.pipeline.settled()
        await self.upstreams.aclose(other.upstreams if other else None)
        for part in self.lasting:
            if other is None or part not in other.lasting:
                await part.aclose()

    async def _recall(self) -> None:
        """Tell the door what its keys have spent today, before this process began."""
        if self.store is None or not isinstance(self.access, Door):
            return
        try:
            self.access.meters.seed(await self.store.spent(today()))
        except HonestProxyError as error:
            log.warning("what keys have spent today isn't known: %s", error.message)


def _trace_store(settings: Settings, before: TraceStore | None) -> TraceStore | None:
    """The store that the settings name. Raises SettingsError for a URL that names none."""
    if settings.trace_store is None or settings.traces == "off":
        return None
    from honestproxy.server.traces.store import opened  # brings SQLAlchemy with it

    return opened(settings.trace_store, settings.trace_days, before)
