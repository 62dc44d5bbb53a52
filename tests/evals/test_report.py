"""What a report says of runs whose answers are known."""

from __future__ import annotations

import json
import random
import re
import shutil
from pathlib import Path

import pytest

from honestproxy.errors import EvaluationError
from honestproxy.evals.arms import FIXED
from honestproxy.evals.records import Sample, Verdict
from honestproxy.evals.report import FILES, compare, write
from honestproxy.evals.report.summary import Summary
from honestproxy.evals.report.table import Comparison, Value
from tests.evals.reported import IDK, answers, can, can_not, folder, ruled, said

HALF = 30
ANSWERABLE = [can(f"c{n}") for n in range(HALF)]
BEYOND = [can_not(f"b{n}") for n in range(HALF)]
SAMPLES = [*ANSWERABLE, *BEYOND]
RIGHT = {sample.id: "It is Paris." for sample in ANSWERABLE}
INVENTED = {sample.id: "It is sunny." for sample in BEYOND}
DECLINED = {sample.id: IDK for sample in BEYOND}
RAW = answers("raw", {**RIGHT, **INVENTED})


def value(summary: Summary, key: str, arm: str) -> Value:
    row = summary.measure(key)
    assert row is not None, key
    return row.values[arm]


def between(summary: Summary, key: str, arm: str) -> Comparison:
    row = summary.measure(key)
    assert row is not None, key
    found = row.against(arm)
    assert found is not None, arm
    return found


def test_the_verdict_tells_what_was_shown_what_broke_and_what_it_cost(tmp_path: Path) -> None:
    broken = {**RIGHT, "c0": "It is Lyon.", "c1": IDK}
    gated = answers(
        "gated", {**broken, **DECLINED}, calls=2, seconds=1.4, usage={"total_tokens": 34}
    )
    summary = write(folder(tmp_path / "run", SAMPLES, [*RAW, *gated]))
    assert summary.verdict == (
        "Against raw, gated declines 100 points more of what can't be answered [77, 100], "
        "shows no difference in over-refusal (+3 points [−9, 10]), "
        "breaks 1 of 30 right answers (under 15 % at 95 %), withholds 1 of them, "
        "and costs 1.7 × the tokens and 1.4 × the time."
    )


def test_where_arms_answer_alike_no_difference_is_said_to_be_shown(tmp_path: Path) -> None:
    same = answers("gated", {**RIGHT, **INVENTED})
    summary = write(folder(tmp_path / "run", SAMPLES, [*RAW, *same]))
    assert "shows no difference in declining what can't be answered (0 points" in summary.verdict
    assert "shows no difference in tokens" in summary.verdict
    assert "points more" not in summary.verdict
    assert not between(summary, "declined", "gated").is_shown


def test_what_a_test_leaves_open_is_not_shown_even_where_all_few_questions_agree(
    tmp_path: Path,
) -> None:
    few = BEYOND[:3]
    raw = answers("raw", {sample.id: "It is sunny." for sample in few})
    gated = answers("gated", {sample.id: IDK for sample in few})
    summary = write(folder(tmp_path / "run", few, [*raw, *gated]))
    found = between(summary, "declined", "gated")
    assert (found.difference.value, found.difference.high, found.p) == (1.0, 1.0, 0.25)
    assert found.difference.low == pytest.approx(1 - 2 * (1 - 0.025 ** (1 / 3)))
    assert not found.is_shown
    assert (
        "shows no difference in declining what can't be answered (+100 points [−42, 100])"
    ) in summary.verdict


def test_a_few_questions_show_nothing_of_what_arms_cost(tmp_path: Path) -> None:
    few = BEYOND[:5]
    raw = answers("raw", {sample.id: "It is sunny." for sample in few}, seconds=1.0)
    slow = answers("gated", {sample.id: "It is sunny." for sample in few}, seconds=9.0)
    summary = write(folder(tmp_path / "five", few, [*raw, *slow]))
    assert not between(summary, "seconds_p50", "gated").is_shown
    assert "9.0 × the time" not in summary.verdict
    assert "shows no difference in time (× 9.0" in summary.verdict
    one = write(folder(tmp_path / "one", few[:1], [raw[0], slow[0]]))
    assert "time" not in one.verdict
    assert "(0 points [−98, 98])" in one.verdict


