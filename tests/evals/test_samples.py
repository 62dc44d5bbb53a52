import hashlib
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from honestproxy.errors import EvaluationError
from honestproxy.evals.records import Sample
from honestproxy.evals.samples import chosen, load, parse


@pytest.fixture
def write(tmp_path):
    def put(name: str, content: str | bytes | list) -> Path:
        if isinstance(content, list):
            content = "".join(json.dumps(row) + "\n" for row in content)
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return put


def read(path: Path, take: str = "", **how) -> list[Sample]:
    return list(load(parse(f"{path}{take}"), **how).samples)


def test_a_line_is_a_question_and_what_is_known_of_it(write):
    row = {"question": " Who? ", "answers": ["A", "B"], "kind": "people", "answerable": True}
    (sample,) = read(write("own.jsonl", [{**row, "id": 7, "note": "easy"}]))
    assert sample.question == "Who?"
    assert sample.answers == ("A", "B")
    assert (sample.kind, sample.answerable, sample.id) == ("people", True, "own/7")
    assert sample.more == {"set": "own", "note": "easy"}


def test_csv_says_the_same(write):
    text = 'question,answer,kind,answerable\n"Who, and\nwhen?",Ada,,yes\nWhat?,,user_input,no\n'
    first, second = read(write("own.csv", text))
    assert (first.question, first.answers, first.answerable) == ("Who, and\nwhen?", ("Ada",), True)
    assert (second.answers, second.kind, second.answerable) == ((), "user_input", False)


def test_a_conversation_is_asked_whole(write):
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi?"}]
    (sample,) = read(write("own.jsonl", [{"messages": messages}]))
    assert sample.conversation == messages
    assert sample.question == "Hi?"


def test_json_lists_and_byte_order_marks_are_read(write):
    rows = json.dumps([{"question": "One?"}, {"question": "Two?"}])
    assert len(read(write("own.json", rows))) == 2
    assert len(read(write("own.jsonl", rows))) == 2
    assert len(read(write("marked.csv", "\ufeffquestion\nOne?\n"))) == 1


def test_a_question_keeps_its_id_whatever_stands_around_it(write):
    before = read(write("own.jsonl", [{"question": "Who?"}]))
    after = read(write("own.jsonl", [{"question": "New?"}, {"question": "Who?"}]))
    assert before[0].id == after[1].id != after[0].id


def test_the_same_question_twice_has_two_ids(write):
    ids = [s.id for s in read(write("own.jsonl", [{"question": "Who?"}] * 3))]
    assert len(set(ids)) == 3


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("own.jsonl", "", "own.jsonl: no questions"),
        ("own.csv", "question\n", "own.csv: no questions"),
        ("own.jsonl", b'{"question": "a"}\n{"question": "\xff"}\n', "own.jsonl:2: not UTF-8"),
        ("own.jsonl", '{"question": "a"}\n{oops\n', "own.jsonl:2: not JSON"),
        ("own.jsonl", "[1]", "own.jsonl, row 1: not an object"),
        ("own.json", '{"a": 1', "own.json:1: not JSON"),
        ("own.json", '{"a": [1], "b": []}', "own.json, row 1: no 'question'"),
        ("own.jsonl", '{"text": "a"}\n', "own.jsonl:1: no 'question' or 'messages'; it has 'text'"),
        ("own.jsonl", '{"question": "a"}\n{"prompt": "b"}\n', "own.jsonl:2: no 'question'"),
        ("own.jsonl", '{"question": ["a"]}\n', "own.jsonl:1: 'question' is no text"),
        ("own.jsonl", '{"question": "a", "anwser": "b"}\n', "did you mean 'answer'?"),
        ("own.jsonl", '{"question": "a", "answer": "b", "answers": ["c"]}\n', "give one of them"),
        ("own.jsonl", '{"question": "a", "answers": [["c"]]}\n', "no list of texts"),
        ("own.jsonl", '{"question": "a", "kind": "latest-infomation"}\n', "'latest_information'?"),
        ("own.jsonl", '{"question": "a", "kind": 3}\n', "own.jsonl:1: 'kind' is no text"),
        ("own.jsonl", '{"question": "a", "answerable": "maybe"}\n', "write true or false"),
        ("own.jsonl", '{"messages": "hi"}\n', "no list of {role, content}"),
        ("own.jsonl", '{"messages": [{"role": "assistant", "content": "x"}]}\n', "must end with"),
        ("own.jsonl", '{"question": "a", "id": 1}\n{"question": "b", "id": 1}\n', "the id '1'"),
        ("own.csv", "question,answer\na,b,c\n", "own.csv:2: 3 cells, but the first line names 2"),
        ("own.csv", "question,answer\na\n", "own.csv:2: 1 cells, but the first line names 2"),
        ("own.csv", 'question\n"a\n', "not CSV"),
        ("own.csv", "question,answer,answer\na,b,c\n", "own.csv:1: two columns are named 'answer'"),
        ("own.jsonl", f'{{"question": {"[" * 100_000}', "own.jsonl:1: nested deeper"),
        ("own.json", "[" * 100_000, "own.json: nested deeper"),
        ("own.json", f'[{{"question": {"9" * 5000}}}]', "own.json: not JSON: "),
    ],
)
def test_what_is_wrong_is_named_with_file_and_line(write, name, content, said):
    with pytest.raises(EvaluationError) as raised:
        read(write(name, content))
    assert said in raised.value.message


