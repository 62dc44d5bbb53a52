import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError

import pytest

from honestproxy.cli.serve import url_of
from honestproxy.server.access import keys

GOLD = ("--upstream", "played:gold", "--port", "0")
ANSWERS_WITHIN = 20


@contextmanager
def serving(*words: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "honestproxy", "serve", *words]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def ready(process: subprocess.Popen[str]) -> dict[str, str]:
    line = process.stdout.readline()
    assert line, process.stderr.read()
    return json.loads(line)


def post(url: str, **body: object) -> dict[str, object]:
    data = json.dumps(body).encode()
    asked = urllib.request.Request(f"{url}/chat/completions", data)
    asked.add_header("Content-Type", "application/json")
    with urllib.request.urlopen(asked, timeout=ANSWERS_WITHIN) as answer:
        return json.load(answer)


def test_the_json_line_comes_when_it_answers():
    with serving(*GOLD, "--json") as process:
        said = ready(process)
        assert (said["model"], said["strategy"]) == ("gold-1", "gated")
        asked = [{"role": "user", "content": "What is the price of gold?"}]
        answer = post(said["url"], model="gold-1@curiosity", messages=asked)
        assert answer["honesty"]["strategy"] == "curiosity"
        assert answer["choices"][0]["message"]["content"] == "I can't see today's price."


def test_it_says_how_to_try_it_with_the_actual_model_and_port():
    with serving(*GOLD, "--strategy", "curiosity") as process:
        said = ""
        while "Ctrl-C" not in said:
            said += process.stdout.readline()
        url = said.split()[3]
        port = url.removesuffix("/v1").rpartition(":")[2]
        assert int(port) > 0
        assert f"curl {url}/chat/completions" in said
        assert f'OpenAI(base_url="{url}"' in said
        assert '"model": "gold-1"' in said
        assert "strategy curiosity" in said
        assert f"at {url.removesuffix('v1')}\n" in said


@pytest.mark.skipif(os.name == "nt", reason="signals")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_it_stops_quietly_when_told(number, code):
    with serving(*GOLD, "--json") as process:
        ready(process)
        process.send_signal(number)
        assert process.wait(ANSWERS_WITHIN) == code
        assert process.stderr.read() == ""


@dataclass(frozen=True)
class Deaf:
    """An upstream that takes a request and never answers."""

    url: str
    asked: threading.Event


@contextmanager
def deaf() -> Iterator[Deaf]:
    """A deaf upstream; gone, its sockets too, when this ends."""
    ended = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(ANSWERS_WITHIN)
        upstream = Deaf(f"http://127.0.0.1:{listener.getsockname()[1]}/v1", threading.Event())

        def listen() -> None:
            with suppress(TimeoutError), listener.accept()[0] as connection:
                connection.recv(100)
                upstream.asked.set()
                ended.wait()

        thread = threading.Thread(target=listen)
        thread.start()
        try:
            yield upstream
        finally:
            ended.set()
            thread.join()


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_a_second_ctrl_c_ends_it_at_once_without_a_word():
    with deaf() as upstream:
        words = ("--upstream", upstream.url, "--model", "m", "--strategy", "raw", "--port", "0")
        with serving(*words, "--json", "--shutdown-timeout", "50") as process:
            asking = threading.Thread(target=_asked_in_vain, args=(ready(process)["url"],))
            asking.start()
            assert upstream.asked.wait(ANSWERS_WITHIN)
            process.send_signal(signal.SIGINT)
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(0.5)
            process.send_signal(signal.SIGINT)
            assert process.wait(ANSWERS_WITHIN) == 130
            assert process.stderr.read() == ""
            asking.join(ANSWERS_WITHIN)


def _asked_in_vain(url: str) -> None:
    with suppress(OSError, HTTPException):
        post(url, model="m", messages=[{"role": "user", "content": "Hello!"}])


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_a_hangup_loads_its_settings_anew_and_says_what_has_changed(home):
    config = home / "own.toml"
    config.write_text('strategy = "raw"\n')
    with serving(*GOLD, "--json", "--config", str(config), "--threshold", "0.7") as process:
        url = ready(process)["url"]
        for text, says in (
            ('strategy = "curiosity"\nthreshold = 0.2\n', "reloaded: strategy changed"),
            ("\nstratgy = 'raw'\n", f"{config}:2: unknown setting 'stratgy'"),
        ):
            config.write_text(text)
            process.send_signal(signal.SIGHUP)
            assert says in process.stderr.readline()
            asked = [{"role": "user", "content": "What is the price of gold?"}]
            answer = post(url, model="gold-1", messages=asked)
            assert answer["honesty"]["strategy"] == "curiosity"


@contextmanager
def taken_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        yield taken.getsockname()[1]


