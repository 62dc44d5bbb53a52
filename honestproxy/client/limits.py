"""Settings inside a program: limits that a server needs towards strangers are the caller's own."""

from __future__ import annotations

from typing import Final

from honestproxy.settings import Settings

_DAY: Final = 86400.0
_UNBOUND: Final = {
    "max_body_bytes": 1 << 40,
    "ping_interval": _DAY,
    "step_timeout": _DAY,
    "stream_head_wait": _DAY,
    "turn_timeout": _DAY,
}


def own(settings: Settings | None, strategy: str | None) -> Settings:
    """The settings, with `strategy` as their default one, and without limits that weren't set."""
    given = settings or Settings()
    free = {name: value for name, value in _UNBOUND.items() if name not in given.model_fields_set}
    chosen = {} if strategy is None else {"strategy": strategy}
    # A wrapped client writes nothing down, whatever the settings say that it shares with a server.
    silent = {"traces": "off", "trace_store": None}
    # Whatever a model is called, the client's own API answers.
    alone: dict[str, object] = {"upstreams": {}, "fallbacks": ()}
    return given.model_copy(update={**free, **chosen, **silent, **alone})
