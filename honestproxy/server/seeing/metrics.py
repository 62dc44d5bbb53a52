"""Prometheus metrics: what became of all requests, each counted as it ends; `GET /metrics`.

No label holds anything that a client or an upstream wrote, but for HTTP statuses: neither models
nor keys are among them.
"""

from __future__ import annotations

import platform
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final

from fastapi import APIRouter, Request
from prometheus_client import CollectorRegistry, Counter, Histogram, Info
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.process_collector import ProcessCollector
from starlette.responses import Response

from honestproxy import __version__
from honestproxy.errors import HeadTooLarge, InvalidRequest, TooSlow
from honestproxy.server.access.usage import count
from honestproxy.server.account import Account
from honestproxy.server.seeing.gauges import now
from honestproxy.trace import Step
from honestproxy.types import DOUBT_KINDS

if TYPE_CHECKING:
    from honestproxy.server.service import Service

SECONDS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600)
"""Bounds of all times: a relayed answer takes milliseconds, a local model's may take minutes."""

_TOKENS: Final = (("input", "prompt_tokens"), ("output", "completion_tokens"))

router = APIRouter(include_in_schema=False)


class _Children(dict[tuple[str, ...], Any]):
    """A metric's children by their labels, each looked up in the registry only once."""

    def __init__(self, metric: Counter | Histogram) -> None:
        super().__init__()
        self._metric = metric

    def __missing__(self, labels: tuple[str, ...]) -> Any:
        child = self[labels] = self._metric.labels(*labels)
        return child


class Metrics:
    """Counts every request once, at its end; lives as long as the server does."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        info = Info("honestproxy_build", "The proxy that runs.", registry=self._registry)
        info.info({"version": __version__, "python": platform.python_version()})
        whole = ("api", "strategy", "outcome", "status")
        self._requests = self._counter("requests", "Requests that have ended.", *whole)
        self._calls = self._counter("calls", "Calls to an upstream.", "step", "result")
        self._tokens = self._counter("tokens", "Tokens, as upstreams say.", "step", "direction")
        self._doubts = self._counter("doubts", "Doubts that were found.", "kind")
        self._reloads = self._counter("reloads", "Settings that were read anew.", "result")
        self._lookups = self._counter("answer_cache_lookups", "Answers looked for.", "result")
        self._heads = self._counter("heads_refused", "Refused before they were requests.", "status")
        self._took = self._times("request_duration", "From coming to end.", "api", "strategy")
        self._began = self._times("first_chunk", "Until a stream's first event.", "strategy")
        self._called = self._times("call_duration", "Calls that were not cancelled.", "step")
        for kind in DOUBT_KINDS:  # a rate needs a zero to begin from
            self._doubts[(kind,)].inc(0)
        for refused in (InvalidRequest, TooSlow, HeadTooLarge):
            self._heads[(str(refused.status),)].inc(0)
        for result in ("done", "refused"):
            self._reloads[(result,)].inc(0)
        for result in ("hit", "miss"):
            self._lookups[(result,)].inc(0)

    def note(self, account: Account) -> None:
        """Count a request that has ended."""
        run = account.run
        strategy = run.honesty.trace.strategy if run else "none"
        self._requests[account.api, strategy, account.outcome, str(account.status)].inc()
        self._took[account.api, strategy].observe(account.seconds)
        if account.first is not None and account.asked and account.asked.streamed:
            self._began[(strategy,)].observe(account.first - account.started)
        if account.cached or account.missed:
            self._lookups[("hit" if account.cached else "miss",)].inc()
        if run is None or account.cached:  # then nothing was asked, nor found
            return
        for doubt in run.honesty.doubts.items if run.honesty.doubts else ():
            self._doubts[(doubt.kind,)].inc()
        for step in run.honesty.trace.steps:
            self._note_call(step, unread=run.verbatim and not account.left)

    def reloaded(self, *, done: bool) -> None:
        """Count settings that were read anew: they are in force, or were refused."""
        self._reloads[("done" if done else "refused",)].inc()

    def head_refused(self, status: int) -> None:
        """Count a head that was refused before it was a request of any API."""
        self._heads[(str(status),)].inc()

    def told(self, accept: str, now: Iterable[Metric] = ()) -> tuple[bytes, str]:
        """Everything as Prometheus reads it, and its media type; `now` is what holds just now."""
        encode, kind = choose_encoder(accept)
        return encode(_Together(self._registry, now)), kind

    def _note_call(self, step: Step, *, unread: bool) -> None:
        """Count a call; the response of one that was streamed `unread` isn't known."""
        result = _result(step, unread=unread)
        self._calls[step.name, result].inc()
        if step.seconds is not None and result != "cancelled":
            self._called[(step.name,)].observe(step.seconds)
        if usage := step.usage:
            for direction, name in _TOKENS:
                if used := count(usage.get(name)):
                    self._tokens[step.name, direction].inc(used)

    def _counter(self, name: str, what: str, *labels: str) -> _Children:
        return _Children(Counter(f"honestproxy_{name}", what, labels, registry=self._registry))

    def _times(self, name: str, what: str, *labels: str) -> _Children:
        full, registry = f"honestproxy_{name}_seconds", self._registry
        return _Children(Histogram(full, what, labels, registry=registry, buckets=SECONDS))


class _Together:
    """What a registry holds and what holds just now, without the times of each one's making."""

    def __init__(self, registry: CollectorRegistry, now: Iterable[Metric]) -> None:
        self._registry = registry
        self._now = now

    def collect(self) -> Iterator[Metric]:
        for metric in self._registry.collect():
            metric.samples = [s for s in metric.samples if not s.name.endswith("_created")]
            yield metric
        yield from self._now


def _result(step: Step, *, unread: bool) -> str:
    """How a call ended: never in an upstream's words."""
    if step.failure is not None:
        return step.failure
    return "ok" if step.response is not None or (unread and not step.error) else "cancelled"


@router.get("/metrics")
async def metrics(request: Request) -> Response:
    """All metrics, in Prometheus' text format or in OpenMetrics', as asked."""
    service: Service = request.scope["service"]
    if service.metrics is None:
        raise InvalidRequest("metrics are switched off (setting metrics)", status=404)
    body, kind = service.metrics.told(request.headers.get("accept", ""), now(service))
    return Response(body, headers={"content-type": kind, "cache-control": "no-store"})
