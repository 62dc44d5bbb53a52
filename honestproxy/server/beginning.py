"""From a request to the turn that answers it: its model, its key's scope, its arm, and the load."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from honestproxy.pipeline import AnyRun
from honestproxy.server import degrading
from honestproxy.server.access.caller import Caller
from honestproxy.server.account import Account
from honestproxy.server.seeing.logs import TRACE
from honestproxy.types import ChatRequest

if TYPE_CHECKING:
    from honestproxy.server.service import Service


async def begun(service: Service, account: Account, headers: Mapping[str, str]) -> AnyRun:
    """The turn that answers, not sent yet. Raises InvalidRequest or Forbidden."""
    assert account.asked is not None  # noqa: S101 - has been read by now
    resolved = await service.catalog.resolved(account.asked)
    account.caller.check_model(resolved.model)
    request, arm = service.experiment.assigned(resolved, headers, account.caller)
    run = service.pipeline.run(request)
    account.caller.check_strategy(run.honesty.trace.strategy)
    if service.settings.degrade and service.admission.pressure:
        run, arm = _lessened(service, account.caller, request, run, arm)
    account.asked, account.run = request, run
    account.upstream = service.pipeline.of(request.model).settings.upstream
    run.honesty.trace.arm = arm
    TRACE.set(run.honesty.trace.id)
    if account.spans is not None:
        account.spans.upstream = account.upstream
        run.honesty.trace.watch = account.spans.call
    if account.recording is not None:
        account.recording.run = run
    return run


def _lessened(
    service: Service, caller: Caller, request: ChatRequest, run: AnyRun, arm: str | None
) -> tuple[AnyRun, str | None]:
    """What answers under load, and its arm: none where it isn't the arm's own strategy."""
    allowed, wanted = service.settings.strategies_allowed, run.honesty.trace.strategy

    def may(name: str) -> bool:
        return (allowed is None or name in allowed) and name in caller.strategies_of([name])

    found = degrading.lesser(wanted, service.admission.pressure, may)
    if found == wanted:
        return run, arm
    less = service.pipeline.run(degrading.by(found, request))
    less.honesty.trace.note = degrading.note(wanted, found)
    return less, None
