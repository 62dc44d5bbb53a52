"""What is blotted out of stored texts, and what is left as it is."""

from __future__ import annotations

import time

import pytest

from honestproxy.errors import SettingsError
from honestproxy.server.traces.redaction import LONGEST, MARK, Redaction

SECRETS = [
    "sk-proj-abcDEF0123456789_-xyz",
    "sk-ant-api03-abcdefghijklmnop",
    "sk_live_0123456789abcdefghij",
    "hp-0123456789abcdefghij",
    "Bearer abcdef.123456~xyz",
    "bearer   abcdef0123456789",
    "Basic dXNlcjpwYXNzd29yZDEyMw==",
    "AKIAIOSFODNN7EXAMPLE",
    "ghp_0123456789abcdefghijABCDEFGHIJ012345",
    "github_pat_0123456789abcdefghijABCD",
    "glpat-0123456789abcdefghij",
    "xoxb-0123456789-abcdefghij",
    "AIzaSyA0123456789abcdefghijABCDEFGHIJ0123",
    "hf_0123456789abcdefghijABCD",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.abc-DEF_123",
    "-----BEGIN RSA PRIVATE KEY-----\nMIIEow+/IBAAK=\n-----END RSA PRIVATE KEY-----",
    'aws_secret_access_key = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"',
]


@pytest.mark.parametrize("secret", SECRETS)
def test_a_secret_is_gone_and_what_is_around_it_stays(secret: str) -> None:
    found = Redaction().text(f"Before: {secret}, and after.")
    assert found == f"Before: {MARK}, and after."


BEGIN, END = "-----BEGIN RSA PRIVATE KEY-----", "-----END RSA PRIVATE KEY-----"
LINE = "MIIJKAIBAAKCAgEA0123456789abcdefghijklmnopqrstuvwxyz+/ABCDEFGHIJ\n"


@pytest.mark.parametrize("lines", [1, 99, 200, 400])
def test_a_private_key_of_any_size_is_gone(lines: int) -> None:
    found = Redaction().text(f"Before: {BEGIN}\n{LINE * lines}{END}, and after.")
    assert found == f"Before: {MARK}, and after."


@pytest.mark.parametrize("head", ["", "Proc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,3A4B5C6D\n\n"])
def test_a_private_key_without_its_end_is_gone(head: str) -> None:
    cut = f"{BEGIN}\n{head}{LINE * 99}"[:-30]
    assert Redaction().text(f"Before: {cut}") == f"Before: {MARK}"
    assert Redaction().text(f"{cut}{BEGIN}{LINE}{END} after") == f"{MARK}{MARK} after"
    before = "x " * (LONGEST // 2 - 100)
    found = Redaction().text(f"{before}{BEGIN}\n{head}{LINE * 99}{END}")
    assert found.startswith(f"{before}{MARK} … [")
    assert Redaction().line(f"{BEGIN}\n{head}{LINE * 99}{END}") == MARK


def test_a_private_key_that_is_only_spoken_of_hides_nothing() -> None:
    text = f"My file begins with {BEGIN} and openssl says: no start line. What is wrong? " * 3
    assert Redaction().text(text) == text


@pytest.mark.parametrize(
    "part",
    [BEGIN, f"{BEGIN} {LINE}", f"{BEGIN} {'x' * 23 + ' '}", "-----BEGIN " * 5 + END, "-", LINE],
)
@pytest.mark.parametrize("first", ["", BEGIN])
def test_no_text_takes_long(first: str, part: str) -> None:
    text = (first + part * LONGEST)[:LONGEST]
    began = time.process_time()
    Redaction().text(text)
    assert time.process_time() - began < 1


def test_of_a_url_only_the_password_is_gone() -> None:
    told = Redaction().text("see postgresql://app:hunter2@db.example:5432/x?y=1")
    assert told == f"see postgresql://{MARK}@db.example:5432/x?y=1"


@pytest.mark.parametrize(
    "text",
    [
        "Ask the task-force to risk-assess https://example.org/a:b@c today.",
        "The bearer of good news; basic arithmetic; the secret key to success.",
        "sk-short, ghost, hp-12, AKIA, eyJust, hf_x",
        "A public key: -----BEGIN PUBLIC KEY-----",
        "",
    ],
)
def test_ordinary_text_is_left_as_it_is(text: str) -> None:
    assert Redaction().text(text) == text


def test_every_text_in_json_is_looked_at_and_its_shape_stays() -> None:
    secret = SECRETS[0]
    value = {"a": [secret, 1, None, True, {"b": f"x {secret}"}], secret: 0.5}
    assert Redaction().value(value) == {"a": [MARK, 1, None, True, {"b": f"x {MARK}"}], MARK: 0.5}


def test_patterns_of_ones_own_are_blotted_out_as_well() -> None:
    redaction = Redaction([r"(?i)project \w+", r"\d{4}-\d{4}"])
    assert redaction.text("Project Falcon, no. 1234-5678") == f"{MARK}, no. {MARK}"


@pytest.mark.parametrize(("pattern", "says"), [("a(b", "no pattern"), ("x*", "fits everywhere")])
def test_a_pattern_that_is_none_is_named(pattern: str, says: str) -> None:
    with pytest.raises(SettingsError, match=says) as raised:
        Redaction([pattern])
    assert repr(pattern) in raised.value.message
    assert raised.value.param == "redact"


def test_a_very_long_text_is_cut_and_says_so() -> None:
    secret = SECRETS[0]
    found = Redaction().text("x" * LONGEST + secret)
    assert found == "x" * LONGEST + f" … [{len(secret)} more characters]"


def test_names_are_as_any_database_takes_them() -> None:
    line = Redaction().line
    assert line("gpt-4o-mini") == "gpt-4o-mini"
    assert line("a\0b\ud800c – ü") == "a\ufffdb?c – ü"
    assert line("x" * 5000) == "x" * 1000
    assert line(f"model {SECRETS[0]}") == f"model {MARK}"
