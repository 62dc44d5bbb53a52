"""A backend that shows what it reads, for a deployment of its own."""

from __future__ import annotations

from typing import Any

from honestproxy.errors import UnknownModel
from honestproxy.types import ChatRequest
from tests.readers import Reading


class Known(Reading):
    """It has one model, and reads nothing for another."""

    async def read(self, request: ChatRequest) -> Any:
        if request.model == "unknown":
            raise UnknownModel("no model of that name")
        return await super().read(request)


def _reply(request: ChatRequest) -> Any:
    if request.model == "unknown":
        return UnknownModel("no model of that name")
    return "See a dealer."


reads = Known(_reply)
