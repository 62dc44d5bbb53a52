"""Intervals and tests, against tables worked by hand and against scipy."""

from __future__ import annotations

import math
import sys
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from honestproxy.errors import BackendError
from honestproxy.evals.figures import Figure
from honestproxy.evals.stats import (
    Significance,
    aligned,
    bootstrap,
    check_installed,
    clopper_pearson,
    cohen_kappa,
    discordant,
    exact,
    holm,
    mcnemar,
    paired_difference,
    paired_ratio,
    sign_test,
)

BITS = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=40)


def test_none_broken_in_120_shows_only_under_three_percent():
    """None of n happens with (1 - p)^n; 0.05^(1/120) = 0.97534, so p may be 2.466 %."""
    found = exact(0, 120)
    assert found.share == Figure(0.0, 120, 0)
    assert found.low == 0
    assert found.high == pytest.approx(1 - 0.05 ** (1 / 120))
    assert f"{found.high:.2%}" == "2.47%"


def test_one_broken_of_120():
    """P(at most 1 of 120) is 0.05 at p = 3.89 %; P(at least 1) is 0.05 at 1 - 0.95^(1/120)."""
    found = exact(1, 120)
    p = found.high
    assert (1 - p) ** 120 + 120 * p * (1 - p) ** 119 == pytest.approx(0.05)
    assert p == pytest.approx(0.0389, abs=1e-4)
    assert found.low == pytest.approx(1 - 0.95 ** (1 / 120))


def test_two_sided_bounds_spend_half_on_each_side():
    """None of ten: (1 - p)^10 = 0.025 at p = 0.3085."""
    assert clopper_pearson(0, 10) == (0.0, pytest.approx(1 - 0.025**0.1))
    assert clopper_pearson(10, 10) == (pytest.approx(0.025**0.1), 1.0)


def test_bounds_of_nothing_are_everything():
    assert clopper_pearson(0, 0) == (0.0, 1.0)
    found = exact(0, 0)
    assert (found.share.value, found.low, found.high) == (None, 0.0, 1.0)


@given(st.integers(1, 60), st.data())
def test_bounds_hold_the_share_and_mirror(n, data):
    count = data.draw(st.integers(0, n))
    low, high = clopper_pearson(count, n)
    assert 0 <= low <= count / n <= high <= 1
    assert clopper_pearson(n - count, n) == (pytest.approx(1 - high), pytest.approx(1 - low))
    assert exact(count, n).high <= high + 1e-12


def test_mcnemar_counts_what_changed():
    """10 of 12 one way: 2 · (C(12,0) + C(12,1) + C(12,2)) / 2^12 = 2 · 79 / 4096."""
    found = mcnemar(lost=2, gained=10)
    assert found == Significance(pytest.approx(158 / 4096), n=12, more=10, fewer=2)
    assert mcnemar(lost=10, gained=2).p == found.p


def test_nothing_changed_decides_nothing():
    assert mcnemar(0, 0) == Significance(1.0, 0, 0, 0)
    assert sign_test([]) == sign_test([0.0, 0.0]) == Significance(1.0, 0, 0, 0)


def test_the_sign_test_leaves_ties_out():
    """Five up, none down, two ties: 2 / 2^5."""
    assert sign_test([1, 2, 0.5, 3, 1, 0, 0]) == Significance(pytest.approx(2 / 32), 5, 5, 0)


def test_discordant_pairs():
    before = [True, True, False, False, None, True]
    after = [False, True, True, False, True, None]
    assert discordant(before, after) == (1, 1, 2)
    assert discordant([], []) == (0, 0, 0)


def test_holm_by_hand():
    """Sorted 0.01, 0.03, 0.04: times 3, 2, 1 gives 0.03, 0.06, 0.04, and none may fall."""
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03}) == pytest.approx(
        {"a": 0.03, "b": 0.06, "c": 0.06}
    )
    assert holm({"a": 0.6, "b": 0.7}) == {"a": 1.0, "b": 1.0}
    assert holm({}) == {}


@given(st.dictionaries(st.text(max_size=3), st.floats(0, 1), max_size=8))
def test_holm_keeps_order_and_never_lowers(p_values):
    corrected = holm(p_values)
    assert list(corrected) == list(p_values)
    assert all(p_values[name] <= corrected[name] <= 1 for name in p_values)
    in_order = sorted(p_values, key=p_values.__getitem__)
    assert all(corrected[one] <= corrected[next_] for one, next_ in pairwise(in_order))
    assert not p_values or max(corrected.values()) <= max(1.0, *p_values.values())


