"""What the upstream is told to do, in the text of the last user message.

`[script doubt delay=20]` anywhere in a message is read by the upstream; every step of a strategy
carries it, because every step carries the conversation.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import lru_cache

_START, _END = b"[script", b"]"


@dataclass(frozen=True)
class Script:
    """How the upstream is to answer one request."""

    doubt: bool = False
    """A confusion step lists a doubt; so `gated` merges."""
    delay: float = 0.0
    """Milliseconds before each answer."""
    chunks: int = 0
    """A streamed draft has so many chunks, each of which says when it was sent."""
    rate: float = 50.0
    """Chunks a second."""
    hang: bool = False
    """A streamed draft is silent after its first chunk, until the client leaves."""
    fail: str = ""
    """The step that is answered with a 500."""
    log: bool = False
    """When each call came and was answered is kept, and told under /stats."""

    def __str__(self) -> str:
        words = [
            field.name if getattr(self, field.name) is True else f"{field.name}={value}"
            for field in fields(self)
            if (value := getattr(self, field.name)) != field.default
        ]
        return f"[script {' '.join(words)}]"


PLAIN = Script()
_KINDS = {field.name: type(field.default) for field in fields(Script)}


def scripted(body: bytes) -> Script:
    """The script in a request's body."""
    start = body.find(_START)
    return PLAIN if start < 0 else _read(body[start + len(_START) : body.index(_END, start)])


@lru_cache(maxsize=1024)
def _read(text: bytes) -> Script:
    given = {}
    for word in text.decode().split():
        name, _, value = word.partition("=")
        given[name] = _KINDS[name](value or True)
    return Script(**given)
