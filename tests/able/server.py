"""The able upstream's routes: who may ask, for which model, and what goes wrong on demand."""

from __future__ import annotations

import base64
import json
import struct
from collections import Counter
from collections.abc import Iterable
from typing import Any

from tests.able import chat, responses
from tests.able.mind import Asked, Said, say
from tests.upstreams import Reply, Seen, answer, event, events

KEY = "sk-able-0123456789"
DONE = event(b"[DONE]")
MODELS = (
    *("m", "other-m", "refuses", "thinks"),
    "unsure",  # lists a doubt whatever it is asked
    "limited",  # 429 with Retry-After
    "recovers",  # 429 each other time, with a short retry-after-ms
    "fails",  # an error event in mid-stream; whole, a 500
    "breaks",  # the connection lost in mid-stream
    "dawdles",  # pauses and comments between its chunks
    "endless",  # begins a stream that only its client ends
)
PAUSE = 0.15


class Able:
    """Answers as a good OpenAI server would: a script for `upstream`.

    `steps` counts what it was asked, by API, model and the proxy's step.
    """

    def __init__(self, key: str | None = KEY) -> None:
        self.steps: Counter[tuple[str, str, str]] = Counter()
        self._key = key
        self._stored: dict[str, Any] = {}
        self._made = 0
        self._recovered = True

    def __call__(self, seen: Seen) -> Reply:
        """The reply to a request."""
        if self._key and seen.headers.get("Authorization") != f"Bearer {self._key}":
            return refused(401, "Incorrect API key provided.", "invalid_api_key")
        path = seen.path.partition("?")[0].removeprefix("/v1")
        if seen.method == "GET":
            return self._get(path)
        known = {
            "/chat/completions": self._chat,
            "/responses": self._response,
            "/embeddings": embedded,
        }
        if path not in known:
            return refused(404, f"Invalid URL (POST /v1{path})", None)
        body = seen.json()
        return fault(body) or known[path](body)

    def _get(self, path: str) -> Reply:
        if path == "/models":
            return answer({"object": "list", "data": [_model(name) for name in MODELS]})
        kind, _, name = path.strip("/").partition("/")
        if kind == "models" and name in MODELS:
            return answer(_model(name))
        if kind == "responses" and name in self._stored:
            return answer(self._stored[name])
        return refused(404, f"There is no {kind} '{name}'.", None)

    def _say(self, api: str, asked: Asked) -> Said:
        self.steps[api, asked.model, asked.step or "draft"] += 1
        return say(asked)

    def _chat(self, body: dict[str, Any]) -> Reply:
        asked = chat.asked(body)
        if asked.model == "recovers" and not asked.step and self._is_limited():
            headers = {"retry-after-ms": "10"}
            return refused(429, "Rate limit reached.", "rate_limit_exceeded", headers=headers)
        said = self._say("chat", asked)
        if not body.get("stream"):
            then = "hold" if asked.model == "endless" and not asked.step else "end"
            return answer(chat.whole(body, said), then=then)
        return streamed(asked, map(event, chat.chunks(body, said)), DONE)

    def _is_limited(self) -> bool:
        self._recovered = not self._recovered
        return not self._recovered

    def _response(self, body: dict[str, Any]) -> Reply:
        self._made += 1
        asked = responses.asked(body)
        said = self._say("responses", asked)
        made = responses.whole(body, said, self._made)
        if made["store"] is not False:
            self._stored[made["id"]] = made
        if not body.get("stream"):
            return answer(made)
        return streamed(asked, map(typed, responses.events(body, said, self._made)), begun=5)


def streamed(asked: Asked, pieces: Iterable[bytes], end: bytes = b"", begun: int = 3) -> Reply:
    """A stream, in the way that belongs to the model; what the proxy asks for itself comes well.

    `begun`: how many pieces come of one that goes wrong.
    """
    found, model = list(pieces), asked.model
    if asked.step:
        return events(*found, end, done=False)
    if model == "dawdles":
        between = (PAUSE, b": the upstream's own comment\n\n")
        found = [part for piece in found for part in (piece, *between)]  # type: ignore[misc]
    if model == "fails":
        error = {"message": "The engine overheated.", "type": "server_error", "code": "hot"}
        return events(*found[:begun], PAUSE, event({"error": error}), done=False)
    if model in ("breaks", "endless"):
        then = "drop" if model == "breaks" else "hold"
        return events(*found[:begun], PAUSE, done=False, then=then)
    return events(*found, end, done=False)


def fault(body: dict[str, Any]) -> Reply | None:
    """The refusal that a model's name, or a parameter, asks for."""
    if body.get("model") not in MODELS:
        message = f"The model `{body.get('model')}` does not exist."
        return refused(404, message, "model_not_found", param="model")
    if body["model"] == "limited":
        headers = {"Retry-After": "7", "x-request-id": "req_able"}
        return refused(429, "Rate limit reached.", "rate_limit_exceeded", headers=headers)
    if body["model"] == "fails" and not body.get("stream"):
        return refused(500, "The engine overheated.", "hot")
    if (body.get("temperature") or 0) > 2:
        return refused(400, "temperature is over 2.", "invalid_value", param="temperature")
    return None


def refused(status: int, message: str, code: str | None, param: str | None = None, **more: Any):
    """An error in OpenAI's shape."""
    kind = "server_error" if status >= 500 else "invalid_request_error"
    error = {"message": message, "type": kind, "param": param, "code": code}
    return answer({"error": error}, status=status, **more)


def embedded(body: dict[str, Any]) -> Reply:
    """Three numbers for each text, as floats or in base64."""
    texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
    rows = [_embedding(text, at, body) for at, text in enumerate(texts)]
    usage = {"prompt_tokens": len(rows), "total_tokens": len(rows)}
    return answer({"object": "list", "data": rows, "model": body["model"], "usage": usage})


def _embedding(text: str, at: int, body: dict[str, Any]) -> dict[str, Any]:
    numbers: Any = [float(len(text)), 0.5, -1.0]
    if body.get("encoding_format") == "base64":
        numbers = base64.b64encode(struct.pack("<3f", *numbers)).decode()
    return {"object": "embedding", "index": at, "embedding": numbers}


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 1700000000, "owned_by": "able"}


def typed(data: dict[str, Any]) -> bytes:
    """An event that says of itself what it is."""
    return f"event: {data['type']}\ndata: {json.dumps(data)}\n\n".encode()