@pytest.mark.parametrize("depth", [200, 400, 600, 800, 950])
@pytest.mark.parametrize("name", ["own.jsonl", "own.json"])
def test_what_can_be_read_but_not_kept_is_refused_too(write, name, depth):
    row = f'{{"question": "Who?", "note": {"[" * depth}{"]" * depth}}}'
    with pytest.raises(EvaluationError, match="1: nested deeper than 100 levels"):
        read(write(name, row if name.endswith("l") else f"[{row}]"))


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(EvaluationError, match=r"nowhere\.jsonl: can't be read"):
        read(tmp_path / "nowhere.jsonl")


def test_a_draw_is_the_same_for_the_same_seed_and_in_order(write):
    path = write("own.jsonl", [{"question": f"{n}?"} for n in range(100)])
    drawn = read(path, ":10", seed=1)
    assert drawn == read(path, ":10", seed=1) != read(path, ":10", seed=2)
    places = [int(sample.question[:-1]) for sample in drawn]
    assert places == sorted(set(places))
    assert read(path, ":500") == read(path)


def test_so_many_of_each_can_be_drawn(write):
    rows = [{"question": f"{n}?", "answerable": n % 3 == 0} for n in range(30)]
    drawn = read(write("own.jsonl", rows), ":4+6")
    assert [sample.answerable for sample in drawn] == [True] * 4 + [False] * 6
    with pytest.raises(EvaluationError, match="said to be answerable"):
        read(write("own.jsonl", [{"question": "a", "answerable": False}]), ":1+1")


def test_a_list_of_answers_is_accepted_in_either_column(write):
    lines = [
        '{"question": "a?", "answer": ["Paris", "Lutetia"], "kind": "knowledge_gap"}',
        '{"question": "b?", "answers": "Paris; Lutetia"}',
        '{"question": "c?", "answer": "salt; pepper"}',
        '{"question": "d?", "answer": 0}',
    ]
    found = load(parse(str(write("q.jsonl", "\n".join(lines))))).samples
    wanted = [("Paris", "Lutetia"), ("Paris", "Lutetia"), ("salt; pepper",), ("0",)]
    assert [sample.answers for sample in found] == wanted


