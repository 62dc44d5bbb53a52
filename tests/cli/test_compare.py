import json

from honestproxy.cli.compare import QUESTIONS

GOLD = ("--upstream", "played:gold", "--strategy", "curiosity")


def test_raw_and_wrapped_stand_side_by_side(cli):
    done = cli("compare", *GOLD, "What is the price of gold?")
    assert done.exit_code == 0
    (heads,) = [line for line in done.stdout.splitlines() if "raw ─" in line]
    assert "wrapped ─" in heads
    (texts,) = [line for line in done.stdout.splitlines() if "Gold costs" in line]
    assert "I can't see today's price." in texts


def test_in_a_narrow_terminal_they_are_stacked(cli, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    lines = cli("compare", *GOLD, "What is the price of gold?").stdout.splitlines()
    assert max(map(len, lines)) <= 60
    (head,) = [line for line in lines if "raw ─" in line]
    assert "wrapped" not in head


def test_each_side_says_what_it_cost(cli):
    said = cli("compare", *GOLD, "What is the price of gold?").stdout
    assert "raw · passed through · 1 call" in said
    assert "curiosity · rewritten · 3 calls" in said


def test_text_of_a_model_is_data(cli):
    said = cli("compare", *GOLD, "What is the price of gold?").stdout
    assert "[red]2000[/red] dollars." in said
    assert "\x1b" not in said


def test_json_is_one_object_a_question(cli, home):
    (home / "questions.txt").write_text("one?\n\ntwo?\n", "utf-8")
    done = cli("compare", *GOLD, "--json", "--file", "questions.txt", "zero?")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["question"] for row in rows] == ["zero?", "one?", "two?"]
    assert {row["raw"]["honesty"]["strategy"] for row in rows} == {"raw"}
    assert {row["wrapped"]["honesty"]["calls"] for row in rows} == {3}


def test_without_questions_it_asks_its_own(cli):
    done = cli("compare", *GOLD, "--json")
    asked = [json.loads(line)["question"] for line in done.stdout.splitlines()]
    assert asked == list(QUESTIONS)


def test_raw_can_be_compared_where_clients_may_not_choose_it(cli, monkeypatch):
    monkeypatch.setenv("HONESTPROXY_STRATEGIES_ALLOWED", "curiosity")
    assert cli("compare", *GOLD, "hi").exit_code == 0


def test_a_file_that_is_not_there_is_a_mistake(cli):
    done = cli("compare", *GOLD, "--file", "gone.txt")
    assert (done.exit_code, "gone.txt" in done.stderr) == (2, True)