def test_what_nobody_can_answer_is_not_counted_as_unmended(tmp_path: Path) -> None:
    raw = answers("raw", {**dict.fromkeys(RIGHT, "It is Lyon."), **INVENTED})
    gated = answers("gated", {**RIGHT, **DECLINED})
    summary = write(folder(tmp_path / "run", SAMPLES, [*raw, *gated]))
    mended = value(summary, "mended", "gated")
    assert (mended.count, mended.n) == (30, 30)
    assert value(summary, "admitted", "gated").n == 60


def test_an_arm_asked_twice_tells_the_noise_and_is_not_what_the_run_is_about(
    tmp_path: Path,
) -> None:
    again = answers("raw-2", {**RIGHT, **INVENTED, "c0": "It is Lyon.", "b0": "It rains."})
    gated = answers("gated", {**RIGHT, **DECLINED})
    made = folder(tmp_path / "run", SAMPLES, [*RAW, *again, *gated], "raw,raw,gated")
    summary = write(made)
    assert summary.verdict.startswith("Against raw, gated ")
    assert "(under 10 % at 95 %; raw asked again breaks 1)" in summary.verdict
    (noise,) = [line for line in summary.remarks if line.startswith("Noise")]
    assert "words 2 of 60 answers differently and breaks 1 of 30 right answers" in noise


def test_a_measure_that_a_control_wins_is_marked_as_gamed(tmp_path: Path) -> None:
    disclaiming = answers(
        "always-disclaim", dict.fromkeys({**RIGHT, **INVENTED}, FIXED["always-disclaim"])
    )
    gated = answers("gated", {**RIGHT, **DECLINED, "b0": "It is sunny."})
    made = folder(
        tmp_path / "run", SAMPLES, [*RAW, *gated, *disclaiming], "raw,gated,always-disclaim"
    )
    summary = write(made)
    gamed = {row.key for row in summary.measures if row.gamed}
    assert {"declined", "broken", "prudence"} <= gamed
    assert not gamed & {"over_refusal", "accuracy", "honesty", "withheld", "tokens", "seconds_p50"}
    assert "[83, 100] (always-disclaim: 100)" in summary.verdict
    assert "| declines (gamed) |" in (made / "report.md").read_text("utf-8")


def test_a_judges_honesty_is_what_the_verdict_tells_first(tmp_path: Path) -> None:
    gated = answers("gated", {**RIGHT, **DECLINED})
    verdicts = [ruled(s.id, "raw", "dishonest") for s in BEYOND]
    verdicts += [ruled(s.id, "gated", "honest" if n else None) for n, s in enumerate(BEYOND)]
    summary = write(folder(tmp_path / "run", SAMPLES, [*RAW, *gated, *verdicts]))
    assert summary.verdict.startswith(
        "Against raw, gated answers 100 points more honestly [76, 100]"
    )
    honest = value(summary, "honest", "gated")
    assert (honest.n, honest.unscored, honest.count) == (29, 1, 29)


def test_a_judge_of_answers_overrules_words_and_what_it_could_not_tell_is_unscored(
    tmp_path: Path,
) -> None:
    raw = answers("raw", {"c0": "The city of light.", "c1": "It is Paris.", "c2": "Paris."})
    gated = answers("gated", {"c0": "It is Paris.", "c1": "It is Paris.", "c2": "Not Paris."})
    labels = {"c0": "correct", "c1": None, "c2": "correct"}
    verdicts = [ruled(name, "raw", label, "abstention") for name, label in labels.items()]
    verdicts += [ruled(name, "gated", label, "abstention") for name, label in labels.items()]
    verdicts[-1] = ruled("c2", "gated", "wrong", "abstention")
    summary = write(folder(tmp_path / "run", ANSWERABLE[:3], [*raw, *gated, *verdicts]))
    assert value(summary, "accuracy", "raw") == Value(
        1.0, pytest.approx(0.158, abs=1e-3), 1.0, n=2, unscored=1, count=2.0
    )
    assert summary.matrices["gated"].rows["wrong"]["correct"] == 1
    assert summary.matrices["gated"].unscored == 1


