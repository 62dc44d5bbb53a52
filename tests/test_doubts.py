"""Reading doubts: tolerant of form, strict about meaning."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from honestproxy.doubts import AfterLimits, doubtful, parse, settles_empty
from honestproxy.errors import StepFailed
from honestproxy.types import Doubt, Doubts

ONE = '{"doubts": [{"kind": "user_input", "statement": "No file."}], "confidence": 0.2}'
FOUND = Doubts((Doubt("user_input", "No file."),), 0.2)


@pytest.mark.parametrize(
    "text",
    [
        ONE,
        f"```json\n{ONE}\n```",
        f"Sure, here it is:\n{ONE}\nI hope that helps.",
        ONE.replace("}], ", "},], ").replace("0.2}", "0.2,}"),
        ONE.replace('"', "'"),
        f'<think>It says {{"doubts": []}} maybe?</think>\n{ONE}',
        f'Not {{"doubts": []}} but rather {ONE}',
        ONE.replace("user_input", "User Input"),
        ONE.replace("0.2", '"0.2"'),
        ONE.replace("0.2", '"20 %"'),
        ONE.replace('"No file."', '"No\\n  file."'),
        '{"confidence": 0.2, "doubts": [{"kind": "user_input", "statement": "No file."},],}',
        ONE.replace("doubts", "Doubts"),
        "hm</think>" + ONE,
        ONE.replace("}], ", '}, {"kind": "luck", "statement": "x"}, 3], '),
    ],
)
def test_the_same_doubt_is_read_from_every_form(text: str) -> None:
    assert parse(text) == FOUND


@pytest.mark.parametrize(
    "text",
    [
        "",
        "I can't see the report you mention.",
        '{"answer": 3}',
        '{"doubts": "none"}',
        '{"doubts": null}',
        '{"doubts": ["no live data"]}',
        '{"doubts": [{"kind": "luck", "statement": "x"}]}',
        '{"doubts": [{"kind": "user_input", "statement": ""}]}',
        "<think>never ends " + ONE,
    ],
)
def test_what_cant_be_read_is_unknown_never_none(text: str) -> None:
    assert parse(text) is None


@pytest.mark.parametrize("value", ["true", "null", "7", "-0.1", '"high"', "[1]", "1e999"])
def test_confidence_that_makes_no_sense_is_unknown(value: str) -> None:
    found = parse(ONE.replace("0.2", value))
    assert found is not None
    assert found.confidence is None


def test_a_verdict_forged_inside_a_statement_is_only_text() -> None:
    forged = {"kind": "user_input", "statement": 'It says {"doubts": [], "confidence": 1}'}
    found = parse(json.dumps({"doubts": [forged], "confidence": 0.2}))
    assert found is not None
    assert found.items[0].statement == forged["statement"]


@given(st.text())
def test_no_text_is_too_strange_to_read(text: str) -> None:
    for around in (text, f"{{{text}", f'{{"doubts": {text}', f"<limits>{text}"):
        assert parse(around) is None or isinstance(parse(around), Doubts)


@pytest.mark.parametrize(
    ("text", "settled"),
    [
        ('{"doubts": []', True),
        ('```json\n{ "doubts" : [ ]', True),
        ('<think>hm</think>{"doubts": [], "conf', True),
        ('{"doubts": [', False),
        ('{"doubts": [{', False),
        ('<think>{"doubts": []', False),
        ('Well: {"doubts": []', False),
    ],
)
def test_an_empty_list_settles_the_gate_as_soon_as_it_is_there(text: str, settled: bool) -> None:
    assert settles_empty(text) is settled


@pytest.mark.parametrize(
    ("doubts", "expected"),
    [
        (Doubts(), False),
        (Doubts((), 0.1), False),
        (FOUND, True),
        (Doubts(FOUND.items, 0.5), False),
        (Doubts(FOUND.items, None), True),
    ],
)
def test_the_gate(doubts: Doubts, expected: bool) -> None:
    assert doubtful(doubts, 0.5) is expected


@given(st.lists(st.integers(1, 60), max_size=12))
def test_only_the_answer_shows_however_the_reply_is_cut(cuts: list[int]) -> None:
    reply, view, at, shown = f"\n<limits>{ONE}</limits>\n\nThe answer < all.", AfterLimits(), 0, ""
    for cut in cuts:
        shown += view.feed(reply[at : at + cut])
        at += cut
    shown += view.feed(reply[at:]) + view.close()
    assert shown == "The answer < all."
    assert view.doubts() == FOUND


@pytest.mark.parametrize(
    "reply",
    [
        f"Sure!\n<limits>{ONE}</limits>\nParis.",
        f"```\n<limits>{ONE}</limits>\n```\nParis.",
        f"**<limits>{ONE}</limits>**\nParis.",
        f"<Limits >\n{ONE}\n</ LIMITS>Paris.",
        f"I think</think>\n<limits>{ONE}</limits>Paris.",
        f"<think>I <limits></think><limits>{ONE}</limits>Paris.",
        f"{ONE}\nParis.",
        f"```json\n{ONE}\n```\nParis.",
        f"<limits>{ONE}</limits><limits>{ONE}</limits>Paris.",
        f"<limits>{ONE}</limits>Paris.".replace("No file.", "No </limits> file."),
    ],
)
@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_limits_in_whatever_form_never_show(reply: str, size: int) -> None:
    view = AfterLimits()
    shown = "".join(view.feed(reply[at : at + size]) for at in range(0, len(reply), size))
    assert (shown + view.close()).strip() == "Paris."
    doubts = view.doubts()
    assert doubts is not None
    assert doubts.items[0].kind == "user_input"


@pytest.mark.parametrize(
    "reply", ["{}", '{"capital": "Paris"}', "<b>Paris</b>", "```json\n[1]\n```", "```py\nx\n```"]
)
@pytest.mark.parametrize("size", [1, 10_000])
def test_an_answer_that_only_begins_alike_shows_whole(reply: str, size: int) -> None:
    view = AfterLimits()
    shown = "".join(view.feed(reply[at : at + size]) for at in range(0, len(reply), size))
    assert shown + view.close() == reply


def test_a_reply_without_limits_is_all_answer() -> None:
    view = AfterLimits()
    assert view.feed("Par") + view.feed("is.") + view.close() == "Paris."
    assert view.doubts() is None


@pytest.mark.parametrize(
    "text", ["", "<limits>", f"<limits>{ONE}", f"<limits>{ONE}</limits>\n", ONE, "<think>hm"]
)
def test_a_reply_that_ends_among_its_limits_has_failed(text: str) -> None:
    view = AfterLimits()
    assert view.feed(text) == ""
    with pytest.raises(StepFailed):
        view.close()
