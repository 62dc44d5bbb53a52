"""What spans tell: attributes by the conventions for generative AI, and ours. Never a text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from honestproxy.server.access.usage import count
from honestproxy.trace import Step
from honestproxy.types import DOUBT_KINDS, Document

if TYPE_CHECKING:
    from honestproxy.server.account import Account

_LONGEST: Final = 200
"""Characters of a name that an upstream or a client chose."""

_ASKED: Final = {
    "max_tokens": "gen_ai.request.max_tokens",
    "max_completion_tokens": "gen_ai.request.max_tokens",
    "temperature": "gen_ai.request.temperature",
    "top_p": "gen_ai.request.top_p",
    "seed": "gen_ai.request.seed",
}
_USED: Final = {
    "prompt_tokens": "gen_ai.usage.input_tokens",
    "completion_tokens": "gen_ai.usage.output_tokens",
}


def of_call(step: Step) -> dict[str, Any]:
    """What is told of a call that has ended."""
    request = step.request
    told: dict[str, Any] = {"gen_ai.operation.name": "chat", "honestproxy.step": step.name}
    if model := named(request.model):
        told["gen_ai.request.model"] = model
    if request.streamed:
        told["gen_ai.request.stream"] = True
    if step.prompt:
        told |= {"gen_ai.prompt.name": step.prompt, "gen_ai.prompt.version": step.digest or ""}
    numbers = {at: _read(request, name) for name, at in _ASKED.items() if name in request}
    if usage := step.usage:
        numbers |= {at: count(usage.get(name)) for name, at in _USED.items()}
    told |= {at: number for at, number in numbers.items() if _is_number(number)}
    return told | _of_answer(step)


def _of_answer(step: Step) -> dict[str, Any]:
    """Model, id and ends of an answer: the whole one's, or what its last chunks say."""
    parts = [step.response] if step.response is not None else list(step.last)
    told: dict[str, Any] = {}
    for attribute in ("model", "id"):
        if found := next(filter(None, (named(_read(part, attribute)) for part in parts)), ""):
            told[f"gen_ai.response.{attribute}"] = found
    ends = [end for part in parts for end in _ends(_read(part, "choices"))]
    return told | ({"gen_ai.response.finish_reasons": ends} if ends else {})


def _ends(choices: Any) -> Iterator[str]:
    for choice in choices if isinstance(choices, list) else ():
        if isinstance(choice, dict) and (end := named(choice.get("finish_reason"))):
            yield end


def of_request(account: Account) -> dict[str, Any]:
    """What is told of a request that has ended."""
    run, asked = account.run, account.asked
    told: dict[str, Any] = {"http.response.status_code": account.status}
    if asked is not None and (model := named(asked.model)):
        told["gen_ai.request.model"] = model
    if account.caller.id:
        told["honestproxy.key"] = account.caller.id
    told["honestproxy.outcome"] = account.outcome
    if run is None:
        return told
    honesty, trace = run.honesty, run.honesty.trace
    told["honestproxy.trace_id"], told["honestproxy.strategy"] = trace.id, trace.strategy
    told["honestproxy.calls"] = len(trace.steps)
    if trace.arm:
        told["honestproxy.arm"] = trace.arm
    if (found := honesty.doubts) is not None:
        kinds = [doubt.kind for doubt in found.items]
        told |= {f"honestproxy.doubts.{k}": kinds.count(k) for k in DOUBT_KINDS if k in kinds}
        told["honestproxy.doubts"] = len(kinds)
        if found.confidence is not None:
            told["honestproxy.confidence"] = found.confidence
    return told


def failure(step: Step) -> str | None:
    """Why a call came to nothing, if so: of which kind, never in an upstream's words."""
    if step.failure is not None:
        return step.failure
    is_whole = step.response is not None or bool(step.last)
    return None if is_whole and not step.error else "cancelled"


def trouble(account: Account) -> str | None:
    """Why a request counts as failed, if so; what the client got wrong is no failure here."""
    if account.status >= 500:
        return str(account.status)
    return "_OTHER" if account.failed is not None and account.status < 400 else None


def named(value: Any) -> str:
    """A name that someone else chose, as it can be sent; empty for what is none."""
    text = value if isinstance(value, str) else ""
    return text[:_LONGEST].encode("utf-8", "replace").decode()


def _read(document: Document, name: str) -> Any:
    """A field of what is passed on unread, and may be broken there."""
    try:
        return document.get(name)
    except (ValueError, RecursionError):
        return None


def _is_number(value: Any) -> bool:
    return isinstance(value, float) or (type(value) is int and abs(value) < 1 << 63)
