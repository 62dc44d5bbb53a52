"""What holds just now, for `/metrics`: places, upstreams, the trace store."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Final

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

if TYPE_CHECKING:
    from honestproxy.server.service import Service

_PREFIX: Final = "honestproxy_"


def now(service: Service) -> Iterator[Metric]:
    """Each figure that a part of the service keeps itself, read as it is asked for."""
    places = service.admission
    yield _gauge("requests_in_flight", "Requests that are being answered.", places.busy)
    yield _gauge("requests_queued", "Requests that wait for a place.", places.waiting)
    yield _counter("requests_shed", "Requests that found no place in time.", places.shed)
    yield _gauge("tasks", "Tasks of the event loop; some outlast every request.", _tasks())
    yield from _upstreams(service)
    if service.access.has_keys:
        refused = service.access.refused
        yield _counter("keys_refused", "Requests without a key that opens the door.", refused)
    if (store := service.store) is not None:
        yield _counter("traces_written", "Traces that are in the store.", store.written)
        yield _counter("traces_shed", "Traces that were given up.", store.shed)
        yield _gauge("traces_pending", "Traces on their way to the store.", store.pending)


def _tasks() -> int:
    return len(asyncio.all_tasks())


def _upstreams(service: Service) -> Iterator[Metric]:
    """How each upstream of the settings fares; their names are the operator's."""
    upstreams = service.upstreams
    up = "Whether an upstream is asked: 0 while it is left alone."
    told = GaugeMetricFamily(f"{_PREFIX}upstream_up", up, labels=["upstream"])
    for name, state in upstreams.health().items():
        told.add_metric([name], float(state == "closed"))
    yield told
    yield _by_upstream(
        "retries", "Calls to an upstream that were retries.", upstreams.asked_again()
    )
    yield _by_upstream("fallbacks", "Answers in another upstream's place.", upstreams.stood_in())


def _by_upstream(name: str, what: str, counts: Mapping[str, int]) -> Metric:
    told = CounterMetricFamily(_PREFIX + name, what, labels=["upstream"])
    for upstream, count in counts.items():
        told.add_metric([upstream], count)
    return told


def _gauge(name: str, what: str, value: float) -> Metric:
    return GaugeMetricFamily(_PREFIX + name, what, value)


def _counter(name: str, what: str, value: float) -> Metric:
    return CounterMetricFamily(_PREFIX + name, what, value)
