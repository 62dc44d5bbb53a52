"""The table of traces, and a row of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from sqlalchemy import BigInteger, Boolean, Column, Double, Integer, MetaData, Table, Text

from honestproxy.document import read, write

metadata = MetaData()

traces: Final = Table(
    "traces",
    metadata,
    Column("id", Text, primary_key=True),
    Column("created", Double, nullable=False, index=True),
    Column("api", Text, nullable=False),
    Column("model", Text),
    Column("strategy", Text),
    Column("arm", Text),
    Column("outcome", Text),
    Column("reason", Text),
    Column("status", Integer, nullable=False),
    Column("failed", Boolean, nullable=False),
    Column("client_left", Boolean, nullable=False),
    Column("streamed", Boolean, nullable=False),
    Column("cached", Boolean, nullable=False),
    Column("seconds", Double, nullable=False),
    Column("calls", Integer, nullable=False),
    Column("prompt_tokens", BigInteger),
    Column("completion_tokens", BigInteger),
    Column("total_tokens", BigInteger),
    Column("spent_tokens", BigInteger),
    Column("doubts", Text),
    Column("confidence", Double),
    Column("upstream", Text),
    Column("key_id", Text),
    Column("error", Text),
    Column("trace", Text),
)
"""As the migrations leave it. `created` is in seconds since 1970; `doubts` and `trace` are JSON.

`doubts` is null where they are unknown. `spent_tokens` is what a key is charged, an estimate where
the upstream didn't say. Statements, `error` and `trace` are there only where texts are kept.
"""


class Row(NamedTuple):
    """One request as it is stored, in the order of the columns."""

    id: str
    created: float
    api: str
    model: str | None
    strategy: str | None
    arm: str | None
    outcome: str | None
    reason: str | None
    status: int
    failed: bool
    client_left: bool
    streamed: bool
    cached: bool
    seconds: float
    calls: int
    prompt_tokens: int | None
    completion_tokens: int | None
    total_tokens: int | None
    spent_tokens: int | None
    doubts: str | None
    confidence: float | None
    upstream: str | None
    key_id: str | None
    error: str | None
    trace: str | None

    def facts(self) -> dict[str, Any]:
        """The row as JSON tells it, without the whole trace."""
        return dict(self._facts())

    def told(self) -> bytes:
        """The whole trace as JSON where it was kept, else what is known without texts."""
        if self.trace is not None:
            return self.trace.encode()
        return write({"object": "honesty.trace", **self.facts()})

    def _facts(self) -> Iterator[tuple[str, Any]]:
        for name, value in zip(self._fields, self, strict=True):
            if name == "id":
                yield "trace_id", value
            elif name == "doubts":
                yield name, None if self.doubts is None else read(self.doubts.encode())
            elif name != "trace":
                yield name, value
