"""Live A/B: which arm a request falls to, and how each arm has fared since the start.

In memory, without any text: who asked is kept as a hash, what was asked and answered not at all.
"""

from __future__ import annotations

import hashlib
import statistics
import uuid
from collections import Counter, OrderedDict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.responses import Response, StreamingResponse

from honestproxy.backends.upstreams import Upstreams
from honestproxy.errors import InvalidRequest, SettingsError
from honestproxy.pipeline import AnyRun
from honestproxy.server.access.caller import ANYONE, Caller
from honestproxy.server.access.usage import summed
from honestproxy.server.account import Account, error_of, reason_of
from honestproxy.server.incoming import json_body
from honestproxy.settings import DEFAULT_NAME, Settings, nearest
from honestproxy.settings.references import blotted
from honestproxy.strategies import STRATEGIES
from honestproxy.trace import Trace
from honestproxy.types import ChatRequest, write

KEPT: Final = 100_000
"""Replies that are kept for votes and for the export; older ones are only counted."""

_PER_ARM: Final = 10_000
"""Replies of an arm that its times are told of: the last ones."""

_READS: Final = "introspect"
"""The strategy that can't do without a model's hidden states."""

_TOKENS: Final = ("prompt_tokens", "completion_tokens", "total_tokens")

router = APIRouter(include_in_schema=False)


class Feedback(BaseModel):
    """What a client thinks of a reply."""

    model_config = ConfigDict(extra="forbid")

    trace_id: str = Field(min_length=1, max_length=100)
    vote: Literal["up", "down"]
    comment: str | None = Field(None, max_length=2000)


@dataclass(slots=True)
class Arm:
    """How one arm has fared."""

    requests: int = 0
    errors: int = 0
    calls: int = 0
    tokens: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    votes: Counter[str] = field(default_factory=lambda: Counter(up=0, down=0))
    seconds: list[float] = field(default_factory=list)

    def took(self, seconds: float) -> None:
        """Take in one more time; of many, the oldest is forgotten."""
        if len(self.seconds) < _PER_ARM:
            self.seconds.append(seconds)
        else:
            self.seconds[self.requests % _PER_ARM] = seconds

    def told(self) -> dict[str, Any]:
        """The arm as the API tells it."""
        counted = {"requests": self.requests, "errors": self.errors, "calls": self.calls}
        return {
            **counted,
            "tokens": self.tokens,
            "outcomes": dict(self.outcomes),
            "votes": dict(self.votes),
            **_quantiles(self.seconds),
        }


class Experiment:
    """Assigns each request that chose no strategy to an arm, and keeps the score.

    Raises SettingsError where an arm is no strategy, one that clients may not choose, or one that
    needs more of a model than one of the `upstreams` shows.
    """

    def __init__(self, settings: Settings, upstreams: Upstreams | None = None) -> None:
        self.shares: Mapping[str, float] = settings.experiment or {}
        self._header = settings.experiment_header.lower()
        # In an order of its own: written in another one, the same arms get the same users.
        self._line = sorted(self.shares.items())
        self._seed = ",".join(f"{name}={share:g}" for name, share in self._line)
        self._arms = {name: Arm() for name in self.shares}
        self._kept: OrderedDict[str, dict[str, Any]] = OrderedDict()
        self._askers: dict[str, str] = {}
        """Whose key a reply was for, by its trace, where there are keys."""
        for name in self.shares:
            _check_arm(name, settings.strategies_allowed)
        if upstreams and _READS in self.shares:
            _check_read(settings, upstreams)

    def is_like(self, other: Experiment) -> bool:
        """Whether both assign alike, so that what was counted goes on."""
        return (self._seed, self._header) == (other._seed, other._header)

    def assigned(
        self, request: ChatRequest, headers: Mapping[str, str], caller: Caller = ANYONE
    ) -> tuple[ChatRequest, str | None]:
        """The request with its arm's strategy, and the arm.

        As it is where its client chose, or may not have every arm: who can't fall to each of
        them alike tells nothing of how they differ.
        """
        if not self.shares or request.options.strategy is not None:
            return request, None
        if len(caller.strategies_of(self.shares)) < len(self.shares):
            return request, None
        arm = self.arm(self._unit(request, headers))
        chosen = request.with_headers(request.headers)
        chosen.options = replace(request.options, strategy=arm)
        return chosen, arm

    def arm(self, unit: str) -> str:
        """The arm that a unit always falls to, while the shares are the same."""
        digest = hashlib.sha256(f"{self._seed}\0{unit}".encode("utf-8", "replace")).digest()
        point = int.from_bytes(digest[:8], "big") / 2**64 * sum(share for _, share in self._line)
        for name, share in self._line:
            point -= share
            if point < 0:
                return name
        return self._line[-1][0]  # where rounding left a grain of the line

    def note(self, account: Account) -> None:
        """Count what became of a request that had fallen to an arm."""
        run, outcome = account.run, account.outcome
        if run is None or run.honesty.trace.arm is None:
            return
        trace = run.honesty.trace
        arm, usage = self._arms[str(trace.arm)], _usage(trace)
        arm.requests += 1
        arm.errors += outcome == "error"
        arm.calls += len(trace.steps)
        arm.tokens += usage.get("total_tokens", 0)
        arm.outcomes[outcome] += 1
        arm.took(trace.seconds)
        self._keep(run, error_of(account), usage)
        if account.caller.id is not None:
            self._askers[trace.id] = account.caller.id

    def vote(self, feedback: Feedback, caller: Caller = ANYONE) -> None:
        """Count a vote for the arm that made a reply; a later one replaces it.

        Raises InvalidRequest where it isn't known, or was for another key.
        """
        record = self._kept.get(feedback.trace_id)
        if record is None or self._askers.get(feedback.trace_id) != caller.id:
            message = f"no reply with trace {feedback.trace_id!r} is known to a running experiment"
            raise InvalidRequest(message, status=404, param="trace_id", code="trace_not_found")
        votes, before = self._arms[record["arm"]].votes, record["honesty"].get("vote")
        if before:
            votes[before] -= 1
        votes[feedback.vote] += 1
        record["honesty"] |= {"vote": feedback.vote, "comment": feedback.comment}

    def told(self) -> dict[str, Any]:
        """Shares, counts, costs, outcomes and votes by arm."""
        arms = {name: {"share": self.shares[name], **a.told()} for name, a in self._arms.items()}
        return {"object": "honesty.experiment", "arms": arms}

    def records(self) -> Iterator[bytes]:
        """The replies still kept, a line each, as an evaluation's log has them."""
        for record in list(self._kept.values()):
            yield write(record) + b"\n"

    def _unit(self, request: ChatRequest, headers: Mapping[str, str]) -> str:
        named = headers.get(self._header) or request.get("user") or request.get("safety_identifier")
        return str(named) if named else uuid.uuid4().hex

    def _keep(self, run: AnyRun, error: str | None, usage: dict[str, int]) -> None:
        honesty, trace = run.honesty, run.honesty.trace
        told = replace(honesty, reason=reason_of(honesty)).body()
        told["doubts"] = _kinds(told["doubts"])
        del told["steps"]
        record: dict[str, Any] = {
            "type": "answer",
            "sample": trace.id,
            "arm": trace.arm,
            "honesty": told,
        }
        record |= {"text": None if error else "", "error": error, "usage": usage}
        self._kept[trace.id] = record | {"calls": len(trace.steps), "seconds": told["seconds"]}
        if len(self._kept) > KEPT:
            gone, _ = self._kept.popitem(last=False)
            self._askers.pop(gone, None)


