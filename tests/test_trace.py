"""The ids of requests: in order of time, and none of them twice, in whichever process."""

import os
import subprocess
import sys

import pytest

from honestproxy.trace import new_id

FORKING = """
import os
from honestproxy.trace import new_id
before, is_child = new_id(), os.fork() == 0
ids = [before] * (not is_child) + [new_id() for _ in range(600)]
os.write(1, "".join(f"{name[12:]}\\n" for name in ids).encode())
if not is_child:
    os.wait()
"""


def test_an_id_is_of_32_hex_digits_and_comes_once():
    ids = [new_id() for _ in range(1000)]
    assert len(set(ids)) == 1000
    assert all(len(name) == 32 and int(name, 16) for name in ids)


def test_ids_begin_with_their_time():
    ids = [new_id()[:12] for _ in range(1000)]
    assert ids == sorted(ids)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_process_gives_none_of_its_parents_ids():
    told = subprocess.run([sys.executable, "-c", FORKING], capture_output=True, check=True)
    ids = told.stdout.split()
    assert len(ids) == len(set(ids)) == 1201
