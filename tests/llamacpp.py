"""A real llama.cpp server on loopback, answering with the embedded model."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from honestproxy.backends.local import embedded
from honestproxy.settings import Settings


def embedded_gguf() -> Path:
    """The embedded model's file: the one that HONESTPROXY_TEST_GGUF names, or the cache's."""
    named = os.environ.get("HONESTPROXY_TEST_GGUF")
    return Path(named) if named else embedded.gguf(Settings().cache)


@pytest.fixture(scope="session")
def llama_server() -> Iterator[str]:
    """The URL of a llama.cpp server, as an upstream's; one for the whole run."""
    if not os.environ.get("CI"):  # there it must be
        pytest.importorskip("xllamacpp")
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(embedded_gguf())
    params.model_alias = {"smollm2"}
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.n_ctx = 4096
    params.n_parallel = 2
    params.n_gpu_layers = 0
    for threads in (params.cpuparams, params.cpuparams_batch):
        threads.n_threads, threads.poll = 2, 0  # waiting threads leave the cores to others
    params.fit_params = params.warmup = params.ui = False
    params.verbosity = 0
    server = xllamacpp.Server(params)
    yield f"{server.listening_address}/v1"
    del server
