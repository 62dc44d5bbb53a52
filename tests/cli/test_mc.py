"""Multiple choice on the command line: on a tiny model, in the user's own words."""

import json
from pathlib import Path

import pytest
import torch

from tests.backends.local.doubles import llama, tokenizer

ROWS = [
    {"question": "Is tea green?", "answers": ["Some is", "Yes"], "wrong": ["No", "It is blue"]},
    {"question": "Two?", "answers": ["2"], "wrong": ["3"]},
]


@pytest.fixture(scope="module", autouse=True)
def one_core():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A model's folder, as an upstream."""
    path = tmp_path_factory.mktemp("models") / "tiny-chat"
    llama().save_pretrained(path)
    tokenizer().save_pretrained(path)
    return f"local:{path}"


@pytest.fixture
def asked(home):
    """A file of questions."""
    path = home / "mine.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS), "utf-8")
    return path


@pytest.fixture
def run(cli, tiny, asked):
    """Runs it on the tiny model; gives what it printed as JSON."""

    def run(*words, data=asked):
        done = cli("mc", data, "--upstream", tiny, "--json", *words)
        assert done.exit_code == 0, done.stderr
        return json.loads(done.stdout)

    return run


def test_totals_are_those_of_the_rows(run, home):
    body = run("--out", home / "rows.jsonl")
    rows = [json.loads(line) for line in (home / "rows.jsonl").read_text("utf-8").splitlines()]
    assert [row["question"] for row in rows] == [row["question"] for row in ROWS]
    assert body["mc1"]["value"] == sum(row["mc1"] for row in rows) / 2
    assert body["mc2"]["value"] == pytest.approx(sum(row["mc2"] for row in rows) / 2)
    assert (body["questions"], body["choices"], body["unscored"]) == (2, 6, [])
    assert (body["model"], body["dtype"], body["primer"]) == ("tiny-chat", "float32", None)
    assert {choice["text"] for choice in rows[1]["choices"]} == {"2", "3"}


def test_the_folder_of_the_choices_is_made(run, home):
    body = run("--out", home / "not" / "there" / "rows.jsonl")
    lines = (home / "not" / "there" / "rows.jsonl").read_text("utf-8").splitlines()
    assert len(lines) == body["questions"] == 2


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has it")
def test_the_figures_are_told_whatever_becomes_of_the_choices(cli, asked, tiny):
    done = cli("mc", asked, "--upstream", tiny, "--out", "/dev/full")
    assert done.exit_code == 2
    assert "MC1 " in done.stdout
    assert "No space left" in done.stderr


def test_the_seed_moves_the_choices_and_not_the_measures(run, home):
    def orders(seed):
        body = run("--seed", seed, "--out", home / "rows.jsonl")
        lines = (home / "rows.jsonl").read_text("utf-8").splitlines()
        order = [[c["text"] for c in json.loads(line)["choices"]] for line in lines]
        return order, body["mc2"]["value"]

    found = [orders(seed) for seed in range(4)]
    assert len({json.dumps(order) for order, _ in found}) > 1
    assert [value for _, value in found] == pytest.approx([found[0][1]] * 4, abs=1e-5)


def test_a_primer_is_a_file_and_is_told_of(cli, run, home, asked, tiny):
    primer = home / "primer.txt"
    primer.write_text("Q: Is it?\nA: It is.\n", "utf-8")
    begun, bare = run("--primer", primer), run()
    assert begun["primer"]["path"] == str(primer)
    assert begun["mc2"]["value"] != bare["mc2"]["value"]
    told = cli("mc", asked, "--upstream", tiny).stdout
    assert "no primer (published figures have one)" in told
    assert f"primer {primer}" in cli("mc", asked, "--upstream", tiny, "--primer", primer).stdout


def test_a_question_that_is_too_long_is_told_of(cli, run, home, tiny):
    path = home / "long.jsonl"
    long = {"question": "x" * 600, "answers": ["a"], "wrong": ["b"]}
    path.write_text(json.dumps(long) + "\n" + json.dumps(ROWS[1]) + "\n", "utf-8")
    body = run(data=path)
    assert "maximum context length is 512" in body["unscored"][0]["error"]
    assert body["choices"] == 2
    assert "unscored: long/" in cli("mc", path, "--upstream", tiny).stdout


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--upstream", "http://127.0.0.1:9/v1"], "name a local model"),
        (["--model", "gpt-9"], "model 'gpt-9' isn't here; there is 'smollm2-135m-instruct'"),
        (["--primer", "none.txt"], "none.txt: can't be read"),
        (["--primer", "empty.txt"], "the primer is empty"),
        (["--out", "empty.txt/rows.jsonl"], "empty.txt/rows.jsonl: can't be written: "),
        (["--out", "."], ".: can't be written: Is a directory"),
    ],
)
def test_mistakes_are_said_before_anything_is_loaded(cli, home, asked, words, says):
    (home / "empty.txt").write_text("\n", "utf-8")
    done = cli("mc", asked, *words)
    assert done.exit_code == 2
    assert says in done.stderr