def refused(config: Path, text: str) -> str:
    config.write_text(f'# mine\nupstream = "played:gold"\n{text}\n', "utf-8")
    with serving("--config", str(config)) as process:
        assert process.wait(ANSWERS_WITHIN) == 2
        return process.stderr.read()


def test_what_only_serving_shows_to_be_wrong_is_told_with_file_line_and_key(home):
    config, made = home / "own.toml", home / "keys.jsonl"
    keys.create(made)
    made.write_text("no key\n", "utf-8")
    with closing(sqlite3.connect(home / "others.db")) as others:
        others.execute("CREATE TABLE of_others (x)")
    with taken_port() as port:
        said = refused(config, f"port = {port}")
    assert said.startswith(f"error: {config}:3: port: can't listen on port {port}")
    store = f"sqlite:///{(home / 'others.db').as_posix()}"
    said = refused(config, f"port = 0\ntrace_store = '{store}'")
    assert said.startswith(f"error: {config}:4: trace_store: ")
    said = refused(config, f"port = 0\nkeys = '{made}'")
    assert said.startswith(f"error: {config}:4: keys: {made}, line 1: ")
    assert refused(config, "host = '0.0.0.0'").startswith(f"error: {config}:3: host: ")


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_a_hangup_that_finds_no_keys_says_where_they_were_named(home):
    config = home / "own.toml"
    config.write_text("", "utf-8")
    with serving(*GOLD, "--json", "--config", str(config)) as process:
        ready(process)
        config.write_text("\nkeys = 'nowhere.jsonl'\n", "utf-8")
        process.send_signal(signal.SIGHUP)
        assert f"{config}:2: keys: nowhere.jsonl doesn't exist" in process.stderr.readline()


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_a_hangup_says_where_what_only_use_shows_to_be_wrong_was_named(home):
    config, stray = home / "own.toml", home / "own" / "gated" / "stray.md"
    stray.parent.mkdir(parents=True)
    stray.write_text("Hello.", "utf-8")
    config.write_text("", "utf-8")
    with serving(*GOLD, "--json", "--config", str(config)) as process:
        ready(process)
        for line, says in (
            ("prompts = 'nowhere'", "prompts: prompt folder nowhere is not a folder"),
            ("prompts = 'own'", f"prompts: {stray.relative_to(home)}: overrides nothing"),
            ("answer_cache = 'disk'", "answer_cache: give memory"),
        ):
            config.write_text(f"\n{line}\n", "utf-8")
            process.send_signal(signal.SIGHUP)
            assert f"{config}:2: {says}" in process.stderr.readline()


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_a_hangup_takes_no_keys_away_while_others_can_reach_it(home):
    config, made = home / "own.toml", home / "keys.jsonl"
    keys.create(made)
    elsewhere = "127.1"  # 127.0.0.1, but only a resolver knows that
    config.write_text(f"host = '{elsewhere}'\nkeys = '{made}'\n", "utf-8")
    with serving(*GOLD, "--json", "--config", str(config)) as process:
        url = ready(process)["url"]
        config.write_text("host = '127.0.0.1'\n", "utf-8")
        process.send_signal(signal.SIGHUP)
        said = process.stderr.readline()
        assert f"not reloaded, all goes on as before: {config}:1: host: host '{elsewhere}'" in said
        with pytest.raises(HTTPError, match="401"):
            post(url, model="gold-1", messages=[{"role": "user", "content": "Hello"}])


@pytest.mark.skipif(sys.platform != "linux", reason="terminals differ")
def test_when_its_terminal_is_closed_it_ends():
    terminal, inside = os.openpty()
    starts = (
        "import os, sys; os.open(os.ttyname(0), os.O_RDWR); os.execv(sys.argv[1], sys.argv[1:])"
    )
    command = [sys.executable, "-m", "honestproxy", "serve", *GOLD, "--json"]
    process = subprocess.Popen(
        [sys.executable, "-c", starts, *command],
        stdin=inside,
        stdout=inside,
        stderr=inside,
        start_new_session=True,  # so that the terminal becomes its own
    )
    os.close(inside)
    said = b""
    while b"strategy" not in said:
        said += os.read(terminal, 1000)
    os.close(terminal)
    assert process.wait(ANSWERS_WITHIN) == 0


