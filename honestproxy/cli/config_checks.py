"""What of settings can be checked without connecting: folders, files, URLs, names."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing

from honestproxy.errors import HonestProxyError
from honestproxy.settings import DEFAULT_UPSTREAM, Gathered, Settings
from honestproxy.settings.lines import Key

Check = Callable[[Settings], object]


def mistakes(gathered: Gathered) -> Iterator[str]:
    """Each thing that would keep `serve` from starting, with the place that names it."""
    settings = gathered.settings
    for key, check in _CHECKS.items():
        if told := _told(check, settings):
            yield gathered.mistake(key, told.removeprefix(f"{key[-1]}: "))
    for key, alone in _upstreams(settings):
        if told := _told(_check_upstream, alone):
            yield gathered.mistake(key, told)
    for key, alone in _arms(settings):
        if told := _told(_check_arm, alone):
            yield gathered.mistake(key, told.removeprefix(f"{key[0]}: "))


def _told(check: Check, settings: Settings) -> str | None:
    try:
        check(settings)
    except HonestProxyError as error:
        return error.message
    return None


def _upstreams(settings: Settings) -> Iterator[tuple[Key, Settings]]:
    """Each upstream as if it were the only one."""
    yield ("upstream",), settings
    for name in settings.upstreams:
        yield ("upstreams", name, "url"), settings.alone(name)


def _check_upstream(settings: Settings) -> None:
    """Local models and modules of one's own are not loaded: that takes time, or runs code."""
    from honestproxy import backends

    _, _, rest = settings.upstream.partition(":")
    if _is_remote(settings) or not rest or rest.startswith("//"):
        backends.opened(settings)


def _is_remote(settings: Settings) -> bool:
    return settings.upstream.partition(":")[0] in ("http", "https", "litellm")


def _arms(settings: Settings) -> Iterator[tuple[Key, Settings]]:
    """Each arm as if it were the only one; what is no strategy has been told."""
    from honestproxy.strategies import STRATEGIES

    for name, share in (settings.experiment or {}).items():
        if name in STRATEGIES:
            alone = {"experiment": {name: share}}
            yield ("experiment", name), settings.model_copy(update=alone)


def _check_arm(settings: Settings) -> None:
    """What isn't opened here is believed to have what an arm needs, as the embedded model has."""
    from honestproxy.backends.upstreams import Upstreams
    from honestproxy.server.experiment import Experiment

    upstreams = {
        name: each.model_copy(update={"url": _stand_in(settings.alone(name)), "fallbacks": ()})
        for name, each in settings.upstreams.items()
    }
    alone = {"upstream": _stand_in(settings), "fallbacks": (), "upstreams": upstreams}
    settings = settings.model_copy(update=alone)
    Experiment(settings, Upstreams(settings))


def _stand_in(settings: Settings) -> str:
    """The upstream itself where it can be opened, else the embedded model."""
    is_in_order = _is_remote(settings) and _told(_check_upstream, settings) is None
    return settings.upstream if is_in_order else DEFAULT_UPSTREAM


def _check_prompts(settings: Settings) -> None:
    from honestproxy.templates import Prompts

    Prompts(settings.prompts).check()


def _check_exemplars(settings: Settings) -> None:
    from honestproxy.cli.question import check

    others = ("prompts", "strategy", "strategies_allowed")  # have been checked
    check(settings.model_copy(update=dict.fromkeys(others)))


def _check_keys(settings: Settings) -> None:
    from honestproxy.server.access import keys

    if settings.keys is not None:
        keys.read(settings.keys)


def _check_host(settings: Settings) -> None:
    from honestproxy.cli.serve import check_exposure

    check_exposure(settings)


def _check_trace_store(settings: Settings) -> None:
    from honestproxy.store.database import Database, located

    if settings.traces == "off":
        return
    with closing(Database(located(settings.trace_store))) as database:
        if database.is_sqlite:  # a file: nothing is connected to
            database.version()


def _check_answer_cache(settings: Settings) -> None:
    from honestproxy.server.cache.store import opened

    if settings.answer_cache is not None:
        opened(settings.answer_cache, settings.answer_cache_seconds)


_CHECKS: dict[Key, Check] = {
    ("prompts",): _check_prompts,
    ("exemplars",): _check_exemplars,
    ("keys",): _check_keys,
    ("host",): _check_host,
    ("trace_store",): _check_trace_store,
    ("answer_cache",): _check_answer_cache,
}
