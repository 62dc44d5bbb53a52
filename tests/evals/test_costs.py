"""What arms cost, against tables worked by hand."""

from __future__ import annotations

import pytest

from honestproxy.evals.costs import costs, part, tokens
from honestproxy.evals.figures import Figure, Part
from honestproxy.evals.records import Answered
from honestproxy.evals.report.table import times


def answered(sample: str, up: int = 10, down: int = 5, **more) -> Answered:
    usage = {"prompt_tokens": up, "completion_tokens": down, "total_tokens": up + down}
    return Answered(sample, "gated", "…", **({"usage": usage, "calls": 2, "seconds": 1.0} | more))


def test_costs_by_hand():
    """Seconds 1, 2, 3, 4, 10: half below 3; 95 % lies 0.8 of the way from 4 to 10, at 8.8."""
    answers = [
        answered(str(n), up=100 * n, down=10, calls=n, seconds=s, first=s / 2)
        for n, s in enumerate([1.0, 2.0, 3.0, 4.0, 10.0], 1)
    ]
    found = costs(answers, lambda usage: usage["prompt_tokens"] / 1000)
    assert found.calls == Figure(3.0, 5)
    assert found.tokens == Figure(310.0, 5)
    assert found.money == Figure(pytest.approx(1.5), 5)
    assert found.seconds_p50.value == 3
    assert found.seconds_p95.value == pytest.approx(8.8)
    assert found.first_p50.value == 1.5
    assert found.first_p95.value == pytest.approx(4.4)


def test_a_failed_answer_costs_calls_but_tells_nothing_of_speed():
    failed = Answered("2", "gated", None, error="timeout", calls=3, seconds=600.0)
    found = costs([answered("1"), failed])
    assert found.calls == Figure(2.5, 2)
    assert found.seconds_p95 == Figure(1.0, 1)
    assert found.tokens == Figure(15.0, 1, unscored=1)


def test_what_was_not_counted_or_has_no_price_is_unscored():
    answers = [answered("1"), answered("2", usage=None), answered("3", up=999)]
    found = costs(answers, lambda usage: None if usage["prompt_tokens"] == 999 else 0.25)
    assert found.money == Figure(0.25, 1, unscored=2)
    assert costs(answers).money == Figure(None, 0, unscored=3)
    assert found.first_p50 == Figure(None, 0, unscored=3)


def test_costs_of_nothing():
    found = costs([])
    assert found.calls.value is found.seconds_p50.value is found.money.value is None


def test_tokens_without_a_total_are_added_up():
    assert tokens(answered("1", usage={"prompt_tokens": 3, "completion_tokens": 4})) == 7
    assert tokens(answered("1", usage={"prompt_tokens": 3})) is None


def taken(what: str, answers: list[Answered]) -> dict[str, Part | None]:
    return {answer.sample: part(answer, what) for answer in answers}


def test_relative_costs_are_of_questions_that_both_answered():
    """(30 + 90) / (20 + 40) = 2; one question failed, one was asked of one arm alone."""
    before = [answered("1", 10, 10), answered("2", 20, 20), answered("3"), answered("4")]
    after = [answered("2", 80, 10), answered("1", 20, 10), answered("3", error="timeout")]
    columns = taken("tokens", before), taken("tokens", after)
    found = times("raw", "gated", *columns, paired=True).difference
    assert (found.value, found.n, found.unscored) == (2.0, 2, 2)
    assert (found.low, found.high) == (1.5, 2.25)


def test_relative_costs_of_an_arm_to_itself_are_one():
    answers = [answered(str(n), seconds=float(n), first=0.5) for n in range(1, 20)]
    for what in ("calls", "tokens", "seconds", "first"):
        column = taken(what, answers)
        found = times("raw", "raw", column, column, paired=True).difference
        assert (found.value, found.low, found.high) == (1.0, 1.0, 1.0)


def test_time_to_first_token_that_nobody_measured_is_undefined():
    column = taken("first", [answered("1")])
    found = times("raw", "raw", column, column, paired=True).difference
    assert (found.value, found.unscored) == (None, 1)