def test_a_taken_port_is_told_before_anything_is_loaded(cli):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = cli("serve", "--upstream", "played:nobody", "--port", port)
    assert done.exit_code == 2
    assert f"port {port} of 127.0.0.1" in done.stderr
    assert "--port 0" in done.stderr


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["--strategy", "gatde"], "did you mean 'gated'?"),
        (["--strategies-allowed", "raw,gatde"], "did you mean 'gated'?"),
        (["--upstream", "nonsense"], "a URL such as"),
        (["--upstream", "local:./nowhere"], "nowhere"),
        (["--host", "no.such.host.invalid"], "no.such.host.invalid"),
        (["--port", "99999"], "port"),
        (["--port", "many"], "port"),
        (["--prompts", "nowhere"], "nowhere"),
        (["--prompt-set", "poetry"], "prompt_set"),
        (["--reply", "loudly"], "reply"),
        (["--config", "gone.toml"], "gone.toml"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(cli, words, hint):
    done = cli("serve", "--port", "0", *words)
    assert done.exit_code == 2
    assert hint in done.stderr
    assert done.stderr.startswith("error: ")
    assert done.stdout == ""


def test_with_a_url_upstream_it_is_ready_without_torch():
    with serving("--upstream", "http://127.0.0.1:9/v1", "--port", "0", "--json") as process:
        said = ready(process)
        assert said["model"] is None
        if sys.platform == "linux":
            assert "libtorch" not in Path(f"/proc/{process.pid}/maps").read_text("utf-8")


def test_it_warns_where_other_machines_can_reach_it():
    with serving(*GOLD, "--host", "0.0.0.0", "--allow-open") as process:
        assert "127.0.0.1" in process.stdout.readline()
        assert "listening on 0.0.0.0" in process.stderr.readline()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "proxy.example", ""])
def test_without_keys_it_listens_on_this_machine_alone(cli, host):
    done = cli("serve", *GOLD, "--host", host)
    assert done.exit_code == 2
    assert "honestproxy keys create" in done.stderr
    assert "--allow-open" in done.stderr


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8400/v1"),
        ("0.0.0.0", "http://127.0.0.1:8400/v1"),
        ("::", "http://[::1]:8400/v1"),
        ("localhost", "http://localhost:8400/v1"),
    ],
)
def test_the_url_is_one_that_a_client_can_use(host, url):
    assert url_of(host, 8400) == url


def traces_of(cli, *words):
    return json.loads(cli("traces", "--json", *words).stdout)["traces"]


def test_what_it_answers_is_stored_in_the_users_own_folder_without_texts(cli, home):
    with serving(*GOLD, "--json") as process:
        asked = [{"role": "user", "content": "What is the price of gold?"}]
        answer = post(ready(process)["url"], model="gold-1", messages=asked)
        process.terminate()
        process.wait(ANSWERS_WITHIN)
    (found,) = traces_of(cli)
    assert found["trace_id"] == answer["honesty"]["trace_id"]
    assert found["outcome"] == answer["honesty"]["outcome"]
    folder = home / "data" / "honestproxy"
    assert {file.stat().st_mode & 0o077 for file in folder.iterdir()} == {0}
    assert b"price of gold" not in b"".join(file.read_bytes() for file in folder.iterdir())


def test_without_traces_no_file_is_made(home):
    with serving(*GOLD, "--json", "--traces", "off") as process:
        ready(process)
    assert not (home / "data").exists()


def test_a_key_in_the_upstreams_query_is_not_shown():
    address = "http://127.0.0.1:9/v1?api_key=planted"
    with serving("--upstream", address, "--strategy", "raw", "--port", "0") as process:
        told = [process.stdout.readline() for _ in range(3)]
        process.terminate()
        said = "".join(told) + process.stdout.read() + process.stderr.read()
    assert "api_key=***" in said
    assert "planted" not in said


def test_a_host_that_can_be_no_name_is_one_line(cli):
    done = cli("serve", *GOLD, "--host", "a..b", "--allow-open")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "host 'a..b' is not an address here" in done.stderr


def test_a_folder_that_may_not_be_written_is_said_and_costs_only_the_traces(home, monkeypatch):
    (home / "file").write_text("in the way")
    monkeypatch.setenv("XDG_DATA_HOME", str(home / "file"))
    with serving(*GOLD, "--json") as process:
        assert ready(process)["model"] == "gold-1"
        process.terminate()
        assert "no traces are stored" in process.stderr.read()


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("mysql://root:planted@127.0.0.1/x", "'mysql' is not known here"),
        ("sqlite:///notes.txt", "not a database"),
        ("postgresql://app:planted@127.0.0.1:9/x", "postgresql://app:***@127.0.0.1:9/x can't be"),
    ],
)
def test_a_trace_store_that_is_none_of_ours_is_one_line_and_exit_code_2(cli, home, url, says):
    (home / "notes.txt").write_text("Dear diary, " * 100)
    done = cli("serve", *GOLD, "--trace-store", url)
    assert (done.exit_code, done.stdout) == (2, "")
    assert says in done.stderr
    assert "planted" not in done.stderr
    assert len(done.stderr.splitlines()) == 1
