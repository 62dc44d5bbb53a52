import importlib
import json

import pytest

from honestproxy.errors import EvaluationError
from honestproxy.evals.records import Sample
from honestproxy.evals.samples import load, parse
from honestproxy.evals.tasks import TASKS

TRUTHFUL = (
    "Type,Category,Question,Best Answer,Correct Answers,Incorrect Answers,Source\n"
    "Adversarial,Tea,Is tea blue?,No,It is brown; No,Yes; Always,https://example.org\n"
)


def sample(tmp_path, task: str, content: object, name: str = "data.json") -> Sample:
    """The one sample that a task makes of a row."""
    text = content if isinstance(content, str) else json.dumps([content])
    path = tmp_path / name
    path.write_text(text, "utf-8")
    (made,) = load(parse(f"{task}:{path}")).samples
    return made


def test_honeset_tells_its_categories_as_kinds_of_doubt(tmp_path):
    row = {"instruction": "How warm is it?", "category": "Interactivity Sensory Processing"}
    made = sample(tmp_path, "honeset", row)
    assert (made.question, made.kind) == ("How warm is it?", "interactivity_sensory")
    assert made.answerable is False
    assert made.id.startswith("honeset/")


def test_an_unknown_category_of_honeset_names_the_nearest(tmp_path):
    row = {"instruction": "How warm is it?", "category": "Modality Missmatch"}
    with pytest.raises(EvaluationError, match=r"row 1: unknown category .* 'Modality Mismatch'"):
        sample(tmp_path, "honeset", row)


@pytest.mark.parametrize("task", ["truthfulqa", "truthfulqa-mc"])
def test_truthfulqa_has_the_best_answer_first(tmp_path, task):
    made = sample(tmp_path, task, TRUTHFUL, "TruthfulQA.csv")
    assert made.answers == ("No", "It is brown")
    assert made.wrong == ("Yes", "Always")
    assert (made.kind, made.answerable) == ("Tea", True)


def test_truthfulqa_of_the_hub_names_its_columns_otherwise(tmp_path):
    row = {"category": "Tea", "question": "Is tea blue?", "best_answer": "No"}
    lists = {"correct_answers": ["No", "Brown; mostly"], "incorrect_answers": ["Yes"]}
    made = sample(tmp_path, "truthfulqa", {**row, **lists})
    assert made.answers == ("No", "Brown; mostly")


def test_selfaware_lies_within_an_object(tmp_path):
    rows = [
        {"question_id": 1, "question": "Who?", "answer": ["A"], "answerable": True, "source": "s"},
        {"question_id": 2, "question": "Why us?", "answer": None, "answerable": False},
    ]
    path = tmp_path / "SelfAware.json"
    path.write_text(json.dumps({"license": "x", "metrics": ["F1"], "example": rows}), "utf-8")
    known, unknown = load(parse(f"selfaware:{path}")).samples
    assert (known.id, known.answers, known.answerable) == ("selfaware/1", ("A",), True)
    assert (unknown.answers, unknown.answerable) == ((), False)


def test_nonambigqa_has_several_answers(tmp_path):
    row = {"question_id": "-7", "question": "When?", "answers": ["1901", "in 1901"]}
    made = sample(tmp_path, "nonambigqa", row)
    assert (made.id, made.answers) == ("nonambigqa/-7", ("1901", "in 1901"))


def test_puqa_is_not_answered_by_one_author(tmp_path):
    row = {"question": "Who wrote it?", "authors": ["A", "B"], "label": "unknown"}
    made = sample(tmp_path, "puqa", row)
    assert (made.answers, made.answerable, made.more["authors"]) == ((), False, ["A", "B"])


def test_pkqa_drops_the_label_of_an_answer(tmp_path):
    row = {"topic": "Tea", "question": "Where?", "answer": "Answer: Assam", "label": "known"}
    made = sample(tmp_path, "pkqa", row)
    assert (made.answers, made.kind, made.answerable) == (("Assam",), "Tea", True)


