"""Calibration and risk-coverage, against tables worked by hand and scikit-learn."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve

from honestproxy.evals.calibration import (
    aurc,
    calibration,
    ece,
    length_baseline,
    reliability,
    risk_coverage,
)
from honestproxy.evals.figures import Figure

CONFIDENCES = [0.9, 0.8, 0.7, 0.3]
RIGHT = [True, True, False, False]
ROWS = st.lists(st.tuples(st.sampled_from([0, 0.1, 0.25, 0.5, 0.9, 1]), st.booleans()), max_size=40)


def test_all_measures_by_hand():
    """Squares 0.01, 0.04, 0.49, 0.09: mean 0.1575. Each is a bin: (0.1 + 0.2 + 0.7 + 0.3) / 4.

    Risks at 1, 2, 3, 4 answered: 0, 0, 1/3, 1/2, whose mean is 5/24.
    """
    found = calibration(CONFIDENCES, RIGHT)
    assert (found.n, found.unscored) == (4, 0)
    assert found.risk == Figure(0.5, 4, 2)
    assert found.auroc == Figure(1.0, 4)
    assert found.brier == Figure(pytest.approx(0.1575), 4)
    assert found.ece_width == Figure(pytest.approx(0.325), 4)
    assert found.aurc == Figure(pytest.approx(5 / 24), 4)
    assert [(point.coverage, point.risk) for point in found.risk_coverage] == [
        (0.25, 0),
        (0.5, 0),
        (0.75, pytest.approx(1 / 3)),
        (1.0, 0.5),
    ]
    assert [point.confidence for point in found.risk_coverage] == CONFIDENCES


def test_auroc_by_hand():
    """Pairs of right and wrong: 0.9 over both, 0.5 over 0.3, 0.5 tied with 0.5: 3.5 of 4."""
    assert calibration([0.9, 0.5, 0.5, 0.3], [True, True, False, False]).auroc.value == 0.875


def test_bins_of_equal_width_by_hand():
    """0.1 and 0.2 in the lower half, none right; 0.6 and 1 in the upper, both right."""
    lower, upper = reliability([0.1, 0.2, 0.6, 1.0], [False, False, True, True], bins=2)
    assert (lower.low, lower.high, lower.n, lower.right) == (0, 0.5, 2, 0)
    assert (upper.low, upper.high, upper.n, upper.right) == (0.5, 1, 2, 1)
    assert (lower.confidence, upper.confidence) == (pytest.approx(0.15), pytest.approx(0.8))
    # 2/4 · 0.15 + 2/4 · 0.2
    assert ece([lower, upper]) == Figure(pytest.approx(0.175), 4)


def test_bins_of_equal_mass_hold_as_many_answers():
    values = [0.01 * n for n in range(1, 41)]
    bins = reliability(values, [True] * 40, mass=True, bins=4)
    assert [one.n for one in bins] == [10, 10, 10, 10]
    assert sum(one.n for one in reliability(values, [True] * 40)) == 40


def test_ties_share_a_bin():
    bins = reliability([0.2] * 7 + [0.9] * 3, [True] * 10, mass=True)
    assert [one.n for one in bins] == [7, 3]
    assert [one.n for one in reliability([0.4] * 5, [True] * 5, mass=True)] == [5]


@given(ROWS.filter(bool))
def test_bins_are_those_of_scikit_learn(rows):
    values, right = ([row[column] for row in rows] for column in range(2))
    for mass, strategy in ((False, "uniform"), (True, "quantile")):
        shares, means = calibration_curve(
            right, values, n_bins=10, strategy=strategy, pos_label=True
        )
        bins = reliability(values, right, mass=mass)
        assert [one.confidence for one in bins] == pytest.approx(list(means))
        assert [one.right for one in bins] == pytest.approx(list(shares))


def test_equal_scores_cannot_be_told_apart():
    """One threshold: all or nothing. In random order each coverage has the risk of all."""
    right = [True, False, True, False, False]
    found = calibration([0.5] * 5, right)
    assert [(point.coverage, point.risk) for point in found.risk_coverage] == [(1.0, 0.6)]
    assert found.aurc.value == pytest.approx(0.6)
    assert found.auroc.value == 0.5


def test_the_order_of_answers_does_not_matter():
    rows = [(0.1 * (n % 7), n % 3 == 0) for n in range(50)]
    shuffled = random.Random(2).sample(rows, 50)
    one, other = (calibration(*zip(*some, strict=True)) for some in (rows, shuffled))
    assert one.risk_coverage == other.risk_coverage
    assert one.aurc.value == pytest.approx(other.aurc.value)
    assert one.ece_mass.value == pytest.approx(other.ece_mass.value)


@pytest.mark.parametrize(("right", "risk"), [(True, 0.0), (False, 1.0)])
def test_one_class_alone_leaves_auroc_undefined(right, risk):
    found = calibration([0.2, 0.6], [right, right])
    assert found.auroc == Figure(None, 2)
    assert (found.risk.value, found.aurc.value) == (risk, risk)
    assert found.brier.value == pytest.approx((0.8**2 + 0.4**2) / 2 if right else 0.2)
    baseline = length_baseline([10, 20], [right, right])
    assert baseline.auroc.value is baseline.brier.value is None


@pytest.mark.parametrize("measure", [calibration, length_baseline])
def test_nothing_scored_is_undefined(measure):
    for values, right in (([], []), ([None, 1], [True, None])):
        found = measure(values, right)
        assert (found.n, found.unscored) == (0, len(right))
        figures = [
            found.risk,
            found.auroc,
            found.brier,
            found.ece_width,
            found.ece_mass,
            found.aurc,
        ]
        assert {figure.value for figure in figures} == {None}
        assert found.bins_width == found.bins_mass == found.risk_coverage == []


def test_what_is_no_probability_is_unscored():
    found = calibration([0.5, 1.5, -0.1, math.nan, None], [True] * 5)
    assert (found.n, found.unscored) == (1, 4)


def test_a_long_curve_is_thinned_to_its_ends_and_between():
    scores = [n / 1000 for n in range(1000)]
    points = risk_coverage(scores, [True] * 1000, points=50)
    assert len(points) == 50
    assert (points[0].coverage, points[-1].coverage) == (0.001, 1.0)
    assert aurc(scores, [True] * 1000).value == 0


def test_length_tells_where_wrong_answers_are_longer():
    """Right ones have 10 to 49 characters, wrong ones 60 to 99: lengths tell them all apart."""
    lengths = [*range(10, 50), *range(60, 100)]
    found = length_baseline(lengths, [True] * 40 + [False] * 40)
    assert found.auroc.value == 1
    assert found.aurc.value < found.risk.value
    assert 0 < found.brier.value < 0.25  # which a constant 0.5 has
    assert found.ece_width.n == found.brier.n == 80
    assert length_baseline(lengths, [False] * 40 + [True] * 40).auroc.value == 0


def test_a_length_that_says_nothing_is_a_coin():
    draw = random.Random(3)
    lengths = [draw.randrange(20, 500) for _ in range(600)]
    right = [draw.random() < 0.5 for _ in range(600)]
    found = length_baseline(lengths, right)
    assert found.auroc.value == pytest.approx(0.5, abs=0.07)
    assert found.brier.value == pytest.approx(0.25, abs=0.02)
    assert found.aurc.value == pytest.approx(found.risk.value, abs=0.07)


def test_too_few_answers_have_no_probability_by_length_but_an_order():
    found = length_baseline([10, 20, 30], [True, True, False])
    assert (found.auroc.value, found.brier.value, found.bins_width) == (1.0, None, [])


@given(ROWS)
def test_measures_stay_within_their_bounds(rows):
    values, right = ([row[column] for row in rows] for column in range(2))
    found = calibration(values, right)
    for figure in (found.auroc, found.brier, found.ece_width, found.ece_mass, found.aurc):
        assert figure.value is None or 0 <= figure.value <= 1
    if rows:
        assert found.risk_coverage[-1].coverage == 1
        assert found.risk_coverage[-1].risk == found.risk.value
        assert sum(one.n for one in found.bins_mass) == len(rows)
        assert found.ece_width.value <= math.sqrt(found.brier.value) + 1e-9


def test_intervals_hold_the_value_and_narrow_with_more_answers() -> None:
    few, many = ([i % 10 / 10 + 0.05 for i in range(n)] for n in (40, 1000))
    widths = []
    for sure in (few, many):
        found = calibration(sure, [(i * 7) % 10 / 10 < s for i, s in enumerate(sure)])
        for name in ("auroc", "brier", "aurc"):
            low, high = found.intervals[name]
            assert low <= getattr(found, name).value <= high
        low, high = found.intervals["auroc"]
        widths.append(high - low)
    assert widths[1] < widths[0] / 3


def test_of_perfect_confidence_the_interval_of_auroc_has_no_width() -> None:
    found = calibration([0.9, 0.8, 0.2, 0.1] * 5, [True, True, False, False] * 5)
    assert found.intervals["auroc"] == (1.0, 1.0)


def test_where_all_are_right_auroc_has_no_interval() -> None:
    assert "auroc" not in calibration([0.9, 0.8], [True, True]).intervals
    assert calibration([], []).intervals == {}
