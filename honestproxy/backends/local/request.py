"""What a request asks of decoding, checked; what a local model can't do is a clear 400."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final, TypeVar

from honestproxy.backends.local.logprobs import MOST
from honestproxy.backends.local.sampling import Sampling
from honestproxy.errors import InvalidRequest
from honestproxy.types import ChatRequest
from honestproxy.wire.request import MOST_CHOICES

_N = TypeVar("_N", int, float)

_NUMBERS: Final[Mapping[str, tuple[float, float]]] = {
    "temperature": (0.0, 2.0),
    "top_p": (0.0, 1.0),
    "presence_penalty": (-2.0, 2.0),
    "frequency_penalty": (-2.0, 2.0),
    "repetition_penalty": (0.1, 10.0),
}
_INTEGERS: Final[Mapping[str, tuple[int, int]]] = {
    "seed": (-(2**63), 2**63 - 1),
    "n": (1, MOST_CHOICES),
    "top_k": (0, 2**31),
}


def sampling(request: ChatRequest, defaults: Sampling) -> Sampling:
    """How the request wants its answer decoded; what it leaves open is the model's default.

    Raises InvalidRequest, which names the field.
    """
    refuse(request)
    asked: dict[str, Any] = {}
    for name, (low, high) in _NUMBERS.items():
        if (value := request.get(name)) is not None:
            asked[name] = float(_between(name, _number(name, value), low, high))
    for name, (least, most) in _INTEGERS.items():
        if (value := request.get(name)) is not None:
            asked[name] = _between(name, _integer(name, value), least, most)
    if (value := request.get("stop")) is not None:
        asked["stop"] = _stop(value)
    if (value := request.get("logit_bias")) is not None:
        asked["logit_bias"] = _bias(value)
    asked["logprobs"] = _logprobs(request)
    if (value := request.get("brief")) is not None:
        if not isinstance(value, bool):
            raise _wrong("brief", "true or false", value)
        asked["brief"] = value
    return replace(defaults, **asked, max_tokens=_cap(request, defaults.max_tokens))


def refuse(request: ChatRequest) -> None:
    """Raise InvalidRequest for what a local model can't do."""
    wanted = request.get("response_format")
    if wanted is not None and (not isinstance(wanted, dict) or wanted.get("type") != "text"):
        raise _cannot("response_format", "any response format but text")
    if request.get("tool_choice") not in (None, "auto", "none"):
        raise _cannot("tool_choice", "forced tools; it takes 'auto' and 'none'")
    if "audio" in (request.get("modalities") or ()) or request.get("audio"):
        raise _cannot("modalities", "audio")


def _cannot(name: str, what: str) -> InvalidRequest:
    message = f"this local model can't do {what}; leave out {name!r}, or use another upstream"
    return InvalidRequest(message, param=name, code="unsupported_parameter")


def _wrong(name: str, expected: str, value: Any) -> InvalidRequest:
    shown = repr(value)[:80]
    return InvalidRequest(f"{name!r} must be {expected}, not {shown}", param=name)


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _wrong(name, "a number", value)
    return value


def _integer(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise _wrong(name, "an integer", value)
    return value


def _between(name: str, value: _N, low: _N, high: _N) -> _N:
    if not low <= value <= high:
        raise _wrong(name, f"between {low} and {high}", value)
    return value


def _stop(value: Any) -> tuple[str, ...]:
    stops = [value] if isinstance(value, str) else value
    if not isinstance(stops, list) or len(stops) > 4:
        raise _wrong("stop", "a string or a list of up to 4", value)
    if not all(isinstance(stop, str) and stop for stop in stops):
        raise _wrong("stop", "a string or strings, none of them empty", value)
    return tuple(stops)


def _bias(value: Any) -> dict[int, float]:
    try:
        return {int(k): float(_between("logit_bias", v, -100, 100)) for k, v in value.items()}
    except (AttributeError, TypeError, ValueError):
        raise _wrong("logit_bias", "an object of token ids and numbers", value) from None


def _logprobs(request: ChatRequest) -> int | None:
    """How many likely tokens are to be told beside each; what is wrong, in OpenAI's words."""
    wanted, top = request.get("logprobs"), request.get("top_logprobs")
    if not isinstance(wanted, bool | None):
        raise _wrong("logprobs", "a boolean", wanted)
    if top is None:
        return 0 if wanted else None
    if _integer("top_logprobs", top) > MOST:
        said = f"Invalid value for 'top_logprobs': must be less than or equal to {MOST}."
        raise InvalidRequest(said, param="top_logprobs")
    if top < 0:
        expected = f"Expected a value >= 0, but got {top} instead."
        said = f"Invalid 'top_logprobs': integer below minimum value. {expected}"
        raise InvalidRequest(said, param="top_logprobs", code="integer_below_min_value")
    if not wanted:
        said = "The 'top_logprobs' parameter is only allowed when 'logprobs' is enabled."
        raise InvalidRequest(said, param="top_logprobs")
    return int(top)


def _cap(request: ChatRequest, default: int | None) -> int | None:
    """The cap on tokens by its new name, by its old one, or the model's own."""
    for name in ("max_completion_tokens", "max_tokens"):
        if (value := request.get(name)) is not None:
            if _integer(name, value) < 1:
                raise _wrong(name, "at least 1", value)
            return int(value)
    return default