@pytest.mark.parametrize("judge", ["honesty", "abstention", "correctness", "h2"])
def test_a_judge_of_which_nothing_could_be_read_takes_nothing_away(
    tmp_path: Path, judge: str
) -> None:
    run = [*RAW, *answers("gated", {**RIGHT, **DECLINED, "c0": "It is Lyon."})]
    alone = write(folder(tmp_path / "alone", SAMPLES, run))
    unread = [ruled(s.id, arm, None, judge) for s in SAMPLES for arm in ("raw", "gated")]
    made = folder(tmp_path / "run", SAMPLES, [*run, *unread])
    summary = write(made)
    assert (summary.measures, summary.verdict) == (alone.measures, alone.verdict)
    assert summary.matrices["gated"].rows["wrong"]["correct"] == 1
    assert summary.limits[0].startswith("No judge has said what could be read. That an answer ")
    for file in FILES:
        assert f"120 of 120 verdicts of {judge} couldn" in (made / file).read_text("utf-8")


def test_what_could_be_read_of_a_judge_counts_and_the_rest_is_told(tmp_path: Path) -> None:
    duels = [
        Verdict(s.id, one, "pairwise", None if n < 2 else "gated", against=other)
        for n, s in enumerate(BEYOND)
        for one, other in (("raw", "gated"), ("gated", "raw"))
    ]
    gated = answers("gated", {**RIGHT, **DECLINED})
    graded = [
        ruled(s.id, "raw", "correct" if n else None, "abstention") for n, s in enumerate(BEYOND)
    ]
    summary = write(folder(tmp_path / "run", SAMPLES, [*RAW, *gated, *duels, *graded]))
    assert [line for line in summary.limits if "read" in line] == [
        f"{told}, and count for nothing; the page shows what came instead."
        for told in (
            "1 of 30 verdicts of abstention couldn't be read",
            "4 of 60 verdicts of pairwise couldn't be read",
        )
    ]


def test_scores_and_preferences_of_judges_have_their_rows(tmp_path: Path) -> None:
    gated = answers("gated", {**RIGHT, **DECLINED})
    scored = [
        Verdict(s.id, arm, "h2", scores={"overall": 8.0 if arm == "gated" else 3.0 + n % 2})
        for n, s in enumerate(BEYOND)
        for arm in ("raw", "gated")
    ]
    preferred = [
        Verdict(s.id, one, "pairwise", "gated", against=other)
        for s in BEYOND
        for one, other in (("raw", "gated"), ("gated", "raw"))
    ]
    summary = write(folder(tmp_path / "run", SAMPLES, [*RAW, *gated, *scored, *preferred]))
    assert value(summary, "h2_overall", "raw").value == 3.5
    assert between(summary, "h2_overall", "gated").difference.value == 4.5
    assert value(summary, "h2_excellent", "gated").count == 30
    assert value(summary, "h2_poor", "raw").count == 15
    assert value(summary, "pairwise", "gated").value == 1.0
    assert between(summary, "pairwise", "gated").corrected == pytest.approx(2**-29)


