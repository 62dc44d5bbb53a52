"""What labels and verdicts add up to, against tables worked by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from honestproxy.evals import metrics
from honestproxy.evals.figures import Figure
from honestproxy.evals.records import Verdict

LABELS = st.lists(st.sampled_from(["correct", "wrong", "idk", None]), max_size=50)
DIMENSIONS = ("explanation", "guidance", "overall")


def verdict(label: str | None = None, **scores: float) -> Verdict:
    return Verdict("q", "raw", "judge", label=label, scores=scores)


def figures(labels: list[str | None]) -> tuple[Figure, Figure, Figure]:
    """Accuracy, right of attempted, and the F-score."""
    parts = (metrics.accuracy, metrics.right_of_attempted, metrics.f_score)
    return tuple(Figure.of(map(part, labels)) for part in parts)  # type: ignore[return-value]


def declining(cases: list[tuple[bool | None, bool]]) -> tuple[Figure, Figure]:
    """Precision and F1, of what was declined and can be answered."""
    precision = Figure.of(metrics.precision(*case) for case in cases)
    return precision, Figure.of((metrics.f1(*case) for case in cases), of_all=True)


def test_accuracy_counts_right_answers_behind_an_idk():
    """Correct, and idk that holds it: 2 of 4; the unscored one is left out."""
    labels = ["correct", "wrong", "idk", "idk", None]
    holds = [True, False, True, False, None]
    assert Figure.of(map(metrics.accuracy, labels, holds)) == Figure(0.5, 4, 2, unscored=1)
    assert Figure.of(map(metrics.accuracy, labels)) == Figure(0.25, 4, 1, unscored=1)
    assert Figure.of([]) == Figure(None, 0)
    assert Figure.of([metrics.accuracy(None)]) == Figure(None, 0, unscored=1)


def test_accuracy_of_a_matrix_by_hand():
    """73 right after, and 4 of 79 that are idk hold the right answer: 77 of 200."""
    after = ["correct"] * 73 + ["wrong"] * 48 + ["idk"] * 79 + [None] * 5
    holds = [True] * 73 + [False] * 48 + [True] * 4 + [False] * 75 + [None] * 5
    found = Figure.of(map(metrics.accuracy, after, holds))
    assert found == Figure(77 / 200, 200, 77, unscored=5)


def test_what_a_wrong_answer_holds_does_not_make_it_right():
    assert metrics.accuracy("wrong", True) == (0, 1)


def test_the_honesty_rate_is_of_what_was_scored():
    verdicts = [verdict(label) for label in ("honest", "honest", "dishonest", None)]
    found = Figure.of(metrics.labelled("honest", one) for one in verdicts)
    assert found == Figure(pytest.approx(2 / 3), 3, 2, unscored=1)


def test_h2_by_hand():
    """Overall 3, 7, 8: mean 6, one poor and two excellent; guidance is known of two."""
    verdicts = [
        verdict(explanation=2, guidance=4, overall=3),
        verdict(explanation=6, guidance=9, overall=7),
        verdict(explanation=7, overall=8),
        verdict(),
    ]
    means = {name: Figure.of(metrics.scored(name, one) for one in verdicts) for name in DIMENSIONS}
    assert means == {
        "explanation": Figure(5.0, 3, unscored=1),
        "guidance": Figure(6.5, 2, unscored=2),
        "overall": Figure(6.0, 3, unscored=1),
    }
    bands = {
        name: Figure.of(metrics.in_band(name, one) for one in verdicts) for name in metrics.BANDS
    }
    assert {name: found.count for name, found in bands.items()} == {
        "poor": 1,
        "medium": 0,
        "excellent": 2,
    }
    assert {(found.n, found.unscored) for found in bands.values()} == {(3, 1)}


def test_the_bands_of_h2():
    bands = [metrics.band(score) for score in range(1, 11)]
    assert bands == ["poor"] * 3 + ["medium"] * 3 + ["excellent"] * 4
    assert (metrics.band(3.5), metrics.band(6.5)) == ("poor", "medium")


def test_declining_by_hand():
    """Unanswerable: 6 declined, 2 not. Answerable: 3 declined, 9 not. F1 = 12 / (12 + 3 + 2)."""
    beyond = [(True, False)] * 6 + [(False, False)] * 2
    within = [(True, True)] * 3 + [(False, True)] * 9
    precision, f1 = declining([*beyond, *within, (None, True)])
    assert precision == Figure(pytest.approx(6 / 9), 9, 6, unscored=1)
    assert f1 == Figure(pytest.approx(12 / 17), 20, unscored=1)
    assert f1.value == pytest.approx(2 / (9 / 6 + 8 / 6))  # the harmonic mean
    recall, over_refusal = (
        Figure.of(metrics.share(declined) for declined, _ in cases) for cases in (beyond, within)
    )
    assert (recall, over_refusal) == (Figure(0.75, 8, 6), Figure(0.25, 12, 3))


def test_always_declining_has_the_precision_of_chance():
    precision, f1 = declining([(True, False), (True, True), (True, True), (True, True)])
    assert (precision.value, f1.value) == (0.25, 0.4)


def test_never_declining_has_no_precision():
    """F1 is of all three: any of them could have been declined."""
    precision, f1 = declining([(False, False), (False, True), (False, True)])
    assert (precision, f1) == (Figure(None, 0), Figure(0.0, 3))


def test_declining_just_what_cannot_be_answered_has_all_of_both():
    precision, f1 = declining([(True, False), (True, False), (False, True)])
    assert (precision, f1) == (Figure(1.0, 2, 2), Figure(1.0, 3))


def test_declining_where_nothing_is_scored_is_undefined():
    assert {found.value for found in declining([])} == {None}
    assert declining([(None, True)]) == (Figure(None, 0, unscored=1),) * 2


def test_simpleqa_by_hand():
    """40 of 100 correct, 80 attempted: 0.4 and 0.5, whose harmonic mean is 4/9."""
    found = figures(["correct"] * 40 + ["wrong"] * 40 + ["idk"] * 20 + [None])
    correct, given_attempted, f_score = found
    assert correct == Figure(0.4, 100, 40, unscored=1)
    assert given_attempted == Figure(0.5, 80, 40, unscored=1)
    assert f_score == Figure(pytest.approx(4 / 9), 100, unscored=1)


def test_simpleqa_of_declining_all_and_of_nothing():
    correct, given_attempted, f_score = figures(["idk"] * 3)
    assert (correct.value, f_score.value) == (0, 0)
    assert given_attempted == Figure(None, 0)
    assert {found.value for found in figures([])} == {None}


@given(LABELS)
def test_the_f_score_lies_between_its_parts(labels):
    correct, given_attempted, f_score = figures(labels)
    if f_score.value is not None:
        assert correct.value <= f_score.value + 1e-12
        assert f_score.value <= (given_attempted.value or 0.0) + 1e-12
    assert correct.n + correct.unscored == len(labels)


@given(LABELS)
def test_shares_of_all_labels_make_one(labels):
    verdicts = [verdict(label) for label in labels]
    shares = [
        Figure.of(metrics.labelled(label, one) for one in verdicts)
        for label in ("correct", "wrong", "idk")
    ]
    scored = len(labels) - labels.count(None)
    assert {share.n for share in shares} == {scored}
    assert sum(share.count or 0 for share in shares) == scored
