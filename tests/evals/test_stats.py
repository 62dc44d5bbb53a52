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
from honestproxy.evals import stats
from honestproxy.evals.figures import Figure
from honestproxy.evals.stats import (
    Significance,
    aligned,
    bootstrap,
    check_installed,
    clopper_pearson,
    exact,
    holm,
    mcnemar,
    paired_difference,
    paired_ratio,
    resampled,
    sign_test,
    unpaired_difference,
    unpaired_ratio,
)


def means(values):
    """Parts of a mean."""
    return [(float(value), 1.0) for value in values]


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


def test_alignment_goes_by_question():
    before = {"q1": 1.0, "q2": 0.0, "q3": None}
    after = {"q2": 5.0, "q1": 4.0, "q3": 1.0, "q4": 1.0}
    assert aligned(before, after) == ([1.0, 0.0], [4.0, 5.0], 2)


def test_a_paired_difference_knows_its_pairs():
    """Each question gains 0.5, though the questions themselves differ widely: no doubt is left."""
    found = paired_difference(means(range(50)), means(n + 0.5 for n in range(50)))
    assert (found.value, found.low, found.high, found.n) == (0.5, 0.5, 0.5, 50)


def test_a_difference_of_ratios_is_of_what_adds_up():
    """1 right of 2 attempted before, 1 of 3 after; what neither attempted counts for none."""
    before = [(1.0, 1.0), (0.0, 1.0), (0.0, 0.0), (0.0, 0.0)]
    after = [(1.0, 1.0), (0.0, 1.0), (0.0, 1.0), (0.0, 0.0)]
    found = paired_difference(before, after)
    assert (found.value, found.n) == (pytest.approx(1 / 3 - 1 / 2), 4)


def test_without_pairs_each_side_is_by_itself():
    """1 of 2 and 3 of 4: a quarter more, one and a half times as many."""
    before, after = means([1, 0]), means([1, 1, 1, 0])
    difference, ratio = unpaired_difference(before, after), unpaired_ratio(before, after)
    assert (difference.value, difference.n) == (0.25, 6)
    assert ratio.value == pytest.approx(1.5)
    assert difference.low < 0 < difference.high


def test_a_share_s_interval_is_the_binomials():
    """40 of 100: a resample's share is binomial, whose 2.5 % and 97.5 % quantiles are 31 and 50."""
    found = resampled(means([1] * 40 + [0] * 60))
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
        ours = resampled(means(values))
        width = theirs.high - theirs.low
        assert ours.low == pytest.approx(theirs.low, abs=0.08 * width)
        assert ours.high == pytest.approx(theirs.high, abs=0.08 * width)


def test_rows_that_occur_often_are_as_good_as_rows_one_by_one():
    def mean(sums):
        return sums[:, 0] / sums[:, 1]

    one_by_one = resampled(means([1] * 30 + [0] * 70))
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
    none, values = means([0] * 200), means(math.sin(n) for n in range(200))
    first = paired_difference(none, values, seed=3)
    assert paired_difference(none, values, seed=3) == first
    assert paired_difference(none, values[::-1], seed=3).low == pytest.approx(first.low)
    assert paired_difference(none, values, seed=4) != first


@given(BITS)
def test_an_interval_holds_its_value_and_turns_with_the_arms(pairs):
    before, after = (means(arm) for arm in zip(*pairs, strict=True))
    found = paired_difference(before, after)
    assert -1 <= found.low <= found.high <= 1
    assert found.low - 1e-9 <= found.value <= found.high + 1e-9
    assert paired_difference(after, before).value == pytest.approx(-found.value)


def test_unequal_arms_are_refused():
    with pytest.raises(ValueError, match="zip"):
        paired_difference(means([1]), means([1, 2]))


def test_what_is_missing_is_named_with_its_remedy(monkeypatch):
    check_installed()
    monkeypatch.setitem(sys.modules, "scipy", None)
    with pytest.raises(BackendError, match=r"honestproxy\[evals\]"):
        check_installed()


@pytest.mark.parametrize(
    ("found", "low", "high"),
    [
        (stats.resampled([(1, 1)] * 3), 0.025 ** (1 / 3), 1.0),
        (stats.resampled([(1, 1)] * 3 + [(0, 0)] * 50), 0.025 ** (1 / 3), 1.0),
        (stats.paired_difference([(0, 1)], [(0, 1)]), -0.975, 0.975),
        (stats.paired_difference([(0, 1)] * 6, [(1, 1)] * 6), 2 * 0.025 ** (1 / 6) - 1, 1.0),
        (stats.unpaired_difference([(0, 1)] * 5, [(0, 1)] * 500), 0.025**0.2 - 1, 0.0073),
        # Of F1, one that says otherwise may weigh 2: with a share o of them it is 2o / (1 + o).
        (stats.resampled([(0, 1)] * 20, heaviest=2.0), 0.0, 0.288),
        (stats.paired_ratio([1.0], [2.0]), None, None),
        (stats.resampled([(7, 1)], heaviest=None), None, None),
        (stats.resampled([(1, 1)] * 3, heaviest=None), 1, 1),
    ],
)
def test_where_all_agree_the_interval_is_as_wide_as_so_few_leave_it(found, low, high):
    assert (found.low, found.high) == (
        low if low is None else pytest.approx(low, abs=5e-4),
        high if high is None else pytest.approx(high, abs=5e-4),
    )


def test_one_side_on_which_all_agree_widens_what_the_other_leaves_open():
    """One that declined, rightly, against half of forty: that one says next to nothing."""
    before = [(1, 1)] + [(0, 0)] * 39
    after = [(1, 1), (0, 1)] * 20
    found = stats.paired_difference(before, after)
    alone = stats.resampled(after)
    assert found.value == -0.5
    assert found.high == pytest.approx(-0.5 + np.hypot(alone.high - 0.5, 0.975), abs=0.02)
    assert found.low == pytest.approx(alone.low - 1, abs=0.02)
    assert found.fewest == 1