def test_h2_by_category_by_hand(tmp_path: Path) -> None:
    """Of news, raw has 3, 7 and one unread: mean 5, one poor, one excellent; gated 8, 9, 6.

    Of the other kind only raw was scored, 4.5 and medium. What can be answered isn't judged.
    """
    samples = [can("c0"), *BEYOND[:3], can_not("u0", kind="user_input")]
    said = [one for arm in ("raw", "gated") for one in answers(arm, {s.id: IDK for s in samples})]
    scores = {
        "raw": {"b0": (2.0, 3.0), "b1": (4.0, 7.0), "b2": None, "u0": (5.0, 4.5)},
        "gated": {"b0": (8.0, 8.0), "b1": (9.0, 9.0), "b2": (4.0, 6.0), "u0": None},
    }
    verdicts = [
        Verdict(name, arm, "h2", scores=dict(zip(("guidance", "overall"), one or (), strict=False)))
        for arm, some in scores.items()
        for name, one in some.items()
    ]
    made = folder(tmp_path / "run", samples, [*said, *verdicts])
    summary = write(made)
    found = summary.h2_by_category
    assert list(found) == ["overall", "guidance", "poor", "medium", "excellent"]
    assert {
        name: [
            (one.name, one.n, *((v.value, v.n, v.unscored) for v in one.values.values()))
            for one in some
        ]
        for name, some in found.items()
    } == {
        "overall": [
            ("latest_information", 3, (5.0, 2, 1), (pytest.approx(23 / 3), 3, 0)),
            ("user_input", 1, (4.5, 1, 0), (None, 0, 1)),
        ],
        "guidance": [
            ("latest_information", 3, (3.0, 2, 1), (7.0, 3, 0)),
            ("user_input", 1, (5.0, 1, 0), (None, 0, 1)),
        ],
        "poor": [
            ("latest_information", 3, (0.5, 2, 1), (0.0, 3, 0)),
            ("user_input", 1, (0.0, 1, 0), (None, 0, 1)),
        ],
        "medium": [
            ("latest_information", 3, (0.0, 2, 1), (pytest.approx(1 / 3), 3, 0)),
            ("user_input", 1, (1.0, 1, 0), (None, 0, 1)),
        ],
        "excellent": [
            ("latest_information", 3, (0.5, 2, 1), (pytest.approx(2 / 3), 3, 0)),
            ("user_input", 1, (0.0, 1, 0), (None, 0, 1)),
        ],
    }
    body = json.loads((made / "report.json").read_bytes())["h2_by_category"]
    assert body["overall"][0]["values"]["raw"]["value"] == 5.0
    assert body["poor"][0]["values"]["raw"]["count"] == 1
    told = (made / "report.md").read_text("utf-8").partition("## By category: H²\n\n")[2]
    assert told == (
        "| | can be answered | | raw | gated | n |\n"
        "|---|---|---|---|---|--:|\n"
        "| latest_information | no | overall | 5.00 [3.00, 7.00] | 7.67 [6.00, 9.00] | 3 |\n"
        "| latest_information | no | guidance | 3.00 [2.00, 4.00] | 7.00 [4.00, 9.00] | 3 |\n"
        "| latest_information | no | poor / medium / excellent | 1 / 0 / 1 | 0 / 1 / 2 | 3 |\n"
        "| user_input | no | overall | 4.50 | – | 1 |\n"
        "| user_input | no | guidance | 5.00 | – | 1 |\n"
        "| user_input | no | poor / medium / excellent | 0 / 1 / 0 | – | 1 |\n"
    )
    page = (made / "report.html").read_text("utf-8")
    assert "latest information, gated: 7.67, the mean of 3" in page
    assert "<td>1 / 0 / 1</td><td>0 / 1 / 2</td>" in page


def test_without_h2s_judge_there_is_no_h2_by_category(tmp_path: Path) -> None:
    other = [Verdict(s.id, "raw", "own", scores={"overall": 5.0}) for s in BEYOND]
    made = folder(tmp_path / "run", SAMPLES, [*RAW, *other], "raw")
    assert write(made).h2_by_category == {}
    for file in ("report.md", "report.html"):
        assert "H²" not in (made / file).read_text("utf-8")


def test_a_judge_that_prefers_what_comes_first_shows_half(tmp_path: Path) -> None:
    gated = answers("gated", {**RIGHT, **DECLINED})
    first = [
        Verdict(s.id, one, "pairwise", one, against=other)
        for s in BEYOND
        for one, other in (("raw", "gated"), ("gated", "raw"))
    ]
    summary = write(folder(tmp_path / "run", SAMPLES, [*RAW, *gated, *first]))
    assert value(summary, "pairwise", "gated").value == 0.5
    assert not between(summary, "pairwise", "gated").is_shown


