"""Who is measured: straight to the upstream, this proxy, and each peer that is installed."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec

from honestproxy.server.access import keys
from wire.processes import NotReady, Server, Upstream, free_port
from wire.script import Script

PEERS = Path(__file__).parent.parent.parent / ".venv-peers"
SYSTEM = "You are a helpful assistant of a shop for gardeners. Answer briefly and in plain words."
QUESTION = "What does a bag of the cheapest potting soil cost at the moment, and is it any good?"
DRAFT, MERGE = "This is the draft", "This is the merge"


@dataclass(frozen=True)
class Contender:
    """One row: a way to have a request answered."""

    name: str
    server: str
    """The server that it is one way to use; "" is the upstream itself."""
    headers: dict[str, str] = field(default_factory=dict)
    model: str = "m"
    expect: str = DRAFT

    def body(self, script: Script | None = None, **more: Any) -> dict[str, Any]:
        """A short conversation, such as an app sends."""
        text = QUESTION if script is None else f"{QUESTION} {script}"
        system, user = {"role": "system", "content": SYSTEM}, {"role": "user", "content": text}
        return {"model": self.model, "messages": [system, user], "temperature": 0.7, **more}


def _ours(strategy: str, expect: str = DRAFT) -> Contender:
    return Contender(f"ours, {strategy}", "ours", {"X-Honesty": strategy}, expect=expect)


DIRECT = Contender("direct", "")
RAW, GATED, CURIOSITY = _ours("raw"), _ours("gated"), _ours("curiosity", MERGE)
_KEY, _KEPT = keys.made()
_KEYED = {"Authorization": f"Bearer {_KEY}"}
KEYED = Contender("ours with keys", "keyed", {**RAW.headers, **_KEYED})
KEYED_CURIOSITY = Contender(
    "ours with keys, curiosity", "keyed", {**CURIOSITY.headers, **_KEYED}, expect=MERGE
)
LITELLM = Contender("LiteLLM", "litellm")
OPTILLM = Contender("OptiLLM, none", "optillm", model="none-m")
OPTILLM_MOA = Contender("OptiLLM, moa", "optillm", model="moa-m")
ALL = (DIRECT, RAW, GATED, CURIOSITY, KEYED, KEYED_CURIOSITY, LITELLM, OPTILLM, OPTILLM_MOA)

PEERS_ENVIRONMENT = {
    "OPENAI_API_KEY": "none",
    "PYTHONPATH": "",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_LOG": "ERROR",
    "LITELLM_MODE": "PRODUCTION",
}
"""What peers are told: no look-ups on the network, and as little logging as they offer."""


def _serve_ours(upstream: Upstream, port: int, folder: Path) -> list[str]:
    folder.mkdir(exist_ok=True)
    ours = Path(sys.executable).with_name("honestproxy")
    where = ["--upstream", upstream.url, "--port", str(port)]
    return [str(ours), "serve", *where, "--trace-store", f"sqlite:///{folder / 'traces.db'}"]


def _serve_keyed(upstream: Upstream, port: int, folder: Path) -> list[str]:
    file = folder / "keys.jsonl"
    file.touch(mode=0o600)
    file.write_bytes(msgspec.json.encode(_KEPT) + b"\n")
    command = _serve_ours(upstream, port, folder / "keyed")
    return [*command, "--keys", str(file)]


def _serve_patient(upstream: Upstream, port: int, folder: Path) -> list[str]:
    """Without the breaker: it leaves an upstream alone whose calls fail by script, all in a row."""
    config = folder / "patient.toml"
    config.write_text("breaker_failures = 0\n")
    return [*_serve_ours(upstream, port, folder / "patient"), "--config", str(config)]


def _serve_optillm(upstream: Upstream, port: int, _: Path) -> list[str]:
    where = ["--base-url", upstream.url, "--host", "127.0.0.1", "--port", str(port)]
    return [str(PEERS / "optillm/bin/optillm"), *where, "--log", "error"]


def _serve_litellm(upstream: Upstream, port: int, folder: Path) -> list[str]:
    config = folder / "litellm.yaml"
    parameters = f"model: openai/m, api_base: {upstream.url!r}, api_key: none"
    config.write_text(
        f"model_list: [{{model_name: m, litellm_params: {{{parameters}}}}}]\n"
        "general_settings: {dangerously_permit_weak_or_unset_master_key: true}\n"
    )
    command = str(PEERS / "litellm/bin/litellm")
    return [command, "--config", str(config), "--port", str(port), "--host", "127.0.0.1"]


SERVERS: dict[str, Callable[[Upstream, int, Path], list[str]]] = {
    "ours": _serve_ours,
    "keyed": _serve_keyed,
    "patient": _serve_patient,
    "litellm": _serve_litellm,
    "optillm": _serve_optillm,
}


OURS = ("ours", "keyed", "patient")


def installed(server: str) -> bool:
    """Whether there is such a server to start."""
    return server in ("", *OURS) or (PEERS / server / "bin" / server).exists()


def version(server: str) -> str:
    """The version of a peer that is installed."""
    found = sorted((PEERS / server).glob(f"lib/python*/site-packages/{server}-*.dist-info"))
    return found[-1].name.removesuffix(".dist-info").partition("-")[2] if found else "?"


@contextmanager
def started(
    contenders: list[Contender], upstream: Upstream, say: Callable[[str], None]
) -> Iterator[dict[str, Server]]:
    """All servers that these contenders need, started one after another, ended in any case.

    A peer that can't be started is left out, and why is said.
    """
    running, tried = dict[str, Server](), set[str]()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="honestproxy-bench-")))
        for one in contenders:
            if one.server and one.server not in tried:
                tried.add(one.server)
                say(f"starting {one.server}")
                port = free_port()
                command = SERVERS[one.server](upstream, port, folder)
                env = {} if one.server in OURS else PEERS_ENVIRONMENT
                server = Server(command, port=port, folder=folder, **env)
                stack.callback(server.end)
                try:
                    server.until_ready(one.body(), one.headers, 300)
                    running[one.server] = server
                except NotReady as why:
                    if one.server in OURS:
                        raise
                    say(f"{one.server} can't be started: {why}\n")
        yield running