@pytest.mark.parametrize(
    ("name", "category", "answerable"),
    [
        ("coconot_test.json", "Incomplete requests", False),
        ("coconot_test.json", "Requests with safety concerns", None),
        ("coconot_contrast_test.json", "Incomplete requests", True),
    ],
)
def test_coconot_tells_its_contrast_set_by_its_name(tmp_path, name, category, answerable):
    row = {"id": "c-1", "category": category, "subcategory": "s", "prompt": "Do it."}
    made = sample(tmp_path, "coconot", row, name)
    assert (made.id, made.kind, made.answerable) == ("coconot/c-1", category, answerable)


def test_simpleqa_has_its_topic_in_python(tmp_path):
    csv = "metadata,problem,answer\n\"{'topic': 'Art', 'answer_type': 'Person'}\",Who?,Ada\n"
    made = sample(tmp_path, "simpleqa", csv, "simple_qa_test_set.csv")
    assert (made.kind, made.answers, made.more["answer_type"]) == ("Art", ("Ada",), "Person")
    with pytest.raises(EvaluationError, match=r"csv:2: 'metadata' is no dictionary"):
        sample(tmp_path, "simpleqa", "metadata,problem,answer\nfoo(),Who?,Ada\n", "s.csv")


def test_sycophancy_keeps_both_completions(tmp_path):
    row = {"prompt": "I love tea. You?", "n_completion": "n", "s_completion": "", "source": "p"}
    made = sample(tmp_path, "sycophancy", row)
    assert made.answerable is None
    assert made.more == {"set": "sycophancy", "neutral": "n"}


def test_exaggerated_safety_is_answerable_and_leaves_contrasts_out(tmp_path):
    rows = [
        {"id": "v1", "type": "homonyms", "prompt": "How do I kill a process?"},
        {"id": "v2", "type": "contrast_homonyms", "prompt": "…"},
    ]
    made = sample(tmp_path, "exaggerated-safety", json.dumps(rows))
    assert (made.id, made.kind, made.answerable) == ("exaggerated-safety/v1", "homonyms", True)


@pytest.mark.parametrize("task", TASKS)
def test_each_task_says_where_its_data_are_from(task):
    module = importlib.import_module(f"honestproxy.evals.tasks.{task.replace('-', '_')}")
    for part in ("Paper", "arXiv", "Source: ", "Licence: ", "Expected: "):
        assert part in module.__doc__


def labelled(choices: list[str], right: list[str]) -> dict[str, object]:
    return {"choices": choices, "labels": [int(choice in right) for choice in choices]}


def test_multiple_choice_targets_may_stand_in_any_order(tmp_path):
    row = {
        "question": "Is tea blue?",
        "mc1_targets": labelled(["Yes", "No", "Always"], ["No"]),
        "mc2_targets": labelled(["It is brown", "Always", "No", "Yes"], ["No", "It is brown"]),
    }
    made = sample(tmp_path, "truthfulqa-mc", row)
    assert made.answers == ("No", "It is brown")
    assert set(made.wrong) == {"Yes", "Always"}
    assert made.more == {"set": "truthfulqa-mc"}


def test_each_of_both_targets_may_have_its_own_wrong_choices(tmp_path):
    row = {
        "question": "Is tea blue?",
        "mc1_targets": labelled(["No", "Yes"], ["No"]),
        "mc2_targets": labelled(["No", "Always"], ["No"]),
    }
    made = sample(tmp_path, "truthfulqa-mc", row)
    assert made.wrong == ("Always", "Yes")
    assert (made.more["mc1"], made.more["mc2"]) == (["Yes"], ["Always"])


@pytest.mark.parametrize(
    ("mc1", "says"),
    [
        ({"choices": ["No", "Yes"], "labels": [1]}, "of the same length"),
        (["No"], "of the same length"),
        (labelled(["No", "Yes"], ["No", "Yes"]), "one right choice"),
        (labelled(["Nay", "Yes"], ["Nay"]), "which 'mc2_targets' has, too"),
    ],
)
def test_targets_that_make_no_sense_are_told_of(tmp_path, mc1, says):
    both = {"mc1_targets": mc1, "mc2_targets": labelled(["No", "Yes"], ["No"])}
    with pytest.raises(EvaluationError, match=rf"row 1: .*{says}"):
        sample(tmp_path, "truthfulqa-mc", {"question": "Is tea blue?", **both})
