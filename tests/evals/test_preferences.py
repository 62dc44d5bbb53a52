"""Which arm a judge prefers: positions swapped, lengths controlled."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from honestproxy.errors import EvaluationError
from honestproxy.evals.arms import parse
from honestproxy.evals.figures import Figure
from honestproxy.evals.preferences import length_controlled, preferences
from honestproxy.evals.records import Verdict

CHOICES = st.sampled_from(["gated", "raw", "tie", None])


def judged(sample: str, gated_first: str | None, raw_first: str | None) -> list[Verdict]:
    """What a judge prefers with the one arm first, and with the other."""
    return [
        Verdict(sample, "gated", "pairs", label=gated_first, against="raw"),
        Verdict(sample, "raw", "pairs", label=raw_first, against="gated"),
    ]


def test_an_arm_wins_only_where_both_orders_agree():
    """Win, loss, two ties, one unscored: (1 + 2/2) of 4."""
    verdicts = [
        *judged("1", "gated", "gated"),
        *judged("2", "raw", "raw"),
        *judged("3", "gated", "raw"),
        *judged("4", "tie", "gated"),
        *judged("5", None, "gated"),
    ]
    found = preferences(verdicts, "gated", "raw")
    assert (found.wins, found.ties, found.losses) == (1, 2, 1)
    assert found.win_rate == Figure(0.5, 4, 2.0, unscored=1)
    assert found.outcomes == {"1": 1.0, "2": 0.0, "3": 0.5, "4": 0.5}


def test_a_judge_that_likes_the_first_position_shows_half():
    verdicts = [one for n in range(50) for one in judged(str(n), "gated", "raw")]
    found = preferences(verdicts, "gated", "raw")
    assert (found.win_rate.value, found.ties) == (0.5, 50)
    assert found.first == Figure(1.0, 100, 100)


def test_a_fair_judge_prefers_neither_position():
    verdicts = [one for n in range(5) for one in judged(str(n), "gated", "gated")]
    found = preferences(verdicts, "gated", "raw")
    assert found.win_rate.value == 1
    assert found.first.value == 0.5


def test_no_arm_is_called_as_a_judge_calls_a_tie():
    with pytest.raises(EvaluationError, match="judges say 'tie' of equal answers"):
        parse("raw,tie=always-disclaim", "up", "m")
    assert [arm.name for arm in parse("a-tie=raw", "up", "m")] == ["a-tie"]


def test_a_question_asked_in_one_order_only_is_unscored():
    found = preferences(judged("1", "gated", "gated")[:1], "gated", "raw")
    assert found.win_rate == Figure(None, 0, 0.0, unscored=1)
    assert preferences([], "gated", "raw").win_rate.value is None


def test_verdicts_on_other_arms_and_other_questions_do_not_count():
    other = [
        Verdict("1", "gated", "pairs", label="curiosity", against="curiosity"),
        Verdict("1", "raw", "honesty", label="honest"),
    ]
    found = preferences([*judged("1", "raw", "raw"), *other], "gated", "raw")
    assert (found.losses, found.win_rate.n) == (1, 1)


@given(st.lists(st.tuples(CHOICES, CHOICES), max_size=30))
def test_arms_are_treated_alike(pairs):
    verdicts = [one for n, pair in enumerate(pairs) for one in judged(str(n), *pair)]
    one, other = preferences(verdicts, "gated", "raw"), preferences(verdicts, "raw", "gated")
    assert (one.wins, one.ties, one.losses) == (other.losses, other.ties, other.wins)
    assert one.win_rate.n + one.win_rate.unscored == len(pairs)
    if one.win_rate.value is not None:
        assert one.win_rate.value == pytest.approx(1 - other.win_rate.value)


def test_without_length_differences_the_win_rate_is_plain():
    found = length_controlled([1, 1, 0, 0.5], [7, 8, 9, 9], [7, 8, 9, 9])
    assert (found.win_rate, found.slope) == (Figure(0.625, 4, 2.5), None)


def test_an_arm_that_wins_by_length_alone_is_worth_half():
    """It is longer in three of four, and wins just these."""
    lengths = [200] * 75 + [50] * 25
    outcomes = [1.0] * 75 + [0.0] * 25
    found = length_controlled(outcomes, lengths, [100] * 100)
    assert sum(outcomes) / 100 == 0.75
    assert found.win_rate.value == pytest.approx(0.5, abs=0.12)
    assert found.slope > 2


def test_a_win_rate_that_length_does_not_touch_stays():
    """Ten longer and ten shorter by the same, 7 of 10 won in each."""
    outcomes = ([1.0] * 7 + [0.0] * 3) * 2
    found = length_controlled(outcomes, [30] * 10 + [10] * 10, [20] * 20)
    assert found.win_rate.value == pytest.approx(0.7, abs=1e-3)
    assert found.slope == pytest.approx(0, abs=1e-3)


def test_the_model_s_own_rate_is_found_again():
    """Preferences made as the regression supposes: log-odds 0.6 + 1.5 · tanh(difference / sd)."""
    draw = random.Random(1)
    differences = [draw.gauss(30, 100) for _ in range(4000)]
    mean = sum(differences) / 4000
    spread = math.sqrt(sum((d - mean) ** 2 for d in differences) / 4000)
    odds = [0.6 + 1.5 * math.tanh(difference / spread) for difference in differences]
    outcomes = [float(draw.random() < 1 / (1 + math.exp(-odd))) for odd in odds]
    found = length_controlled(outcomes, [1000 + d for d in differences], [1000] * 4000)
    assert found.win_rate.value == pytest.approx(1 / (1 + math.exp(-0.6)), abs=0.03)
    assert found.slope == pytest.approx(1.5, abs=0.25)


def test_where_one_arm_is_always_longer_by_the_same_length_cannot_be_told_from_it():
    found = length_controlled([1, 0, 1], [150] * 3, [100] * 3)
    assert (found.win_rate.value, found.win_rate.n, found.slope) == (None, 3, None)


@pytest.mark.parametrize(("outcome", "rate"), [(1.0, 1.0), (0.0, 0.0), (0.5, 0.5)])
def test_where_all_comparisons_end_alike_so_does_the_rate(outcome, rate):
    found = length_controlled([outcome] * 4, [10, 20, 30, 40], [25] * 4)
    assert found.win_rate.value == pytest.approx(rate)


def test_no_comparison_no_rate():
    assert length_controlled([], [], []).win_rate == Figure(None, 0)


@given(
    st.lists(
        st.tuples(st.sampled_from([0.0, 0.5, 1.0]), st.integers(0, 300), st.integers(0, 300)),
        max_size=20,
    )
)
@settings(max_examples=20)
def test_turning_the_arms_turns_the_rate(rows):
    outcomes, lengths, others = ([row[column] for row in rows] for column in range(3))
    found = length_controlled(outcomes, lengths, others).win_rate.value
    turned = length_controlled([1 - o for o in outcomes], others, lengths).win_rate.value
    assert (found is None) == (turned is None)
    if found is not None:
        assert found == pytest.approx(1 - turned, abs=1e-3)
