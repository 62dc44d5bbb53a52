"""Prometheus metrics: what became of all requests, each counted as it ends; `GET /metrics`.

No label holds anything that a client or an upstream wrote, but for HTTP statuses: neither models
nor keys are among them.
"""

from __future__ import annotations

import platform
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from itertools import accumulate
from typing import TYPE_CHECKING, Final

from fastapi import APIRouter, Request
from prometheus_client import CollectorRegistry, Info
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import CounterMetricFamily, HistogramMetricFamily, Metric
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

_BOUNDS: Final = [*(str(float(bound)) for bound in SECONDS), "+Inf"]

_TOKENS: Final = (("input", "prompt_tokens"), ("output", "completion_tokens"))

router = APIRouter(include_in_schema=False)


class _Counts(Counter[tuple[str, ...]]):
    """What is counted, by its labels.

    The library's own counters take a lock each time; here all is counted in one thread.
    """

    def __init__(self, name: str, what: str, *labels: str) -> None:
        super().__init__()
        self._about = (f"honestproxy_{name}", what)
        self._labels = labels

    def told(self) -> Metric:
        """The counts as Prometheus has them."""
        told = CounterMetricFamily(*self._about, labels=self._labels)
        for labels, number in self.items():
            told.add_metric(labels, number)
        return told


class _Times:
    """How long things took, by their labels: how many fell between two bounds, and the sum."""

    def __init__(self, name: str, what: str, *labels: str) -> None:
        self._about = (f"honestproxy_{name}_seconds", what)
        self._labels = labels
        self._taken: dict[tuple[str, ...], list[int]] = defaultdict(lambda: [0] * len(_BOUNDS))
        self._sums: dict[tuple[str, ...], float] = defaultdict(float)

    def take(self, seconds: float, *labels: str) -> None:
        """Take in one more time."""
        self._taken[labels][bisect_left(SECONDS, seconds)] += 1
        self._sums[labels] += seconds

    def told(self) -> Metric:
        """The times as Prometheus has them."""
        told = HistogramMetricFamily(*self._about, labels=self._labels)
        for labels, taken in self._taken.items():
            below = list(zip(_BOUNDS, accumulate(taken), strict=True))
            told.add_metric(labels, below, self._sums[labels])
        return told


class Metrics:
    """Counts every request once, at its end; lives as long as the server does."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        info = Info("honestproxy_build", "The proxy that runs.", registry=self._registry)
        info.info({"version": __version__, "python": platform.python_version()})
        whole = ("api", "strategy", "outcome", "status")
        self._requests = _Counts("requests", "Requests that have ended.", *whole)
        self._calls = _Counts("calls", "Calls to an upstream.", "step", "result")
        self._tokens = _Counts("tokens", "Tokens, as upstreams say.", "step", "direction")
        self._doubts = _Counts("doubts", "Doubts that were found.", "kind")
        self._reloads = _Counts("reloads", "Settings that were read anew.", "result")
        self._lookups = _Counts("answer_cache_lookups", "Answers looked for.", "result")
        self._heads = _Counts("heads_refused", "Refused before they were requests.", "status")
        self._took = _Times("request_duration", "From coming to end.", "api", "strategy")
        self._began = _Times("first_chunk", "Until a stream's first event.", "strategy")
        self._called = _Times("call_duration", "Calls that were not cancelled.", "step")
        for kind in DOUBT_KINDS:  # a rate needs a zero to begin from
            self._doubts[(kind,)] = 0
        for refused in (InvalidRequest, TooSlow, HeadTooLarge):
            self._heads[(str(refused.status),)] = 0
        for result in ("done", "refused"):
            self._reloads[(result,)] = 0
        for result in ("hit", "miss"):
            self._lookups[(result,)] = 0

    def note(self, account: Account) -> None:
        """Count a request that has ended."""
        run = account.run
        strategy = run.honesty.trace.strategy if run else "none"
        self._requests[account.api, strategy, account.outcome, str(account.status)] += 1
        self._took.take(account.seconds, account.api, strategy)
        if account.first is not None and account.asked and account.asked.streamed:
            self._began.take(account.first - account.started, strategy)
        if account.cached or account.missed:
            self._lookups[("hit" if account.cached else "miss",)] += 1
        if run is None or account.cached:  # then nothing was asked, nor found
            return
        for doubt in run.honesty.doubts.items if run.honesty.doubts else ():
            self._doubts[(doubt.kind,)] += 1
        for step in run.honesty.trace.steps:
            self._note_call(step, unread=run.verbatim and not account.left)

    def reloaded(self, *, done: bool) -> None:
        """Count settings that were read anew: they are in force, or were refused."""
        self._reloads[("done" if done else "refused",)] += 1

    def head_refused(self, status: int) -> None:
        """Count a head that was refused before it was a request of any API."""
        self._heads[(str(status),)] += 1

    def told(self, accept: str, now: Iterable[Metric] = ()) -> tuple[bytes, str]:
        """Everything as Prometheus reads it, and its media type; `now` is what holds just now."""
        encode, kind = choose_encoder(accept)
        return encode(_Together(self._told(), now)), kind

    def _note_call(self, step: Step, *, unread: bool) -> None:
        """Count a call; the response of one that was streamed `unread` isn't known."""
        result = _result(step, unread=unread)
        self._calls[step.name, result] += 1
        if step.seconds is not None and result != "cancelled":
            self._called.take(step.seconds, step.name)
        if usage := step.usage:
            for direction, name in _TOKENS:
                if used := count(usage.get(name)):
                    self._tokens[step.name, direction] += used

    def _told(self) -> Iterator[Metric]:
        yield from self._registry.collect()
        ours: tuple[_Counts | _Times, ...] = (
            *(self._requests, self._calls, self._tokens, self._doubts),
            *(self._reloads, self._lookups, self._heads),
            *(self._took, self._began, self._called),
        )
        for one in ours:
            yield one.told()


class _Together:
    """Metrics of several origins, as an encoder wants them."""

    def __init__(self, *parts: Iterable[Metric]) -> None:
        self._parts = parts

    def collect(self) -> Iterator[Metric]:
        for part in self._parts:
            yield from part


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
