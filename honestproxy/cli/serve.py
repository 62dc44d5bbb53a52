"""`honestproxy serve`: the proxy, listening."""

from __future__ import annotations

import asyncio
import errno
import gc
import signal
import socket
from collections.abc import Callable, Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any

from honestproxy.cli import question
from honestproxy.cli.options import COMMON, Json, told, with_settings
from honestproxy.cli.output import print_json, safe, stderr, stdout
from honestproxy.errors import HonestProxyError, SettingsError
from honestproxy.settings import Gathered, Settings, gather, in_order
from honestproxy.settings.references import blotted

if TYPE_CHECKING:
    from honestproxy.router import Pipelines
    from honestproxy.types import Backend

Gather = Callable[[], Gathered]

FLAGS = tuple(
    name
    for name in Settings.model_fields
    if name not in (*COMMON, "upstream_key", "upstreams", "models")
)
"""Every setting but those that are tables, and the key, which a list of processes would show."""

_LISTED_WITHIN = 0.5
"""Seconds to wait for the upstream's models before saying that the proxy is ready."""

_IN_THE_WAY = {
    errno.EADDRINUSE: "it is in use: stop what listens there, or pick another with "
    "--port (--port 0 takes a free one)",
    errno.EACCES: "this user may not listen there: pick a port above 1023 with --port",
    errno.EADDRNOTAVAIL: "this machine has no such address: pick another with --host",
}


@with_settings(*FLAGS, read=partial(partial, gather))
def serve(gathered: Gather, as_json: Json = False) -> None:
    """Start the proxy: point any OpenAI SDK's base_url at it."""
    settings = _checked(gathered)
    with listening(settings.host, settings.port) as listener:
        stopped_by = _run(_serve(gathered, settings, listener, as_json=as_json))
    if stopped_by == signal.SIGINT:
        raise KeyboardInterrupt


def _checked(gathered: Gather, listens_on: str | None = None) -> Settings:
    """The settings, now or once more. Raises SettingsError where they can't be served by.

    Once it listens, another host waits for a restart: keys must not go before that.
    """
    settings = in_order(gathered())
    question.check(settings)
    check_exposure(settings.model_copy(update={"host": listens_on or settings.host}))
    return with_trace_store(settings)


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens at once, so that a taken port is told before a model is loaded."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or "no such name can be"
        raise SettingsError(f"host {host!r} is not an address here: {why}", param="host") from None
    listener = socket.socket(family, kind, protocol)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
        listener.listen(2048)
    except OSError as error:
        listener.close()
        why = _IN_THE_WAY.get(error.errno or 0, error.strerror)
        wrong = "host" if error.errno == errno.EADDRNOTAVAIL else "port"
        raise SettingsError(f"can't listen on port {port} of {host}: {why}", param=wrong) from None
    listener.setblocking(False)
    return listener


def with_trace_store(settings: Settings) -> Settings:
    """The settings with a file of the user's own for traces, where they name no place.

    Where nothing can be written there, nothing is stored, and that is said.
    """
    if settings.trace_store is not None or settings.traces == "off":
        return settings
    from honestproxy.store.database import default_url, writable

    if trouble := writable(default_url()):
        _warn(f"no traces are stored: {trouble}; name a place with --trace-store")
        return settings
    return settings.model_copy(update={"trace_store": default_url()})


def url_of(host: str, port: int) -> str:
    """Where a client on this machine finds the proxy."""
    reachable = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)  # noqa: S104
    return (
        f"http://[{reachable}]:{port}/v1" if ":" in reachable else f"http://{reachable}:{port}/v1"
    )


