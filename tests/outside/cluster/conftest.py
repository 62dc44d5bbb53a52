"""A cluster of two nodes for the whole suite, in a namespace of its own (`spread.alone`)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from spread import nodes

nodes.prepare()  # before any module of tests imports Ray
TESTS = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def address() -> Iterator[str]:
    """Where the head of the cluster listens; `played:…` can be named as an upstream on it."""
    os.environ["PYTHONPATH"] = f"{TESTS}{os.pathsep}{TESTS.parent}"
    with nodes.two() as head:
        yield head
