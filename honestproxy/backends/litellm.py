"""Any model that litellm can reach. Nothing else here knows litellm, and none of its types leave.

litellm is imported on the first call, in a thread: it takes seconds.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import os
import warnings
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from honestproxy.errors import (
    BackendError,
    HonestProxyError,
    InvalidRequest,
    SettingsError,
    UpstreamBroken,
    UpstreamError,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from honestproxy.types import ChatRequest, ChatResponse, Chunk, read, write
from honestproxy.wire import upstream as wire

if TYPE_CHECKING:
    from honestproxy.settings import Settings

_PASSED: Final = """audio frequency_penalty function_call functions logit_bias logprobs
    max_completion_tokens max_tokens min_p modalities n parallel_tool_calls prediction
    presence_penalty prompt_cache_key prompt_cache_retention reasoning_effort repetition_penalty
    response_format safety_identifier seed service_tier stop store stream_options temperature
    thinking tool_choice tools top_k top_logprobs top_p user verbosity web_search_options"""

PASSED_BY_NAME: Final = frozenset(_PASSED.split())
"""Fields that litellm translates for each provider. Every other field goes in `extra_body`."""

_NOT_FORWARDED: Final = frozenset({"authorization", "content-type", "content-length", "host"})


class Translation(NamedTuple):
    """What one of litellm's errors is here. A plain UpstreamError keeps its own status."""

    kind: type[HonestProxyError]
    status: int


_KINDS: Final[Mapping[Translation, str]] = {
    Translation(UpstreamError, 502): """APIError APIStatusError BadGatewayError
        BlockedPiiEntityError GuardrailRaisedException MidStreamFallbackError MockException
        OpenAIError""",
    Translation(UpstreamError, 500): "InternalServerError",
    Translation(UpstreamError, 400): """BadRequestError ContentPolicyViolationError
        ContextWindowExceededError ImageFetchError InvalidRequestError RejectedRequestError
        UnsupportedParamsError VectorStoreSearchError""",
    Translation(UpstreamError, 401): "AuthenticationError OAuthError",
    Translation(UpstreamError, 402): "PaymentRequiredError",
    Translation(UpstreamError, 403): "PermissionDeniedError",
    Translation(UpstreamError, 404): "NotFoundError",
    Translation(UpstreamError, 409): "ConflictError",
    Translation(UpstreamError, 422): "UnprocessableEntityError",
    Translation(UpstreamError, 429): "BudgetExceededError RateLimitError",
    Translation(UpstreamError, 503): "ServiceUnavailableError",
    Translation(UpstreamBroken, 502): """APIResponseValidationError ContentFilterFinishReasonError
        Exception JSONSchemaValidationError LengthFinishReasonError""",
    Translation(UpstreamTimeout, 504): "APITimeoutError Timeout TimeoutError",
    Translation(UpstreamUnreachable, 502): "APIConnectionError",
    # Wrong spec, missing package of a provider, or what only litellm's own proxy raises.
    Translation(BackendError, 500): """ImportError LiteLLMUnknownProvider ModelNotMappedError
        ModifyResponseException SensitiveDataRouteException""",
}

TRANSLATIONS: Final = {name: kind for kind, names in _KINDS.items() for name in names.split()}
"""Errors of litellm, of openai (which it lets through) and Python's own, by class name."""


