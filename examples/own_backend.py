"""A backend of your own: whatever has these four methods can be asked, and made honest.

Serve it with `honestproxy serve --upstream own_backend:Parrot` from this folder.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

from honestproxy.backends import Traits
from honestproxy.pipeline import Pipeline
from honestproxy.types import ChatRequest, ChatResponse, Chunk


class Parrot:
    """Says what it hears."""

    traits = Traits(default_strategy="raw")

    async def complete(self, request: ChatRequest) -> ChatResponse:
        """The whole answer."""
        heard = request.messages[-1]["content"]
        return ChatResponse.of(f"You said: {heard}", model="parrot")

    async def stream(self, request: ChatRequest) -> AsyncIterator[Chunk]:
        """The answer as it is made; this one makes it at once."""
        for chunk in (await self.complete(request)).chunks():
            yield chunk

    async def models(self, headers: Mapping[str, str] | None = None) -> list[dict[str, Any]]:
        """What it serves."""
        return [{"id": "parrot", "object": "model", "created": 0, "owned_by": "me"}]

    async def aclose(self) -> None:
        """Nothing to let go of."""


async def main() -> None:
    asked = {"model": "parrot", "messages": [{"role": "user", "content": "Good morning"}]}
    response = await Pipeline(Parrot()).complete(ChatRequest(asked))
    print(response.text)


if __name__ == "__main__":
    asyncio.run(main())
