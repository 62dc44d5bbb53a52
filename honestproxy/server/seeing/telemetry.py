"""OpenTelemetry: a span for each request and one for each of its calls, sent to a collector.

OpenTelemetry is imported only where a collector is set.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from honestproxy import __version__
from honestproxy.errors import SettingsError
from honestproxy.server.seeing import attributes
from honestproxy.server.seeing.provider import Providers
from honestproxy.trace import Step

if TYPE_CHECKING:
    from opentelemetry.trace import Span

    from honestproxy.server.account import Account
    from honestproxy.settings import Settings

log = logging.getLogger(__name__)

_PATH: Final = "/v1/traces"
_PARENT, _STATE = "traceparent", "tracestate"
_ROUTES: Final = {
    "chat": "/v1/chat/completions",
    "responses": "/v1/responses",
    "relay": "/v1/{path}",
}
_LAST_BATCH: Final = 3.0
"""Seconds at the end in which a collector may still take what is left."""


class Telemetry:
    """Makes the spans under one set of settings; `sender` has them sent, and outlives these."""

    def __init__(self, settings: Settings, sender: Sender) -> None:
        self.sender = sender
        self._providers = Providers(settings)
        self._default = settings.upstream

    @classmethod
    def of(cls, settings: Settings, before: Telemetry | None) -> Telemetry | None:
        """What the settings ask for, if anything. Raises SettingsError where it isn't installed."""
        if settings.otlp_endpoint is None:
            return None
        if before is not None and before.sender.endpoint == settings.otlp_endpoint:
            return cls(settings, before.sender)
        return cls(settings, Sender(settings.otlp_endpoint))

    def begin(self, account: Account, method: str, headers: Mapping[str, str]) -> Spans:
        """A request's span, below the one that its client names in `traceparent`."""
        sender, route = self.sender, _ROUTES[account.api]
        span = sender.tracer.start_span(
            f"{method} {route}",
            sender.parent(headers),
            sender.kinds.SERVER,
            attributes={"http.request.method": method, "http.route": route},
            start_time=_epoch(account.started),
        )
        return Spans(sender, self._providers, span, self._default)

    def note(self, account: Account) -> None:
        """End a request's spans."""
        if account.spans is not None:
            account.spans.end(account)


class Spans:
    """The spans of one request: its own, and one for each call that it makes.

    `upstream` is the spec of the one that it is for.
    """

    __slots__ = ("_calls", "_providers", "_request", "_sender", "upstream")

    def __init__(self, sender: Sender, providers: Providers, request: Span, upstream: str) -> None:
        self.upstream = upstream
        self._sender = sender
        self._providers = providers
        self._request = request
        self._calls: list[tuple[Step, Span, int]] = []

    @property
    def trace_id(self) -> str:
        """The W3C trace that the request belongs to."""
        return f"{self._request.get_span_context().trace_id:032x}"

    def onward(self, headers: Mapping[str, str]) -> dict[str, str]:
        """The headers of an upstream's request that has no span of its own here."""
        return _carrying(headers, self._request)

    def call(self, step: Step) -> None:
        """A call is about to be sent: begin its span, and have what its upstream does go below."""
        span = self._request
        if span.is_recording():  # else whoever looks at the parent is told as much
            span = self._begun(step)
        step.request = step.request.with_headers(_carrying(step.request.headers, span))

    def end(self, account: Account) -> None:
        """All has ended: tell how, and have it sent."""
        for step, span, began in self._calls:
            span.set_attributes(attributes.of_call(step))
            span.set_attributes(self._providers.answered(step, account))
            self._judge(span, attributes.failure(step))
            now = time.time_ns()
            until = now if step.seconds is None else began + int(step.seconds * 1e9)
            span.end(min(until, now))
        self._calls = []
        if self._request.is_recording():
            self._request.set_attributes(attributes.of_request(account))
            self._judge(self._request, attributes.trouble(account))
            self._request.end(_epoch(account.started + account.seconds))

    def _begun(self, step: Step) -> Span:
        began, sender = time.time_ns(), self._sender
        model = attributes.named(step.request.model)
        span = sender.tracer.start_span(
            f"chat {model}" if model else "chat",
            sender.below(self._request),
            sender.kinds.CLIENT,
            attributes=self._providers.meant(self.upstream),
            start_time=began,
        )
        self._calls.append((step, span, began))
        return span

    def _judge(self, span: Span, failure: str | None) -> None:
        if failure is not None:
            span.set_attribute("error.type", failure)
            span.set_status(self._sender.failed)


class Sender:
    """OpenTelemetry's SDK, which sends spans in the background, or drops them where it can't.

    Its environment variables say the rest: sampling, the service's name, headers, batches.
    Raises SettingsError where it isn't installed, and where one of these variables can't be.
    """

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        address = _traces_at(endpoint)
        try:
            from opentelemetry import trace
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
            from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
        except ImportError:
            raise SettingsError(
                "otlp_endpoint is set, but OpenTelemetry isn't installed; "
                "pip install 'honestproxy[otel]'",
                param="otlp_endpoint",
            ) from None
        resource = Resource.create({"service.version": __version__})
        if str(resource.attributes["service.name"]).startswith("unknown_service"):
            resource = resource.merge(Resource({"service.name": "honestproxy"}))
        try:
            made = TracerProvider(resource=resource, shutdown_on_exit=False)
            made.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(address)))
        except ValueError as error:
            raise SettingsError(
                f"otlp_endpoint is set, but OpenTelemetry's own variables (OTEL_…) don't fit: "
                f"{error}",
                param="otlp_endpoint",
            ) from None
        self.tracer = made.get_tracer("honestproxy", __version__)
        self.kinds, self.failed = trace.SpanKind, trace.StatusCode.ERROR
        self.below, self.parent = trace.set_span_in_context, TraceContextTextMapPropagator().extract
        self._shut_down = made.shutdown

    async def start(self) -> None:
        """Nothing: the thread that sends is there already."""

    async def aclose(self) -> None:
        """Send what is left, as far as the collector takes it soon."""
        loop, over = asyncio.get_running_loop(), asyncio.Event()

        def shut_down() -> None:
            self._shut_down()
            with suppress(RuntimeError):  # nobody waits any more
                loop.call_soon_threadsafe(over.set)

        # A daemon: a collector that hangs must not hold up the end of the process.
        threading.Thread(target=shut_down, name="last spans", daemon=True).start()
        try:
            async with asyncio.timeout(_LAST_BATCH):
                await over.wait()
        except TimeoutError:
            log.warning("the collector at otlp_endpoint hasn't taken the last spans in time")


def _traces_at(endpoint: str) -> str:
    """Where spans are sent: below a collector's address there is a path for each kind of signal."""
    return endpoint if urlsplit(endpoint).path.endswith(_PATH) else endpoint.rstrip("/") + _PATH


def _carrying(headers: Mapping[str, str], span: Span) -> dict[str, str]:
    """The headers, such that what their receiver does goes below a span."""
    context = span.get_span_context()
    if not context.is_valid:  # OpenTelemetry is switched off
        return dict(headers)
    trace = f"{context.trace_id:032x}"
    is_begun_here = trace not in headers.get(_PARENT, "")
    carried = {n: v for n, v in headers.items() if n != _STATE or not is_begun_here}
    carried[_PARENT] = f"00-{trace}-{context.span_id:016x}-{int(context.trace_flags):02x}"
    return carried


def _epoch(counted: float) -> int:
    """A moment of the process's own clock, in nanoseconds since 1970."""
    return time.time_ns() - int((time.perf_counter() - counted) * 1e9)