class LiteLLM:
    """A backend over `litellm.acompletion`: `litellm:openai/gpt-4o`, `litellm:groq/*`.

    The model called is the spec's, whatever a request names; after `<provider>/` or
    `<provider>/*` it is the request's. Keys and addresses come from the environment variables
    that litellm documents (`OPENAI_API_BASE`, `AZURE_API_BASE`, …); `upstream_key`, or the
    client's own `Authorization`, is the key where there is one.

    A client can't reach litellm's own options (`api_base`, `mock_response`, `callbacks`, …).
    litellm reads any keyword of these names as an instruction, and passes unknown ones on; so
    only `PASSED_BY_NAME` goes by name, and the rest inside `extra_body`. To OpenAI-compatible
    providers litellm sends that merged into the JSON, unread but for `model`, which it drops;
    others get it as it is, and may refuse (Anthropic does).
    """

    def __init__(self, model: str, settings: Settings) -> None:
        self._provider, slash, name = model.partition("/")
        self._is_open = bool(slash) and name in ("", "*")
        if self._provider in ("", "*"):
            raise SettingsError("litellm:<provider>/<model> or litellm:<provider>/* is needed")
        if importlib.util.find_spec("litellm") is None:  # told at the start, not at a request
            raise BackendError("litellm isn't installed; pip install 'honestproxy[litellm]'")
        self._model = model
        key = settings.upstream_key
        self._key = key.get_secret_value().strip() if key else ""
        self._seconds = settings.step_timeout
        self._litellm: Any = None

    async def complete(self, request: ChatRequest) -> ChatResponse:
        """The model's answer, as litellm puts it into OpenAI's shape."""
        arguments = self._arguments(request)
        with _translated(arguments["api_key"]):
            answer = await (await self._loaded()).acompletion(**arguments)
        hidden = getattr(answer, "_hidden_params", None) or {}
        return ChatResponse(_plain(answer), headers=wire.kept_headers(hidden.get("headers") or {}))

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Chunk, None]:
        """The same as it is made; closing this closes litellm's connection."""
        arguments = self._arguments(request)
        with _translated(arguments["api_key"]):
            answer = await (await self._loaded()).acompletion(**arguments, stream=True)
            try:
                yield Chunk({"choices": []}, event=b"")
                async for part in answer:
                    chunk = Chunk(_plain(part))
                    _check_end(chunk, answer)
                    yield chunk
            finally:
                await answer.aclose()

    async def models(self, headers: Mapping[str, str] | None = None) -> list[dict[str, Any]]:
        """The spec's model; none where requests choose it."""
        made = {"object": "model", "created": 0, "owned_by": self._provider}
        return [] if self._is_open else [{"id": self._model, **made}]

    async def aclose(self) -> None:
        """Close litellm's connections, which it shares between all its users in a process."""
        if self._litellm is not None:
            await self._litellm.close_litellm_async_clients()
            self._litellm.in_memory_llm_clients_cache.flush_cache()

    def _arguments(self, request: ChatRequest) -> dict[str, Any]:
        fields = request.dict()
        named = {name: value for name, value in fields.items() if name in PASSED_BY_NAME}
        other = fields.keys() - named.keys() - {"model", "messages", "stream"}
        headers = {name.lower(): value for name, value in request.headers.items()}
        scheme, _, token = headers.get("authorization", "").partition(" ")
        return {
            **named,
            "model": self._chosen(request),
            "messages": request.messages,
            "api_key": self._key or (token.strip() if scheme.lower() == "bearer" else "") or None,
            "extra_body": {name: fields[name] for name in fields if name in other},
            "extra_headers": {n: v for n, v in headers.items() if n not in _NOT_FORWARDED},
            "max_retries": 0,
            "num_retries": 0,
            "timeout": self._seconds,
            "_skip_mcp_handler": True,  # or a tool in a request could have litellm call others
        }

    def _chosen(self, request: ChatRequest) -> str:
        if not self._is_open:
            return self._model
        if not request.model:
            raise InvalidRequest("the request names no model", param="model")
        if "://" in request.model:  # to some providers that is where to send the key
            raise InvalidRequest("a model's name can't be a URL here", param="model")
        return f"{self._provider}/{request.model}"

    async def _loaded(self) -> Any:
        if self._litellm is None:
            self._litellm = await asyncio.to_thread(load)
        return self._litellm

    def __repr__(self) -> str:
        return f"LiteLLM({self._model!r})"