def test_a_blank_cell_is_no_answer_and_zero_is_an_id(write):
    path = write("q.csv", "id,question,answer,kind\n0,a?, ,latest_information\n1,b?,x,\n")
    first, second = load(parse(str(path))).samples
    assert (first.id, first.answers, second.answers) == ("q/0", (), ("x",))
    with pytest.raises(EvaluationError, match="two questions have the id '0'"):
        load(parse(str(write("q.csv", "id,question\n0,a?\n0,b?\n"))))


def test_a_cell_of_any_length_is_read(write):
    (found,) = load(parse(str(write("q.csv", f"question\n{'long ' * 60_000}\n")))).samples
    assert len(found.question) > 200_000


@pytest.mark.parametrize("take", [":0", ":00", ":0+0"])
def test_a_take_of_nothing_is_refused(take):
    with pytest.raises(EvaluationError, match="takes no questions; give a number above 0"):
        parse(f"own.jsonl{take}")


def test_limit_takes_the_first_of_those_drawn():
    samples = [Sample(f"{n}", "?") for n in range(50)]
    assert chosen(samples, limit=3) == samples[:3]
    drawn = chosen(samples, number=10, seed=4)
    assert chosen(samples, number=10, limit=3, seed=4) == drawn[:3]
    with pytest.raises(EvaluationError, match="is a file given twice"):
        chosen([*samples, samples[0]])


def test_a_configuration_knows_the_data_by_their_digest(write):
    path = write("own.jsonl", [{"question": f"{n}?"} for n in range(5)])
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    said = load(parse(f"{path}:2")).config()
    assert said == {
        "task": None,
        "set": "own",
        "path": str(path),
        "sha256": digest,
        "samples": 2,
        "of": 5,
    }


def test_tasks_stand_before_the_path_or_hold_for_all():
    assert parse("pkqa:some/file.jsonl:100").task.name == "pkqa"
    assert parse("some/file.jsonl", "pkqa").task.name == "pkqa"
    assert parse("honeset:f.json:3", "pkqa").task.name == "honeset"
    assert parse("hub:owner/name").where == "hub:owner/name"
    with pytest.raises(EvaluationError, match="did you mean 'selfaware'"):
        parse("selfware:f.json")
    with pytest.raises(EvaluationError, match="unknown task"):
        parse("f.json", "selfware")


def test_without_the_package_the_hub_is_explained(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(EvaluationError, match="pip install datasets"):
        load(parse("coconot:hub"))


def test_the_hub_is_asked_by_the_tasks_own_id_or_another(monkeypatch):
    asked = []

    def load_dataset(name, config, split):
        asked.append((name, config, split))
        rows = [{"metadata": "{'topic': 'Art'}", "problem": "Who?", "answer": "Ada"}]
        return rows if split else {"train": [], "test": rows}

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    assert load(parse("simpleqa:hub")).samples[0].kind == "Art"
    assert load(parse("simpleqa:hub:me/mine:en:dev")).samples[0].answers == ("Ada",)
    assert asked == [("basicv8vc/SimpleQA", None, None), ("me/mine", "en", "dev")]
    with pytest.raises(EvaluationError, match="name a data set"):
        load(parse("honeset:hub"))


def test_what_the_hub_can_not_give_is_one_error(monkeypatch):
    def load_dataset(*_, **__):
        raise ConnectionError("no network")

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    with pytest.raises(EvaluationError, match="no network"):
        load(parse("coconot:hub"))


def test_a_spreadsheets_own_ways_are_understood(write):
    text = "question,answerable,kind\nA?,1.0,Self Identity Cognition\nB?,N,\n,,\n"
    found = load(parse(str(write("own.csv", text)))).samples
    assert [(one.question, one.answerable, one.kind) for one in found] == [
        ("A?", True, "self_identity"),
        ("B?", False, None),
    ]


def test_a_source_with_less_than_was_asked_for_says_so(write):
    path = write("own.jsonl", '{"question": "A?"}\n{"question": "B?"}\n')
    assert load(parse(f"{path}:2")).note is None
    assert load(parse(f"{path}:9")).note == f"{path}: 2 questions, where 9 are asked for"
