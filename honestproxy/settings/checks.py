"""What settings must agree on among themselves: names that are used are defined, and lead on."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from honestproxy.settings.fields import DEFAULT_NAME, STRATEGY_NAMES, Settings
from honestproxy.settings.lines import Key
from honestproxy.settings.words import nearest

Mistake = tuple[Key, str]


def mistakes(settings: Settings, defined: Collection[str]) -> Iterator[Mistake]:
    """Each key whose value names what isn't there; `defined` are the upstreams that are."""
    if DEFAULT_NAME in defined:
        yield ("upstreams", DEFAULT_NAME), "that is what `upstream` is called: take another name"
    yield from _undefined(settings, defined)
    lists = {name: each.fallbacks for name, each in settings.upstreams.items()}
    yield from _cycles({DEFAULT_NAME: settings.fallbacks, **lists})
    yield from _unknown_strategies(settings)


def _undefined(settings: Settings, defined: Collection[str]) -> Iterator[Mistake]:
    lists: dict[Key, tuple[str, ...]] = {("fallbacks",): settings.fallbacks}
    for name, upstream in settings.upstreams.items():
        lists["upstreams", name, "fallbacks"] = upstream.fallbacks
    for key, names in lists.items():
        for number, name in enumerate(names):
            if name not in defined and (name, len(key)) != (DEFAULT_NAME, 3):
                hint = nearest(name, defined) if defined else "no [upstreams.NAME] is"
                yield (*key, number), f"upstream {name!r} is named but not defined; {hint}"
            elif name in names[:number]:
                yield (*key, number), f"upstream {name!r} stands there twice"


def _cycles(fallbacks: Mapping[str, tuple[str, ...]]) -> Iterator[Mistake]:
    told: set[frozenset[str]] = set()
    for start in fallbacks:
        cycle = _cycle(start, fallbacks)
        if cycle and frozenset(cycle) not in told:
            told.add(frozenset(cycle))
            shown = " → ".join((*cycle, cycle[0]))
            key: Key = ("upstreams", start, "fallbacks")
            is_default = start == DEFAULT_NAME
            yield key[2:] if is_default else key, f"fallbacks lead in a circle: {shown}"


def _cycle(start: str, fallbacks: Mapping[str, tuple[str, ...]]) -> list[str]:
    """A way along fallbacks from an upstream back to it; empty where there is none."""
    ways, seen = [[start]], {start}
    while ways:
        way = ways.pop(0)
        for name in fallbacks.get(way[-1], ()):
            if name == start:
                return way
            if name not in seen:
                seen.add(name)
                ways.append([*way, name])
    return []


def _unknown_strategies(settings: Settings) -> Iterator[Mistake]:
    named: dict[Key, str | None] = {("strategy",): settings.strategy}
    named |= {("strategies_allowed", n): s for n, s in enumerate(settings.strategies_allowed or ())}
    named |= {("experiment", name): name for name in settings.experiment or ()}
    named |= {("models", name, "strategy"): rule.strategy for name, rule in settings.models.items()}
    for key, name in named.items():
        if name is not None and name not in STRATEGY_NAMES:
            yield key, f"unknown strategy {name!r}; {nearest(name, STRATEGY_NAMES)}"
