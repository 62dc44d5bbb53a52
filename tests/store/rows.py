"""Rows for tests of the store."""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass, field
from typing import Any

from honestproxy.store.schema import Row


def row(**changed: Any) -> Row:
    """A row as a plain request leaves it."""
    usual: dict[str, Any] = dict.fromkeys(Row._fields)
    flags = dict.fromkeys(("failed", "client_left", "streamed", "cached"), False)
    usual |= flags | {"id": uuid.uuid4().hex, "created": time.time(), "api": "chat"}
    usual |= {"model": "m", "strategy": "gated", "outcome": "draft_kept", "status": 200}
    return Row(**(usual | {"seconds": 0.5, "calls": 2} | changed))


@dataclass
class Queued:
    """What a writer is given."""

    made: Row = field(default_factory=row)
    weight: int = 1

    @property
    def id(self) -> str:
        return self.made.id

    def row(self) -> Row:
        return self.made
