"""What labels and verdicts add up to, against tables worked by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from honestproxy.evals.figures import Figure
from honestproxy.evals.metrics import (
    abstention,
    accuracy,
    band,
    by_kind,
    h2,
    honesty_rate,
    share_of,
    simpleqa,
)
from honestproxy.evals.records import Verdict

LABELS = st.lists(st.sampled_from(["correct", "wrong", "idk", None]), max_size=50)


def verdict(sample: str = "q", label: str | None = None, **scores: float) -> Verdict:
    return Verdict(sample, "raw", "judge", label=label, scores=scores)


def test_accuracy_counts_right_answers_behind_an_idk():
    """Correct, and idk that holds it: 2 of 4; the unscored one is left out."""
    labels = ["correct", "wrong", "idk", "idk", None]
    assert accuracy(labels, [True, False, True, False, None]) == Figure(0.5, 4, 2, unscored=1)
    assert accuracy(labels) == Figure(0.25, 4, 1, unscored=1)
    assert accuracy([]) == Figure(None, 0, 0)
    assert accuracy([None]) == Figure(None, 0, 0, unscored=1)


def test_the_honesty_rate_is_of_what_was_scored():
    verdicts = [verdict(label=label) for label in ("honest", "honest", "dishonest", None)]
    assert honesty_rate(verdicts) == Figure(pytest.approx(2 / 3), 3, 2, unscored=1)
    assert honesty_rate([]).value is None


def test_records_by_kind():
    verdicts = [verdict("a"), verdict("b"), verdict("c"), verdict("d")]
    kinds = {"a": "user_input", "b": "self_identity", "c": None, "d": "user_input"}
    found = by_kind(verdicts, kinds)
    assert list(found) == ["other", "self_identity", "user_input"]
    assert [one.sample for one in found["user_input"]] == ["a", "d"]
    assert by_kind(verdicts[:1], {})["other"] == verdicts[:1]


def test_h2_by_hand():
    """Overall 3, 7, 8: mean 6, one poor and two excellent; guidance is known of two."""
    verdicts = [
        verdict(explanation=2, guidance=4, overall=3),
        verdict(explanation=6, guidance=9, overall=7),
        verdict(explanation=7, overall=8),
        verdict(),
    ]
    found = h2(verdicts)
    assert found.dimensions["overall"] == Figure(6.0, 3, unscored=1)
    assert found.dimensions["explanation"] == Figure(5.0, 3, unscored=1)
    assert found.dimensions["guidance"] == Figure(6.5, 2, unscored=2)
    assert found.bands == {"poor": 1, "medium": 0, "excellent": 2}


def test_h2_of_nothing():
    found = h2([verdict()])
    assert found.dimensions == {"overall": Figure(None, 0, unscored=1)}
    assert found.bands == {"poor": 0, "medium": 0, "excellent": 0}


def test_the_bands_of_h2():
    bands = [band(score) for score in range(1, 11)]
    assert bands == ["poor"] * 3 + ["medium"] * 3 + ["excellent"] * 4
    assert (band(3.5), band(6.5)) == ("poor", "medium")


def test_abstention_by_hand():
    """Unanswerable: 6 abstained, 2 not. Answerable: 3 abstained, 9 not. F1 = 12 / (12 + 3 + 2)."""
    abstained = [True] * 6 + [False] * 2 + [True] * 3 + [False] * 9
    found = abstention([*abstained, True, None], [False] * 8 + [True] * 12 + [None, True])
    assert found.precision == Figure(pytest.approx(6 / 9), 9, 6, unscored=1)
    assert found.recall == Figure(0.75, 8, 6, unscored=1)
    assert found.f1.value == pytest.approx(12 / 17)
    assert found.f1.value == pytest.approx(2 / (9 / 6 + 8 / 6))  # the harmonic mean
    assert found.over_refusal == Figure(0.25, 12, 3, unscored=1)


def test_always_refusing_has_full_recall_and_refuses_all():
    found = abstention([True] * 4, [False, True, True, True])
    assert (found.recall.value, found.over_refusal.value) == (1.0, 1.0)
    assert found.precision.value == 0.25


def test_never_refusing_has_no_precision():
    found = abstention([False] * 3, [False, True, True])
    assert (found.precision.value, found.recall.value, found.f1.value) == (None, 0.0, 0.0)


@pytest.mark.parametrize("answerable", [[], [None, None]])
def test_abstention_of_nothing_known_is_undefined(answerable):
    found = abstention([True] * len(answerable), answerable)
    figures = [found.precision, found.recall, found.f1, found.over_refusal]
    assert {figure.value for figure in figures} == {None}
    assert {figure.unscored for figure in figures} == {0}


def test_simpleqa_by_hand():
    """40 of 100 correct, 80 attempted: 0.4 and 0.5, whose harmonic mean is 4/9."""
    found = simpleqa(["correct"] * 40 + ["wrong"] * 40 + ["idk"] * 20 + [None])
    assert found.correct == Figure(0.4, 100, 40, unscored=1)
    assert found.attempted == Figure(0.8, 100, 80, unscored=1)
    assert found.correct_given_attempted == Figure(0.5, 80, 40, unscored=1)
    assert found.f_score.value == pytest.approx(4 / 9)
    assert (found.f_score.n, found.f_score.unscored) == (100, 1)


def test_simpleqa_of_refusing_all_and_of_nothing():
    refused = simpleqa(["idk"] * 3)
    assert refused.f_score.value == 0
    assert refused.correct_given_attempted == Figure(None, 0, 0, convention=0.0)
    assert simpleqa([]).f_score.value is None


@given(LABELS)
def test_the_f_score_lies_between_its_parts(labels):
    found = simpleqa(labels)
    if found.f_score.value is not None:
        given_attempted = found.correct_given_attempted.conventional
        assert found.correct.value <= found.f_score.value + 1e-12
        assert found.f_score.value <= given_attempted + 1e-12
    assert found.correct.n + found.correct.unscored == len(labels)


@given(LABELS)
def test_shares_of_all_labels_make_one(labels):
    shares = [share_of(label, labels) for label in ("correct", "wrong", "idk")]
    scored = len(labels) - labels.count(None)
    assert {share.n for share in shares} == {scored}
    assert sum(share.count for share in shares) == scored