def check_exposure(settings: Settings) -> None:
    """Raise SettingsError where whoever reaches this machine could spend the upstream's key.

    A name that isn't an address counts as open: where it leads may change.
    """
    if is_loopback(settings.host) or settings.keys or settings.allow_open:
        return
    raise SettingsError(
        f"host {settings.host!r} can be reached from other machines, and this proxy has no keys: "
        "make one with `honestproxy keys create --keys keys.jsonl` and serve with "
        "`--keys keys.jsonl`, or say `--allow-open` if everyone who reaches it may use it",
        param="host",
    )


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach it."""
    from honestproxy.server.access import guard  # and with it all that serving needs

    return guard.is_loopback(host)


def _run(main: Coroutine[Any, Any, int]) -> int:
    try:
        from uvloop import new_event_loop
    except ImportError:  # Windows
        return asyncio.run(main)
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(main)


async def _serve(
    gathered: Gather, settings: Settings, listener: socket.socket, *, as_json: bool
) -> int:
    """Serve until a signal ends it; which one."""
    from honestproxy.backends.upstreams import Upstreams
    from honestproxy.server import create_app
    from honestproxy.server.listening.running import Server
    from honestproxy.server.seeing.logs import configure

    configure(settings)
    upstreams = Upstreams(settings)
    app = create_app(settings, upstreams)

    async def ready() -> None:
        try:
            await question.loaded(settings, upstreams)
            await app.start()
        except BaseException:
            await app.service.aclose()
            raise
        _settle_memory()
        await _announce(settings, app.service.pipeline, listener, as_json=as_json)

    worded = partial(told, gathered=gathered)
    server = Server(app, partial(_checked, gathered, settings.host), worded)
    return await server.run_until_stopped(listener, ready)


async def _announce(
    settings: Settings, pipeline: Pipelines, listener: socket.socket, *, as_json: bool
) -> None:
    """Say that the proxy is ready, and where."""
    url = url_of(settings.host, listener.getsockname()[1])
    strategy = pipeline.default_strategy
    model, trouble = await _listed_model(settings, pipeline)
    if as_json:
        print_json({"url": url, "model": model, "strategy": strategy})
    else:
        _say_hello(settings, url, model, strategy, trouble)


def _settle_memory() -> None:
    """Spare streams the pauses of a full collection: tens of milliseconds, many times a minute.

    What is loaded by now stays anyway, and requests leave no cycles behind.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 10, 10)


async def _listed_model(settings: Settings, backend: Backend) -> tuple[str | None, str]:
    """The model to show in examples, or None and why: the upstream doesn't say, or not in time."""
    try:
        async with asyncio.timeout(_LISTED_WITHIN):
            return await question.pick_model(backend, settings), ""
    except TimeoutError:
        return None, "the upstream hasn't listed its models yet"
    except HonestProxyError as error:
        return None, error.message


def _say_hello(
    settings: Settings, url: str, model: str | None, strategy: str, trouble: str
) -> None:
    stdout().print(
        f"honestproxy listens on {url}\n"
        f"compare raw and wrapped answers at {url.removesuffix('v1')}\n"
        f"upstream {safe(', '.join((blotted(settings.upstream), *settings.upstreams)))} "
        f"· strategy {strategy}\n\n"
        f"{how_to_try(url, safe(model or 'MODEL'))}\n\nCtrl-C stops it.",
        soft_wrap=True,
    )
    if model is None:
        _warn(f"{safe(trouble)}; put the name of one of its models for MODEL")
    if settings.allow_open and not is_loopback(settings.host):
        _warn(
            f"listening on {settings.host} without keys: whoever reaches this machine can use the "
            "upstream with your key"
        )


def _warn(message: str) -> None:
    stderr().print(f"warning: {message}", style="yellow", soft_wrap=True)


def how_to_try(url: str, model: str) -> str:
    """A curl line and three lines of Python, ready to paste."""
    ask = "What is the price of gold right now?"
    return f"""\
curl {url}/chat/completions -H 'Content-Type: application/json' \\
  -d '{{"model": "{model}", "messages": [{{"role": "user", "content": "{ask}"}}]}}'

from openai import OpenAI
client = OpenAI(base_url="{url}", api_key="none")
print(client.chat.completions.create(model="{model}", messages=[
    {{"role": "user", "content": "{ask}"}}]).choices[0].message.content)"""