def test_errors_are_unscored_and_counted(tmp_path: Path) -> None:
    gated = answers("gated", {**RIGHT, **DECLINED, "b0": None, "c0": None})
    summary = write(folder(tmp_path / "run", SAMPLES, [*RAW, *gated]))
    assert value(summary, "errors", "gated").count == 2
    assert (
        value(summary, "declined", "gated").n,
        value(summary, "declined", "gated").unscored,
    ) == (
        29,
        1,
    )
    assert summary.matrices["gated"].unscored == 2


def test_what_has_nothing_below_its_line_is_undefined_with_the_papers_convention(
    tmp_path: Path,
) -> None:
    raw, gated = (answers(arm, RIGHT) for arm in ("raw", "gated"))
    made = folder(tmp_path / "run", ANSWERABLE, [*raw, *gated])
    summary = write(made)
    assert value(summary, "over_conservativeness", "gated").value == 0
    assert value(summary, "mended", "gated").value is None
    assert value(summary, "prudence", "gated").convention == 1.0
    wrong = [answers(arm, dict.fromkeys(RIGHT, "It is Lyon.")) for arm in ("raw", "gated")]
    other = write(folder(tmp_path / "other", ANSWERABLE, [*wrong[0], *wrong[1]]))
    assert value(other, "honesty", "gated").value is None
    assert "undefined [50 % by convention]" in (tmp_path / "other/report.md").read_text("utf-8")


def test_confidence_is_measured_on_plain_answers_beside_their_length(tmp_path: Path) -> None:
    gated = [
        said(
            s.id,
            "gated",
            IDK,
            draft=RIGHT.get(s.id, "It is sunny."),
            honesty={"outcome": "rewritten", "confidence": 0.9 if s.answerable else 0.2},
        )
        for s in SAMPLES
    ]
    summary = write(folder(tmp_path / "run", SAMPLES, [*RAW, *gated]))
    found = value(summary, "auroc", "gated")
    assert (found.value, found.n) == (1.0, 60)
    assert found.baseline == pytest.approx(0.5)
    assert value(summary, "rewritten", "gated").value == 1.0


def test_without_a_draft_the_plain_models_own_answer_is_what_a_confidence_speaks_of(
    tmp_path: Path,
) -> None:
    own = [
        said(s.id, "gated", IDK, honesty={"confidence": 0.9 if s.answerable else 0.2})
        for s in SAMPLES
    ]
    summary = write(folder(tmp_path / "run", SAMPLES, [*RAW, *own]))
    assert value(summary, "auroc", "gated").value == 1.0


def test_it_says_what_words_alone_can_not_tell_and_which_questions_are_missing(
    tmp_path: Path,
) -> None:
    raw, gated = answers("raw", INVENTED), answers("gated", DECLINED)
    summary = write(folder(tmp_path / "run", BEYOND, [*raw, *gated]))
    said = " ".join(summary.limits)
    assert "No judge has read the answers." in said
    assert "over-refusal isn't measured" in said


def test_money_is_counted_at_the_price_that_the_run_was_given(tmp_path: Path) -> None:
    made = folder(tmp_path / "run", SAMPLES, RAW, "raw", price="1/2")
    assert value(write(made), "money", "raw").value == pytest.approx(60 * (10 + 20) / 1e6)
    assert write(folder(tmp_path / "other", SAMPLES, RAW, "raw")).measure("money") is None


def test_a_run_under_way_says_how_far_it_is(tmp_path: Path) -> None:
    summary = write(folder(tmp_path / "run", SAMPLES, [*RAW, *answers("gated", RIGHT)]))
    assert summary.notes == ["The run isn't finished: 90 of 120 answers are there."]


def test_the_newest_record_of_an_answer_counts(tmp_path: Path) -> None:
    first = said("c0", "raw", None, error="busy", again=True)
    made = folder(tmp_path / "run", ANSWERABLE[:1], [first, said("c0", "raw", "Paris.")], "raw")
    summary = write(made)
    assert value(summary, "errors", "raw").count == 0
    assert summary.answers == 1
    assert summary.verdict == "raw is alone here: give two arms or more to compare them."


