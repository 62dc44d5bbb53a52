"""Log lines of a proxy that runs in a process of its own, as they come on stderr."""

import asyncio
import json
import logging
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from honestproxy.backends.scripted import Scripted
from honestproxy.server.seeing.logs import AsJson, AsText, configure
from honestproxy.settings import Settings
from tests.collector import collector
from tests.proxy import ask, proxy, script
from tests.proxy import serving as proxied
from tests.upstreams import Reply, answer, event

ANSWERS_WITHIN = 20


@contextmanager
def logging_as(**settings: str) -> Iterator[None]:
    """This process's log lines as `serve` writes them, until the end."""
    root = logging.getLogger()
    before, level, ours = list(root.handlers), root.level, logging.getLogger("honestproxy")
    configure(Settings(**settings))
    try:
        yield
    finally:
        root.handlers[:] = before
        root.setLevel(level)
        ours.setLevel(logging.NOTSET)


def lines(captured: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in captured.splitlines()]


@contextmanager
def serving(*words: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    command = [sys.executable, "-m", "honestproxy", "serve", "--upstream", "tests.played:gold"]
    command += ["--port", "0", "--json", "--traces", "off", *words]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            yield process, json.loads(process.stdout.readline())["url"]
        finally:
            process.kill()


def post(url: str, body: bytes, **headers: str) -> int:
    asked = urllib.request.Request(f"{url}/chat/completions", body, headers)
    asked.add_header("Content-Type", "application/json")
    try:
        with urllib.request.urlopen(asked, timeout=ANSWERS_WITHIN) as got:
            return got.status
    except urllib.error.HTTPError as error:
        return error.code


def said_by(*words: str) -> str:
    """What `serve` logs of a good request and of one that isn't JSON."""
    with serving(*words) as (process, url):
        body = json.dumps(ask("secret-question", model="gold-1")).encode()
        assert post(url, body, **{"X-Request-Id": "r-1", "Authorization": "Bearer secret"}) == 200
        assert post(url, b"{") == 400
        process.terminate()
        return process.communicate(timeout=ANSWERS_WITHIN)[1]


def test_serve_logs_nothing_of_requests_unless_it_is_asked_to():
    assert said_by() == ""


def test_serve_logs_each_request_as_json():
    good, bad = lines(said_by("--log-level", "info", "--log-format", "json"))
    assert good.keys() >= {"time", "trace_id", "seconds"}
    known = {"level": "info", "logger": "honestproxy.access", "message": "request", "api": "chat"}
    known |= {"status": 200, "strategy": "gated", "outcome": "rewritten", "model": "gold-1"}
    assert good.items() >= (known | {"request_id": "r-1", "failed": False}).items()
    assert bad.items() >= {"status": 400, "outcome": "error", "failed": True}.items()
    assert "trace_id" not in bad
    assert "secret" not in json.dumps([good, bad])


def test_serve_logs_each_request_as_text():
    good, bad = said_by("--log-level", "info").splitlines()
    assert " INFO honestproxy.access request " in good
    assert " status=200 strategy=gated outcome=rewritten model=gold-1 " in good
    assert good.endswith(" request_id=r-1")
    assert " status=400 " in bad


async def test_debug_has_a_line_for_each_call_with_the_requests_trace(capsys):
    settings = {"log_level": "debug", "log_format": "json"}
    with logging_as(**settings):
        async with proxy(script(), **settings) as running:
            await running.post(ask("secret-question"))
        told = lines(capsys.readouterr().err)
    assert [line.get("step") for line in told] == ["draft", "confusion", None]
    assert {line["trace_id"] for line in told} == {told[-1]["trace_id"]}
    assert (told[0]["input_tokens"], told[0]["output_tokens"]) == (5, 2)


@pytest.mark.parametrize("log_format", ["text", "json"])
@pytest.mark.parametrize("strategy", ["raw", "gated"])
async def test_nothing_that_was_said_is_logged_at_any_level(capfd, log_format, strategy):
    settings = {"log_level": "debug", "log_format": log_format}
    broken = Reply(
        [event({"choices": [{"index": 0, "delta": {"content": "secret-answer"}}]})],
        content_type="text/event-stream",
        then="drop",
    )
    refused = answer({"error": {"message": "secret-words", "code": "secret-code"}}, status=400)
    with logging_as(**settings):
        for reply in (broken, refused, answer(b"secret-nonsense"), Reply(then="drop")):
            async with proxy(lambda _, reply=reply: reply, **settings) as running:
                for streamed in (True, False):
                    body = ask("secret-question", stream=streamed, user="secret-user")
                    headers = {"Authorization": "Bearer secret-key"}
                    url = f"{running.url}/chat/completions?secret-query"
                    wish = {"honesty": {"strategy": strategy}}
                    async with running.session.post(url, json=body | wish, headers=headers) as got:
                        await got.read()
                async with running.session.post(f"{running.url}/secret-path", json=body) as got:
                    await got.read()
    captured = capfd.readouterr()
    assert captured.err.count("honestproxy.access") >= 8
    assert "secret" not in captured.out + captured.err


class Buggy(Scripted):
    """A backend whose errors repeat what it was asked."""

    async def complete(self, request):
        raise KeyError(request.messages[0]["content"])


async def test_a_bug_is_told_by_kind_and_place_and_not_in_its_own_words(capsys):
    body = json.dumps(ask("secret-question", honesty={"strategy": "raw"})).encode()
    with logging_as(log_format="json"):
        async with proxied(Settings(), Buggy([])) as url:
            assert await asyncio.to_thread(post, url, body) == 502
        (line,) = lines(capsys.readouterr().err)
    assert line["exception"][-1] == "KeyError"
    assert any("test_logs.py" in place for place in line["exception"])
    assert line["trace_id"]
    assert "secret" not in json.dumps(line)


def record(message: str, name: str = "honestproxy.x", **facts: object) -> logging.LogRecord:
    made = logging.LogRecord(name, logging.WARNING, __file__, 1, message, (), None)
    made.facts = facts or None
    return made


@pytest.mark.parametrize("character", ["\n", "\r", "\x1b", "\x85", "\u2028", "\u202e", "\ud800"])
def test_nothing_in_a_line_of_text_can_begin_another_or_command_a_terminal(character):
    told = AsText().format(record(f"a{character}b", model=f"c{character}d"))
    assert character not in told
    assert len(told.splitlines()) == 1
    json.loads(AsJson().format(record(f"a{character}b", model=f"c{character}d")))


def test_values_with_blanks_are_quoted_and_long_ones_cut():
    told = AsText().format(record("m", model='a "b" status=200', request_id="x" * 1000))
    assert 'model="a \\"b\\" status=200"' in told
    assert len(told) < 500


def test_of_others_only_the_first_line_of_warnings_is_told(capsys):
    with logging_as(log_level="debug"):
        other = logging.getLogger("httpx")
        other.info("secret-info")
        other.debug("secret-debug")
        other.warning("It failed\nsecret-body")
        logging.getLogger("honestproxy.x").debug("ours")
        told = capsys.readouterr().err
    assert "It failed" in told
    assert "ours" in told
    assert "secret" not in told


def test_configuring_once_more_changes_what_is_told(capsys):
    with logging_as(log_level="info"):
        configure(Settings(log_level="warning", log_format="json"))
        logging.getLogger("honestproxy.x").info("not told")
        logging.getLogger("honestproxy.x").warning("told once")
        (line,) = lines(capsys.readouterr().err)
    assert line["message"] == "told once"


async def test_a_header_that_a_client_got_wrong_is_nothing_to_log(capsys):
    good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    async with collector() as found, proxy(script(), otlp_endpoint=found.url) as running:
        with logging_as():
            await running.post(ask(), traceparent=good, tracestate="secret-state,secret=\tx")
            await running.post(ask(), traceparent="secret" * 200)
            assert capsys.readouterr().err == ""
    assert len(found.of("SERVER")) == 2
