"""Which upstream a request is for, and which one has answered it: a fallback may have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from honestproxy.backends.failover import HEADER
from honestproxy.settings import DEFAULT_NAME

if TYPE_CHECKING:
    from honestproxy.pipeline import AnyRun
    from honestproxy.server.account import Account
    from honestproxy.settings import Settings
    from honestproxy.trace import Step


class Origins:
    """The upstreams of some settings: what they are called, and the specs that lead to them."""

    def __init__(self, settings: Settings) -> None:
        others = {name: upstream.url for name, upstream in settings.upstreams.items()}
        self.specs: Mapping[str, str] = {DEFAULT_NAME: settings.upstream} | others
        tables = settings.upstreams.values()
        self.has_fallbacks = bool(settings.fallbacks) or any(each.fallbacks for each in tables)

    def of(self, account: Account) -> str:
        """Where an answer came from; where there is none, where it would have."""
        run = account.run
        steps = run.honesty.trace.steps if run else ()
        if run is None or not steps:
            return self._meant(account)
        return self.of_call(steps[-1 if run.honesty.outcome == "rewritten" else 0], account)

    def of_call(self, step: Step, account: Account) -> str:
        """The same of one call."""
        name = _stood_in(step, account.run) if self.has_fallbacks and account.run else None
        return self.specs.get(name or "") or self._meant(account)

    def _meant(self, account: Account) -> str:
        return account.upstream or self.specs[DEFAULT_NAME]


def _stood_in(step: Step, run: AnyRun) -> str | None:
    """The name of the upstream that answered a call in another's place."""
    if step.response is not None:
        return step.response.headers.get(HEADER)
    return run.headers.get(HEADER) if run.verbatim else None
