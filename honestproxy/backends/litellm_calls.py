"""litellm for programs that call it themselves: its options go in, its types and errors out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from honestproxy.backends.litellm import PASSED_BY_NAME, TRANSLATIONS, LiteLLM, load
from honestproxy.errors import HonestProxyError
from honestproxy.settings import Settings
from honestproxy.types import ChatRequest, ChatResponse, Chunk

_REQUEST: Final = PASSED_BY_NAME | {"messages", "stream"}
_MERGED: Final = ("extra_body", "extra_headers")
_LIBRARIES: Final = frozenset({"litellm", "openai"})


class Called(LiteLLM):
    """A backend over `litellm.acompletion` that passes on options of litellm's own.

    Unlike a server's clients, the program that calls may set them: `api_base`, `num_retries`,
    `metadata`, `mock_response`, … They go along with every call of a turn.
    """

    def __init__(self, model: str, options: Mapping[str, Any], settings: Settings) -> None:
        super().__init__(model, settings)
        self._options = options

    def _arguments(self, request: ChatRequest) -> dict[str, Any]:
        arguments = super()._arguments(request)
        del arguments["timeout"]  # litellm has its own
        merged = {name: {**arguments[name], **(self._options.get(name) or {})} for name in _MERGED}
        return {**arguments, **self._options, **merged}


def split(arguments: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What `litellm.completion` was called with: a request's fields, and litellm's options."""
    given = {name: value for name, value in arguments.items() if value is not None}
    fields = {name: _plain(value) for name, value in given.items() if name in _REQUEST}
    return fields, {name: value for name, value in given.items() if name not in _REQUEST}


def _plain(value: Any) -> Any:
    """The value as JSON has it: programs give messages as objects, and formats as classes."""
    if isinstance(value, type):
        found: Any = load().llms.base_llm.base_utils.type_to_response_format_param(value)
        return found
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value.model_dump(exclude_none=True) if hasattr(value, "model_dump") else value


def response(answer: ChatResponse) -> Any:
    """The answer as litellm's `ModelResponse`, `honesty` an attribute of it."""
    return load().ModelResponse(**answer.dict())


def chunk(part: Chunk) -> Any:
    """A part of it as litellm's `ModelResponseStream`."""
    return load().ModelResponseStream(**part.dict())


def original(error: HonestProxyError) -> Exception:
    """The error of litellm's that ours stands for; ours, where it is our own."""
    below: BaseException | None = error
    while below is not None:
        if isinstance(below, Exception) and _is_theirs(below):
            return below
        below = below.__context__
    return error


def _is_theirs(error: BaseException) -> bool:
    kind = type(error)
    return kind.__name__ in TRANSLATIONS and kind.__module__.partition(".")[0] in _LIBRARIES
