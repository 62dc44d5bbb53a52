"""`honestproxy report`: what it prints and writes, and how it refuses."""

import json
from pathlib import Path

from honestproxy.evals.records import Sample
from tests.evals.reported import IDK, answers, can, can_not, folder

SAMPLES = [can("c0"), *(can_not(f"b{n}") for n in range(20))]
BEYOND = [sample.id for sample in SAMPLES[1:]]
RAW = answers("raw", {"c0": "Paris.", **dict.fromkeys(BEYOND, "Sunny.")})
GATED = answers("gated", {"c0": "Paris.", **dict.fromkeys(BEYOND, IDK)})


def ran(path: Path, **config: object) -> Path:
    return folder(path, SAMPLES, [*RAW, *GATED], **config)


def test_it_prints_the_verdict_and_the_table_and_writes_three_files(cli, home):
    done = cli("report", ran(home / "run"))
    assert done.exit_code == 0
    assert done.stdout.startswith("Against raw, gated declines 100 points more of what can't be")
    (line,) = [line for line in done.stdout.splitlines() if line.strip().startswith("declines ")]
    assert "0 % [0, 17]" in line
    assert "100 % [83, 100]" in line
    assert sorted(file.name for file in (home / "run").glob("report.*")) == [
        "report.html",
        "report.json",
        "report.md",
    ]
    assert "report.html" in done.stderr


def test_json_is_the_summary(cli, home):
    done = cli("report", ran(home / "run"), "--json", "--out", home / "out")
    body = json.loads(done.stdout)
    assert body["verdict"].startswith("Against raw, gated ")
    assert body == json.loads((home / "out" / "report.json").read_bytes())
    assert not (home / "run" / "report.json").exists()


def test_two_runs_are_compared_and_their_changed_answers_listed(cli, home):
    later = [*RAW, *answers("gated", {"c0": "Paris.", **dict.fromkeys(BEYOND, "Sunny.")})]
    two = folder(home / "b", SAMPLES, later, seed=1)
    done = cli("report", ran(home / "a"), two)
    assert done.exit_code == 0
    assert "Against gated (a), gated (b) declines 100 points less" in done.stdout
    assert "seed is 0 in a and 1 in b" in done.stdout
    assert "20 changed answers" in done.stdout
    assert "gated (b): idk → wrong: Question b0?" in done.stdout
    assert not [*home.rglob("report.*")]


def test_text_of_others_can_not_command_the_terminal(cli, home):
    odd = Sample("x", "\x1b[31mRed\x1b]0;title\x07?", kind="\x1b[2J", answerable=False)
    one = folder(home / "a", [odd], answers("gated", {"x": IDK}), "gated")
    two = folder(home / "b", [odd], answers("gated", {"x": "Yes."}), "gated")
    done = cli("report", one, two)
    assert done.stdout.splitlines()[-1] == "gated (b): idk → wrong: Red?"
    assert "\x1b" not in done.stdout


def test_what_is_no_run_is_refused_in_one_line(cli, home):
    done = cli("report", home)
    assert done.exit_code == 2
    assert done.stderr.startswith("error: ")
    assert "`honestproxy ab … --out" in done.stderr
    told = json.loads(cli("report", home / "none", "--json").stderr)
    assert told["error"]["code"] == "evaluation_error"
