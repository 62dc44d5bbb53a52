"""A judge beside people, on tables worked by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from sklearn.metrics import cohen_kappa_score

from honestproxy.errors import EvaluationError
from honestproxy.evals.agreement import agreement, kappa
from honestproxy.evals.judges import USUAL, Judge, load
from honestproxy.evals.labelled import guessed, read
from honestproxy.evals.records import Verdict
from honestproxy.templates import Prompts

KNOWN = load([*USUAL, "pairwise"], Prompts())
BY_NAME: dict[str, Judge] = {judge.name: judge for judge in KNOWN}


def test_a_kappa_without_a_disagreement_is_as_open_as_chance_leaves_it() -> None:
    # None of 100 disagrees: at most 3.6 %; 96 % agree by chance, so kappa falls by 0.036 / 0.0392.
    assert kappa([[98, 0], [0, 2]]).low == pytest.approx(1 - 0.03622 / 0.0392, abs=1e-3)
    assert kappa([[50, 0], [0, 50]]).low == pytest.approx(1 - 0.03622 / 0.5, abs=1e-3)
    assert kappa([[98, 0], [0, 2]]).high == 1.0


def written(folder: Path, *rows: dict[str, object]) -> Path:
    file = folder / "labels.jsonl"
    filled = ({"question": "Q?", "answer": "A.", "label": "honest"} | row for row in rows)
    file.write_text("\n".join(map(json.dumps, filled)), "utf-8")
    return file


def test_kappa_of_a_table_worked_by_hand() -> None:
    # 100 answers, agreed on 20 + 55 = 0.75; chance 0.3 · 0.35 + 0.7 · 0.65 = 0.56;
    # so kappa is (0.75 - 0.56) / (1 - 0.56) = 19/44.
    found = kappa([[20, 10], [15, 55]])
    assert found.value == pytest.approx(19 / 44)
    assert found.n == 100
    assert found.low < 19 / 44 < found.high
    assert 0.1 < found.high - found.low < 0.5


def test_kappa_of_another_table_worked_by_hand() -> None:
    """20 yes/yes, 5 yes/no, 10 no/yes, 15 no/no:
    agree 0.7, by chance (25·30 + 25·20)/50² = 0.5."""
    found = kappa([[20, 5], [10, 15]])
    assert (found.value, found.n) == (pytest.approx(0.4), 50)


def test_kappa_of_three_labels_is_scikit_learns() -> None:
    counts = [[9, 2, 1], [3, 12, 4], [0, 5, 7]]
    people = [n for n, row in enumerate(counts) for count in row for _ in range(count)]
    judge = [n for row in counts for n, count in enumerate(row) for _ in range(count)]
    assert kappa(counts).value == pytest.approx(cohen_kappa_score(people, judge))


@pytest.mark.parametrize("counts", [[[0, 0], [0, 0]], [[8, 0], [0, 0]]])
def test_kappa_is_undefined_where_nothing_was_told_apart(counts: list[list[int]]) -> None:
    assert kappa(counts).value is None


def test_kappa_is_1_where_all_agree_and_0_where_it_is_chance() -> None:
    assert kappa([[5, 0], [0, 5]]).value == 1
    assert kappa([[25, 25], [25, 25]]).value == 0


def said(sample: int, label: str | None = None, **more: object) -> Verdict:
    return Verdict(str(sample), "first", "j", label, **more)  # type: ignore[arg-type]


def test_the_matrix_has_people_in_rows_and_unscored_apart(tmp_path: Path) -> None:
    file = written(tmp_path, {}, {}, {"label": "Dishonest"}, {"label": "dishonest"})
    labelled = read(file, BY_NAME["honesty"])
    verdicts = [said(1, "honest"), said(2, "dishonest"), said(3, "dishonest"), said(4)]
    found = agreement(BY_NAME["honesty"], labelled, verdicts)
    assert found.matrix == {
        "honest": {"honest": 1, "dishonest": 1, "unscored": 0},
        "dishonest": {"honest": 0, "dishonest": 1, "unscored": 1},
    }
    assert found.agreement.value == pytest.approx(2 / 3)
    assert (found.agreement.n, found.agreement.unscored) == (3, 1)
    assert (found.kappa.n, found.kappa.unscored) == (3, 1)


def test_scores_agree_by_bands_and_follow_the_length_by_their_ranks(tmp_path: Path) -> None:
    rows = [{"label": n, "answer": "x" * (20 - n)} for n in (2, 5, 6, 9)]
    labelled = read(written(tmp_path, *rows), BY_NAME["h2"])
    verdicts = [said(n, scores={"overall": s}) for n, s in enumerate((3, 4, 7, 8), 1)]
    found = agreement(BY_NAME["h2"], labelled, verdicts)
    assert found.matrix["medium"] == {"poor": 0, "medium": 1, "excellent": 1, "unscored": 0}
    assert found.length.value == found.human_length.value == pytest.approx(-1)


def pairs(folder: Path, choose: object) -> tuple[list[Verdict], object]:
    labels = ("first", "second", "tie", "first")
    rows = [{"answer": "x" * n, "second": "y" * 3, "label": w} for n, w in enumerate(labels, 1)]
    labelled = read(written(folder, *rows), BY_NAME["pairwise"])
    verdicts = []
    for n in range(1, 5):
        for arms in (("first", "second"), ("second", "first")):
            label = choose(n, *arms)  # type: ignore[operator]
            verdicts.append(Verdict(str(n), arms[0], "pairwise", label, against=arms[1]))
    return verdicts, labelled


def test_a_judge_of_positions_is_found_out(tmp_path: Path) -> None:
    verdicts, labelled = pairs(tmp_path, lambda n, one, other: one)
    found = agreement(BY_NAME["pairwise"], labelled, verdicts)  # type: ignore[arg-type]
    assert found.position is not None
    assert found.position.value == 1
    assert {row["tie"] for row in found.matrix.values()} == {2, 1}
    assert found.kappa.value == pytest.approx(0)


def test_a_judge_of_lengths_is_found_out(tmp_path: Path) -> None:
    def longer(n: int, one: str, other: str) -> str:
        return "tie" if n == 3 else ("second" if n < 3 else "first")

    verdicts, labelled = pairs(tmp_path, longer)
    found = agreement(BY_NAME["pairwise"], labelled, verdicts)  # type: ignore[arg-type]
    assert found.position is not None
    assert found.position.value == 0.5
    assert found.length.value == pytest.approx(0.949, abs=1e-3)
    assert found.human_length.value == pytest.approx(0.105, abs=1e-3)


@pytest.mark.parametrize(
    ("rows", "name"),
    [
        ([{"label": "Honest"}, {"label": "dishonest"}], "honesty"),
        ([{"label": "correct"}, {"label": "wrong"}], "correctness"),
        ([{"label": "correct"}, {"label": "not attempted"}], "abstention"),
        ([{"label": "idk"}, {"label": "wrong"}], "abstention"),
        ([{"label": 7}, {"label": "9"}, {"label": 6.5}], "h2"),
        ([{"label": "poor"}], "h2"),
        ([{"label": "tie", "second": "B."}], "pairwise"),
    ],
)
def test_the_judge_is_told_from_columns_and_labels(
    tmp_path: Path, rows: list[dict[str, object]], name: str
) -> None:
    assert guessed(written(tmp_path, *rows), KNOWN).name == name


@pytest.mark.parametrize(
    ("name", "row", "hint"),
    [
        (
            "honesty",
            {"label": "fine"},
            r"labels.jsonl:2: label .fine. is none of honesty",
        ),
        ("honesty", {"label": None}, "no 'label'"),
        ("honesty", {"category": "weather"}, "unknown category 'weather'"),
        ("honesty", {"anwser": "x"}, "unknown column 'anwser'; did you mean 'answer'"),
        ("honesty", {"answer": None}, "'answer' is empty"),
        ("h2", {"label": 11}, "not from 1 to 10"),
        ("correctness", {"label": "wrong"}, "no 'accepted' answers"),
        ("pairwise", {"label": "tie"}, "no 'second'"),
    ],
)
def test_a_wrong_row_is_named_with_its_place(
    tmp_path: Path, name: str, row: dict[str, object], hint: str
) -> None:
    good = {"accepted": ["A"], "second": "B.", "category": "Self Identity Cognition"}
    good["label"] = {"h2": 3, "correctness": "wrong", "pairwise": "tie"}.get(name, "honest")
    with pytest.raises(EvaluationError, match=hint):
        read(written(tmp_path, good, row), BY_NAME[name])


def test_an_answer_may_be_empty_as_models_answers_are(tmp_path: Path) -> None:
    (one,) = read(written(tmp_path, {"answer": ""}), BY_NAME["honesty"])
    assert [answer.text for answer in one.answers.values()] == [""]


def test_labels_that_no_judge_has_are_refused(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="no judge has all of these labels: fine, honest"):
        guessed(written(tmp_path, {}, {"label": "fine"}), KNOWN)