@router.post("/v1/honesty/feedback")
async def feedback(request: Request) -> Response:
    """A vote for a reply: `{"trace_id": …, "vote": "up" | "down", "comment": …}`."""
    try:
        given = Feedback.model_validate_json(await _body(request))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "body"
        raise InvalidRequest(f"feedback: {where}: {first['msg']}", param=where) from None
    _running(request).vote(given, request.scope["caller"])
    return Response(status_code=204)


@router.get("/v1/honesty/experiment")
async def experiment(request: Request) -> dict[str, Any]:
    """How each arm has fared."""
    return _running(request).told()


@router.get("/v1/honesty/experiment/records")
async def records(request: Request) -> Response:
    """The last replies, one JSON object a line: what `honestproxy report` reads."""
    return StreamingResponse(_lines(_running(request)), media_type="application/x-ndjson")


async def _lines(running: Experiment) -> Any:
    for line in running.records():
        yield line


async def _body(request: Request) -> bytes:
    return await json_body(request.scope, request.receive, request.headers)


def _running(request: Request) -> Experiment:
    found: Experiment = request.scope["service"].experiment
    if not found.shares:
        message = "no experiment runs; start one with `serve --experiment raw=50,gated=50`"
        raise InvalidRequest(message, status=404, code="no_experiment")
    return found


def _check_arm(name: str, allowed: Collection[str] | None) -> None:
    if name not in STRATEGIES:
        raise SettingsError(f"experiment: unknown arm {name!r}; {nearest(name, STRATEGIES)}")
    if allowed is not None and name not in allowed:
        raise SettingsError(
            f"experiment: the arm {name!r} is not among strategies_allowed "
            f"({', '.join(allowed)}), so every request that falls to it would be refused"
        )


def _check_read(settings: Settings, upstreams: Upstreams) -> None:
    """Of each upstream that a request may be for: a user's arm doesn't depend on the model."""
    routed = (name for name, each in settings.upstreams.items() if each.models)
    for name in (None, *routed):
        if not hasattr(upstreams.named(name), "read"):
            spec = blotted(settings.alone(name or DEFAULT_NAME).upstream)
            raise SettingsError(
                f"experiment: the arm {_READS!r} reads a model's hidden states, which {spec!r} "
                "doesn't show, so every request that falls to it would be refused"
            )


def _kinds(doubts: list[dict[str, Any]] | None) -> list[dict[str, Any]] | None:
    """Doubts without their statements, which may repeat what was asked."""
    return None if doubts is None else [{"kind": doubt["kind"]} for doubt in doubts]


def _usage(trace: Trace) -> dict[str, int]:
    """The tokens of all calls: counts alone, whatever else an upstream wrote among them."""
    told = [step.usage for step in trace.steps if step.usage]
    sums = ((name, summed(told, name)) for name in _TOKENS)
    return {name: taken for name, taken in sums if taken is not None}


def _quantiles(seconds: list[float]) -> dict[str, float | None]:
    if len(seconds) < 2:
        only = round(seconds[0], 4) if seconds else None
        return {"seconds_p50": only, "seconds_p95": only}
    cuts = statistics.quantiles(seconds, n=20, method="inclusive")
    return {"seconds_p50": round(cuts[9], 4), "seconds_p95": round(cuts[18], 4)}