def translate(error: Exception, key: str | None = None) -> HonestProxyError:
    """Our error for one of litellm's; `key`, and those in the environment, are not told."""
    names = (kind.__name__ for kind in type(error).__mro__)
    kind, status = next(TRANSLATIONS[name] for name in names if name in TRANSLATIONS)
    text = str(getattr(error, "message", None) or error) or type(error).__name__
    message = wire.redacted(f"litellm: {text}", _secrets(key))
    if not issubclass(kind, UpstreamError):
        return kind(message, status=status)
    own = getattr(error, "status_code", None)
    if kind is UpstreamError and isinstance(own, int) and 400 <= own < 600:
        status = own
    upstream = _body_of(error, key)
    return kind(message, status=status, headers=_headers_of(error), upstream=upstream)


def _body_of(error: Exception, key: str | None) -> dict[str, Any] | None:
    body = getattr(error, "body", None)
    if not (isinstance(body, dict) and isinstance(body.get("message"), str)):
        return None
    redacted: dict[str, Any] = read(wire.redacted(write(body).decode(), _secrets(key)).encode())
    return {"error": redacted}


def _headers_of(error: Exception) -> dict[str, str]:
    kept: dict[str, str] = {}
    response = getattr(error, "response", None)
    for found in (response, error):
        for name in ("headers", "litellm_response_headers"):
            kept |= wire.kept_headers(getattr(found, name, None) or {})
    return kept


def _secrets(key: str | None) -> Iterator[str]:
    yield from (value for name, value in os.environ.items() if name.endswith(("_KEY", "_TOKEN")))
    yield key or ""


@contextmanager
def _translated(key: str | None) -> Iterator[None]:
    try:
        yield
    except HonestProxyError:
        raise
    except Exception as error:  # noqa: BLE001  # litellm lets many kinds through; all are mapped
        raise translate(error, key) from None


def load() -> Any:
    """The module litellm, made quiet; BackendError where it isn't installed."""
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # or it fetches prices
    try:
        litellm: Any = importlib.import_module("litellm")
    except ImportError as error:
        raise BackendError(
            f"litellm can't be imported ({error}); pip install 'honestproxy[litellm]'"
        ) from None
    # Its types make pydantic warn at the first stream, of what no one here can mend.
    warnings.filterwarnings("ignore", message="Item '.*' on TypedDict class", category=UserWarning)
    litellm.suppress_debug_info = True  # or it prints on errors
    litellm.drop_params = False
    litellm.telemetry = False
    return litellm


def _check_end(chunk: Chunk, answer: Any) -> None:
    """Litellm ends a stream that broke off with a `stop` of its own."""
    if chunk.finished and getattr(answer, "received_finish_reason", "") is None:
        raise UpstreamBroken("the upstream broke off in mid-answer: no finish_reason came")


def _plain(model: Any) -> dict[str, Any]:
    """Litellm's object as the provider's JSON, without the nulls that litellm adds."""
    found: dict[str, Any] = _pruned(model.model_dump(warnings=False))
    for choice in found.setdefault("choices", []):
        if "delta" in choice:
            choice.setdefault("finish_reason", None)
        message = choice.get("message") or choice.get("delta") or {}
        extra = message.get("provider_specific_fields") or {}
        if "refusal" in extra:  # litellm moves it there
            message["refusal"] = extra["refusal"]
        if "message" in choice:
            message.setdefault("content", None)
    if "usage" in found and found["choices"] == [{"index": 0, "delta": {}, "finish_reason": None}]:
        found["choices"] = []  # as OpenAI's API writes it
    return found


def _pruned(value: Any) -> Any:
    if isinstance(value, list):
        return [_pruned(item) for item in value]
    if not isinstance(value, dict):
        return value
    kept = {name: _pruned(item) for name, item in value.items() if item is not None}
    return {n: v for n, v in kept.items() if v or n != "provider_specific_fields"}