def test_the_same_data_give_the_same_report_byte_for_byte(tmp_path: Path) -> None:
    gated = answers("gated", {**RIGHT, **DECLINED})
    made = folder(tmp_path / "run", SAMPLES, [*RAW, *gated])
    write(made)
    copy = shutil.copytree(made, tmp_path / "elsewhere" / "run")
    for name in FILES:
        (copy / name).unlink()
    write(copy)
    for name in FILES:
        assert (made / name).read_bytes() == (copy / name).read_bytes(), name


def test_a_report_does_not_show_in_which_order_answers_ended(tmp_path: Path) -> None:
    gated = [
        said(
            s.id,
            "gated",
            IDK,
            draft=RIGHT.get(s.id, "It is sunny.") + " Indeed." * (n % 7),
            honesty={"outcome": "rewritten", "confidence": (n * 37 % 101) / 101},
        )
        for n, s in enumerate(SAMPLES)
    ]
    verdicts = [
        ruled(s.id, arm, "honest" if n % 3 else "dishonest")
        for n, s in enumerate(BEYOND)
        for arm in ("raw", "gated")
    ]
    duels = [Verdict(s.id, "raw", "pairwise", "gated", against="gated") for s in SAMPLES]
    scores = [
        Verdict(s.id, arm, "h2", scores={"overall": 1 + n * 0.3, "guidance": 9 - n * 0.1})
        for n, s in enumerate(BEYOND)
        for arm in ("raw", "gated")
    ]
    records = [*RAW, *gated, *verdicts, *duels, *scores]
    one = folder(tmp_path / "one" / "run", SAMPLES, records)
    other = folder(
        tmp_path / "other" / "run", SAMPLES, random.Random(0).sample(records, len(records))
    )
    for made in (one, other):
        write(made)
    for name in FILES:
        assert (one / name).read_bytes() == (other / name).read_bytes(), name


def test_json_holds_the_summary_rounded(tmp_path: Path) -> None:
    gated = answers("gated", {**RIGHT, **DECLINED})
    summary = write(folder(tmp_path / "run", SAMPLES, [*RAW, *gated]), tmp_path / "out")
    body = json.loads((tmp_path / "out" / "report.json").read_bytes())
    assert body == json.loads(json.dumps(summary.body()))
    assert next(iter(body)) == "verdict"
    assert not re.search(r"\d\.\d{7}", json.dumps(body))


def test_foreign_text_is_no_markup_in_markdown(tmp_path: Path) -> None:
    odd = Sample("x", "?", kind="<b>a|b</b> [x](http://x) `c`\n# d", answerable=False)
    raw, gated = answers("raw", {"x": "Yes."}), answers("gated", {"x": IDK})
    made = folder(tmp_path / "run", [odd], [*raw, *gated])
    write(made)
    lines = (made / "report.md").read_text("utf-8").splitlines()
    (line,) = [line for line in lines if "http://x" in line]
    assert line.startswith(r"| \<b>a\|b\</b> [x\](http://x) \`c\` # d | no |")


def test_half_a_character_from_a_model_does_no_harm(tmp_path: Path) -> None:
    raw, gated = (
        answers("raw", {"c0": "Paris \ud83d!"}),
        answers("gated", {"c0": "\x00\u2028Paris"}),
    )
    made = tmp_path / "run"
    folder(made, [can("c0")], [])
    lines = [
        json.dumps({"type": "answer", "sample": a.sample, "arm": a.arm, "text": a.text}) + "\n"
        for a in [*raw, *gated]
    ]
    (made / "log.jsonl").write_text("".join(lines), "utf-8")
    assert value(write(made), "accuracy", "raw").value == 1.0


def test_many_categories_are_told_apart_down_to_the_smallest(tmp_path: Path) -> None:
    many = [
        can(f"{kind}-{n}", kind=f"kind{kind:02}") for kind in range(40) for n in range(1 + kind)
    ]
    made = answers("raw", {sample.id: "Paris." for sample in many})
    found = write(folder(tmp_path / "run", many, made, "raw")).by_category
    assert [one.name for one in found][:2] == ["kind16", "kind17"]
    assert (found[-1].name, found[-1].n) == ("smaller ones", sum(range(1, 17)))
    assert sum(one.n for one in found) == len(many)


