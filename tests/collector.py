"""An OpenTelemetry collector on loopback that keeps the spans it is sent, for tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span


@dataclass(frozen=True)
class Seen:
    """One span as it arrived: ids in hexadecimal, attributes as plain values."""

    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    attributes: dict[str, Any]
    is_error: bool
    started: int
    ended: int


@dataclass
class Collector:
    """The server's face to a test: where it is, and what it was sent."""

    url: str = ""
    spans: list[Seen] = field(default_factory=list)
    resource: dict[str, Any] = field(default_factory=dict)
    raw: bytes = b""
    hangs: bool = False

    async def take(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.raw += body
        if self.hangs:
            await asyncio.Event().wait()
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            self.resource = {pair.key: _value(pair.value) for pair in resource.resource.attributes}
            for scope in resource.scope_spans:
                self.spans += map(_seen, scope.spans)
        answer = ExportTraceServiceResponse().SerializeToString()
        return web.Response(body=answer, content_type="application/x-protobuf")

    def one(self, **attributes: Any) -> Seen:
        """The one span that has these attributes, dots written as underscores."""
        (found,) = (
            span
            for span in self.spans
            if all(span.attributes.get(n.replace("_", ".")) == v for n, v in attributes.items())
        )
        return found

    def of(self, kind: str) -> list[Seen]:
        return [span for span in self.spans if span.kind == kind]


def _seen(span: Span) -> Seen:
    return Seen(
        span.name,
        Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        {pair.key: _value(pair.value) for pair in span.attributes},
        span.status.code == span.status.STATUS_CODE_ERROR,
        span.start_time_unix_nano,
        span.end_time_unix_nano,
    )


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(item) for item in value.array_value.values]
    return getattr(value, kind)


@asynccontextmanager
async def collector(*, hangs: bool = False) -> AsyncIterator[Collector]:
    """A collector that takes spans by OTLP over HTTP; or one that never says that it has."""
    made = Collector(hangs=hangs)
    app = web.Application()
    app.router.add_post("/v1/traces", made.take)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield made
    finally:
        await runner.cleanup()
