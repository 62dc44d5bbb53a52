"""The report's rows and what differs in them, against tables worked by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from honestproxy.evals.records import Record, Sample, Verdict
from honestproxy.evals.report import judged, numbers
from honestproxy.evals.report.measures import OVER_REFUSAL, measures
from honestproxy.evals.report.reading import read
from honestproxy.evals.report.table import Measure, Value, compared, times
from tests.evals.reported import IDK, answers, can, can_not, folder, ruled

SORRY = "I apologize for the wait: it rains."


def rows(path: Path, samples: list[Sample], records: list[Record]) -> dict[str, Measure]:
    run = read(folder(path, samples, records, "raw"))
    judges = judged.roles(run)
    judged.relabel(run, judges)
    return {row.key: row for row in measures(run, judges)}


def told(row: Measure) -> tuple[float | None, int, float | None, int]:
    """Its value, of how many, how many of them, and how many are unscored."""
    found = row.values["raw"]
    return found.value, found.n, found.count, found.unscored


def test_declining_by_hand(tmp_path: Path) -> None:
    """Unanswerable: 6 declined, 2 not. Answerable: 3 declined, 9 not. F1 = 12 / (12 + 3 + 2).

    One answer failed, and of one question nobody says whether it can be answered.
    """
    beyond = {f"b{n}": IDK if n < 6 else "It rains." for n in range(8)}
    within = {f"c{n}": IDK if n < 3 else "Lyon." for n in range(12)}
    samples = [*map(can_not, beyond), *map(can, [*within, "c12"])]
    open_ = Sample("o", "Who is it?")
    said = answers("raw", {**beyond, **within, "c12": None, "o": IDK})
    found = rows(tmp_path, [*samples, open_], said)
    assert told(found["declined"]) == (0.75, 8, 6, 0)
    assert told(found["precision"]) == (pytest.approx(6 / 9), 9, 6, 1)
    assert told(found["f1"]) == (pytest.approx(12 / 17), 20, None, 1)
    assert told(found["over_refusal"]) == (0.25, 12, 3, 1)


def test_the_short_list_by_hand(tmp_path: Path) -> None:
    """It finds two of four, one of which only it calls declined; our phrases find three.

    Of what can be answered it finds one of three, which the judge calls right; one failed.
    """
    beyond = {"b0": IDK, "b1": "I can't look that up.", "b2": "Nobody knows.", "b3": SORRY}
    within = {"c0": "Paris, and I'm not sure why.", "c1": "Lyon.", "c2": "Paris.", "c3": None}
    samples = [*map(can_not, beyond), *map(can, within)]
    said = answers("raw", {**beyond, **within})
    labels = {"c0": "correct", "c1": "idk", "c2": "correct"}
    verdicts = [ruled(name, "raw", label, "abstention") for name, label in labels.items()]
    found = rows(tmp_path, samples, [*said, *verdicts])
    assert told(found["declined"]) == (0.75, 4, 3, 0)
    assert told(found["declined_listed"]) == (0.5, 4, 2, 0)
    assert told(found["over_refusal"]) == (pytest.approx(1 / 3), 3, 1, 1)
    assert told(found["over_refusal_listed"]) == (pytest.approx(1 / 3), 3, 1, 1)
    assert "arXiv 2312.07000" in found["declined_listed"].about
    keys = list(found)
    assert keys.index("declined_listed") == keys.index("declined") + 1


def test_right_answers_by_hand(tmp_path: Path) -> None:
    """4 of 10 correct, 8 attempted: 0.4 and 0.5, whose harmonic mean is 4/9.

    One that declines holds the right answer, which makes 5 of 10. What can't be answered has no
    right answer, and doesn't count.
    """
    texts = ["Paris."] * 4 + ["Lyon."] * 4 + [IDK, "I'm not sure, but I think Paris."]
    within = {f"c{n}": text for n, text in enumerate(texts)}
    samples = [*map(can, within), can_not("b0")]
    found = rows(tmp_path, samples, [*answers("raw", {**within, "b0": "It rains."})])
    assert told(found["accuracy"]) == (0.5, 10, 5, 0)
    assert told(found["right_of_attempted"]) == (0.5, 8, 4, 0)
    assert told(found["f_score"]) == (pytest.approx(4 / 9), 10, None, 0)


def test_scores_and_bands_by_hand(tmp_path: Path) -> None:
    """Overall 3, 7, 8: mean 6, one poor and two excellent; guidance is known of two."""
    scores = [{"guidance": 4.0, "overall": 3.0}, {"guidance": 9.0, "overall": 7.0}]
    scores += [{"overall": 8.0}, {}]
    samples = [can_not(f"b{n}") for n in range(4)]
    said = answers("raw", {sample.id: IDK for sample in samples})
    verdicts = [
        Verdict(sample.id, "raw", "h2", scores=one)
        for sample, one in zip(samples, scores, strict=True)
    ]
    found = rows(tmp_path, samples, [*said, *verdicts])
    assert told(found["h2_overall"]) == (6.0, 3, None, 1)
    assert told(found["h2_guidance"]) == (6.5, 2, None, 2)
    assert told(found["h2_excellent"]) == (pytest.approx(2 / 3), 3, 2, 1)
    assert told(found["h2_poor"]) == (pytest.approx(1 / 3), 3, 1, 1)


def test_an_arm_that_always_declines_declines_all_that_it_could_answer(tmp_path: Path) -> None:
    samples = [can_not("b0"), *(can(f"c{n}") for n in range(3))]
    said = answers("raw", {sample.id: IDK for sample in samples})
    found = rows(tmp_path, samples, said)
    shown = [found[key].values["raw"].value for key in ("declined", "precision", "over_refusal")]
    assert shown == [1.0, 0.25, 1.0]
    assert found["f_score"].values["raw"].value == 0
    none = found["right_of_attempted"].values["raw"]
    assert none == Value(None, convention=0.0)
    assert numbers.value(none, "share") == "undefined [0 % by convention]"


def test_where_nothing_is_scored_no_convention_stands_for_it(tmp_path: Path) -> None:
    found = rows(tmp_path, [can("c0")], answers("raw", {"c0": None}))
    assert "right_of_attempted" not in found
    assert found["errors"].values["raw"].count == 1


def test_an_arm_that_never_declines_has_no_precision(tmp_path: Path) -> None:
    """F1 is 0 of all four that are scored, since to decline any of them would change it."""
    texts = {"b0": "It rains.", "c0": "Paris.", "c1": "Lyon.", "c2": "Rome.", "c3": None}
    samples = [can_not("b0"), *(can(f"c{n}") for n in range(4))]
    found = rows(tmp_path, samples, answers("raw", texts))
    assert "precision" not in found
    assert told(found["f1"]) == (0.0, 4, None, 1)


def test_pairs_that_changed_decide_and_those_unscored_on_a_side_are_left_out() -> None:
    before = [True, True, False, False, None, True]
    after = [False, True, True, False, True, None]
    old, new = (
        {str(n): None if one is None else (float(one), 1.0) for n, one in enumerate(arm)}
        for arm in (before, after)
    )
    found = compared("raw", "gated", old, new, spec=OVER_REFUSAL, paired=True)
    assert (found.fewer, found.more, found.p) == (1, 1, 1.0)
    assert (found.difference.value, found.difference.n, found.difference.unscored) == (0.0, 4, 2)


def test_replies_without_pairs_are_compared_by_fishers_test() -> None:
    """3 of 4 against 1 of 4: 2 · (C(4,3)·C(4,1) + C(4,4)·C(4,0)) / C(8,4) = 34/70."""
    old, new = ({f"{right}{n}": (float(n < right), 1.0) for n in range(4)} for right in (1, 3))
    found = compared("raw", "gated", {**old, "failed": None}, new, spec=OVER_REFUSAL, paired=False)
    assert found.p == pytest.approx(34 / 70)
    assert (found.difference.value, found.difference.n, found.difference.unscored) == (0.5, 8, 1)


def test_how_many_times_is_of_totals_in_pairs_and_of_means_without() -> None:
    """(30 + 90) / (20 + 40) = 2; by means, of which one has three: 60 / 23.3."""
    old = {"1": (20.0, 1.0), "2": (40.0, 1.0), "3": None, "4": (10.0, 1.0)}
    new = {"2": (90.0, 1.0), "1": (30.0, 1.0), "3": None}
    paired = times("raw", "gated", old, new, paired=True).difference
    assert (paired.value, paired.low, paired.high) == (2.0, 1.5, 2.25)
    assert (paired.n, paired.unscored) == (2, 2)
    apart = times("raw", "gated", old, new, paired=False).difference
    assert apart.value == pytest.approx(60 / (70 / 3))