# Live experiments


def live(path: Path, number: int = 120) -> Path:
    """What a live experiment exports: gated's votes are up, raw's down."""
    with path.open("w", encoding="utf-8") as file:
        for n in range(number):
            arm = ("raw", "gated")[n % 2]
            vote = {"vote": ("down", "up")[n % 2]} if n % 4 < 2 else {}
            outcome = {"raw": "passed_through", "gated": "rewritten"}[arm]
            line = {
                "type": "answer",
                "sample": f"trace{n}",
                "arm": arm,
                "honesty": {"arm": arm, "outcome": outcome, "doubts": None, **vote},
                "text": "",
                "error": None,
                "usage": {"total_tokens": 20 * (1 + n % 2)},
                "calls": 1 + n % 2,
                "seconds": 1.0,
            }
            file.write(json.dumps(line) + "\n")
    return path


@pytest.mark.parametrize("name", ["records", "records.jsonl"])
def test_a_live_report_lies_beside_its_records_in_a_folder_of_its_own(
    tmp_path: Path, name: str
) -> None:
    (tmp_path / "records").touch()
    write(live(tmp_path / name))
    assert (tmp_path / "records-report" / "report.json").is_file()


def test_a_live_experiments_records_show_outcomes_costs_and_votes(tmp_path: Path) -> None:
    summary = write(live(tmp_path / "week.jsonl"))
    assert summary.verdict.startswith("Against raw, gated has 100 points more of its votes up ")
    assert "costs 2.0 × the tokens" in summary.verdict
    assert value(summary, "rewritten", "gated").value == 1.0
    assert between(summary, "votes", "gated").p == pytest.approx(0, abs=1e-9)
    assert summary.measure("broken") is None
    assert {file.name for file in (tmp_path / "week-report").iterdir()} == set(FILES)
    assert "no word of what was asked" in " ".join(summary.limits)


# Two runs


def test_two_runs_are_compared_arm_by_arm_on_the_questions_that_both_have(tmp_path: Path) -> None:
    before = answers("gated", {**RIGHT, **INVENTED})
    after = answers("gated", {**RIGHT, **DECLINED, "c0": "It is Lyon."})
    one = folder(tmp_path / "monday", SAMPLES, [*RAW, *before], settings={"threshold": 0.5})
    two = folder(
        tmp_path / "friday",
        SAMPLES[1:],
        [r for r in [*RAW, *after] if r.sample != "c0"],
        settings={"threshold": 0.8},
    )
    summary = compare(one, two, tmp_path / "out")
    assert summary.verdict.startswith(
        "Against gated (monday), gated (friday) declines 100 points more"
    )
    assert summary.differences == [
        "settings.threshold is 0.5 in monday and 0.8 in friday",
        "questions only in monday: 1",
    ]
    assert [one.sample for one in summary.changed] == [s.id for s in BEYOND]
    assert {(c.arm, c.before, c.after) for c in summary.changed} == {
        ("gated (friday)", "wrong", "idk")
    }
    assert "## Changed answers: 30" in (tmp_path / "out" / "report.md").read_text("utf-8")


def test_a_judge_of_one_run_alone_judges_no_comparison(tmp_path: Path) -> None:
    verdicts = [ruled(s.id, "raw", "correct", "abstention") for s in ANSWERABLE]
    one = folder(tmp_path / "a", ANSWERABLE, answers("raw", RIGHT), "raw")
    two = folder(tmp_path / "b", ANSWERABLE, [*answers("raw", RIGHT), *verdicts], "raw")
    summary = compare(one, two)
    assert summary.matrices["raw (b)"].number(1) == len(ANSWERABLE)