def test_kappa_by_hand():
    """20 yes/yes, 5 yes/no, 10 no/yes, 15 no/no:
    agree 0.7, by chance (25·30 + 25·20)/50² = 0.5."""
    first = ["yes"] * 25 + ["no"] * 25
    second = ["yes"] * 20 + ["no"] * 5 + ["yes"] * 10 + ["no"] * 15
    assert cohen_kappa(first, second) == Figure(pytest.approx(0.4), 50)


def test_kappa_leaves_out_what_one_rater_did_not_score():
    assert cohen_kappa(["a", "b", None], ["a", "b", "a"]) == Figure(1.0, 2, unscored=1)


@pytest.mark.parametrize("labels", [[], ["a", "a"], [None]])
def test_kappa_of_one_class_is_undefined(labels):
    assert cohen_kappa(labels, labels).value is None


def test_alignment_goes_by_question():
    before = {"q1": 1.0, "q2": 0.0, "q3": None}
    after = {"q2": 5.0, "q1": 4.0, "q3": 1.0, "q4": 1.0}
    assert aligned(before, after) == ([1.0, 0.0], [4.0, 5.0], 2)


def test_a_paired_difference_knows_its_pairs():
    """Each question gains 0.5, though the questions themselves differ widely: no doubt is left."""
    before = [float(n) for n in range(50)]
    found = paired_difference(before, [value + 0.5 for value in before])
    assert (found.value, found.low, found.high, found.n) == (0.5, 0.5, 0.5, 50)


def test_a_share_s_interval_is_the_binomials():
    """40 of 100: a resample's share is binomial, whose 2.5 % and 97.5 % quantiles are 31 and 50."""
    found = paired_difference([0.0] * 100, [1.0] * 40 + [0.0] * 60)
    low, high = scipy_stats.binom(100, 0.4).ppf([0.025, 0.975]) / 100
    assert found.value == pytest.approx(0.4)
    assert (found.low, found.high) == (
        pytest.approx(low, abs=0.011),
        pytest.approx(high, abs=0.011),
    )


def test_the_bootstrap_agrees_with_scipys():
    """Many distinct values, and few."""
    rng = np.random.default_rng(5)
    for values in (rng.exponential(size=1500), rng.integers(0, 5, 300).astype(float)):
        theirs = scipy_stats.bootstrap(
            (values,), np.mean, n_resamples=4000, batch=100, method="percentile", rng=1
        ).confidence_interval
        ours = paired_difference([0.0] * len(values), list(values))
        width = theirs.high - theirs.low
        assert ours.low == pytest.approx(theirs.low, abs=0.08 * width)
        assert ours.high == pytest.approx(theirs.high, abs=0.08 * width)


def test_rows_that_occur_often_are_as_good_as_rows_one_by_one():
    def mean(sums):
        return sums[:, 0] / sums[:, 1]

    one_by_one = bootstrap([(1.0, 1.0)] * 30 + [(0.0, 1.0)] * 70, mean)
    assert bootstrap([(1.0, 1.0), (0.0, 1.0)], mean, counts=[30, 70]) == one_by_one


def test_a_ratio_is_of_totals():
    """(30 + 10) / (10 + 10) = 2; both questions weigh by what they cost."""
    found = paired_ratio([10, 10], [30, 10])
    assert (found.value, found.low, found.high) == (2.0, 1.0, 3.0)


@pytest.mark.parametrize("values", [[], [0.0, 0.0]])
def test_a_ratio_to_nothing_is_undefined(values):
    found = paired_ratio(values, values)
    assert (found.value, found.low, found.high, found.n) == (None, None, None, len(values))


def test_a_seed_gives_the_same_interval_and_order_does_not_matter():
    values = [math.sin(n) for n in range(200)]
    first = paired_difference([0.0] * 200, values, seed=3)
    assert paired_difference([0.0] * 200, values, seed=3) == first
    assert paired_difference([0.0] * 200, values[::-1], seed=3).low == pytest.approx(first.low)
    assert paired_difference([0.0] * 200, values, seed=4) != first


@given(BITS)
def test_an_interval_holds_its_value_and_turns_with_the_arms(pairs):
    before, after = ([float(bit) for bit in arm] for arm in zip(*pairs, strict=True))
    found = paired_difference(before, after)
    assert -1 <= found.low <= found.high <= 1
    assert found.low - 1e-9 <= found.value <= found.high + 1e-9
    assert paired_difference(after, before).value == pytest.approx(-found.value)


def test_unequal_arms_are_refused():
    with pytest.raises(ValueError, match="zip"):
        paired_difference([1.0], [1.0, 2.0])


def test_what_is_missing_is_named_with_its_remedy(monkeypatch):
    check_installed()
    monkeypatch.setitem(sys.modules, "scipy", None)
    with pytest.raises(BackendError, match=r"honestproxy\[evals\]"):
        check_installed()