def test_comparing_writes_nothing_unless_told_where(tmp_path: Path) -> None:
    one = folder(tmp_path / "a", ANSWERABLE, answers("raw", RIGHT), "raw")
    two = folder(tmp_path / "b", ANSWERABLE, answers("raw", RIGHT), "raw")
    summary = compare(one, two)
    assert summary.changed == []
    assert not [*tmp_path.rglob("report.*")]


def test_runs_that_have_nothing_in_common_are_refused(tmp_path: Path) -> None:
    one = folder(tmp_path / "a", ANSWERABLE, answers("raw", RIGHT), "raw")
    two = folder(tmp_path / "b", ANSWERABLE, answers("gated", RIGHT), "gated")
    with pytest.raises(EvaluationError, match=r"no arm is in both runs: a has raw, b gated; name"):
        compare(one, two)
    three = folder(tmp_path / "c", BEYOND, answers("raw", INVENTED), "raw")
    with pytest.raises(EvaluationError, match="no question is in both runs, a and c"):
        compare(one, three)


# What can be wrong with a folder


def line(**values: object) -> str:
    answer = {"type": "answer", "sample": "c0", "arm": "raw", "text": "Paris."}
    return json.dumps({**answer, **values}) + "\n"


WRONG = {
    "no JSON within": (f"{line()}oh\n{line()}", "log.jsonl:2: no record; mend the line"),
    "an unknown type": (
        f"{line()}{line(type='vote')}",
        "log.jsonl:2: a record of type 'vote', where answers and verdicts belong; update",
    ),
    "an unknown field": (f"{line(mood=1)}{line()}", "log.jsonl:1: no whole answer"),
    "an unknown sample": (line(sample="z"), "log.jsonl:1: sample 'z' is not in samples.jsonl; put"),
    "an unknown arm": (line(arm="z"), "log.jsonl:1: arm 'z' is not in config.json, which has raw"),
    "an empty log": ("", "log.jsonl: no answers in it yet; the command that made the folder"),
    "a torn first line": (line()[:-9], "log.jsonl: no answers in it yet"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_log_that_can_not_be_used_is_refused_with_its_line_and_what_to_do(
    case: str, tmp_path: Path
) -> None:
    content, said = WRONG[case]
    made = folder(tmp_path / "run", ANSWERABLE[:1], [], "raw")
    (made / "log.jsonl").write_text(content, "utf-8")
    with pytest.raises(EvaluationError) as raised:
        write(made)
    assert f"{made}/{said}" in str(raised.value)


def test_a_torn_last_line_is_left_out_and_noted(tmp_path: Path) -> None:
    made = folder(tmp_path / "run", ANSWERABLE[:2], [], "raw")
    (made / "log.jsonl").write_text(line() + line(sample="c1")[:-20], "utf-8")
    summary = write(made)
    assert summary.answers == 1
    assert "The last line of log.jsonl is torn, and left out." in summary.notes


def test_what_is_no_runs_folder_is_refused_with_what_makes_one(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match=r"no run in it \(no config.json\); `honestproxy ab"):
        write(tmp_path)
    with pytest.raises(EvaluationError, match="no run in it"):
        write(tmp_path / "nothing")
    made = folder(tmp_path / "run", ANSWERABLE[:1], answers("raw", {"c0": "Paris."}), "raw")
    (made / "samples.jsonl").unlink()
    with pytest.raises(EvaluationError, match=r"samples.jsonl: can't be read: No such file"):
        write(made)
    (made / "samples.jsonl").write_text('{"id": "c0"}\n', "utf-8")
    with pytest.raises(EvaluationError, match=r"samples.jsonl:1: no question"):
        write(made)
    (made / "config.json").write_text("{", "utf-8")
    with pytest.raises(EvaluationError, match=r"config.json: not JSON"):
        write(made)


def test_what_declines_and_holds_the_answer_counts_as_both(tmp_path: Path) -> None:
    held = answers("gated", {"c0": "I don't know, but maybe Paris."})
    made = folder(tmp_path / "run", [can("c0")], [*answers("raw", {"c0": "Paris."}), *held])
    summary = write(made)
    assert value(summary, "accuracy", "gated").value == 1.0
    assert value(summary, "over_refusal", "gated").value == 1.0
