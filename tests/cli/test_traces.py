"""`honestproxy traces`: list, show, export, purge, delete."""

import json
import subprocess
import sys
import threading
import time

import pytest

from honestproxy.store.database import Database
from honestproxy.store.rows import Filter, Rows
from tests.store.rows import row

TRACE = json.dumps(
    {
        "steps": [
            {
                "name": "draft",
                "seconds": 0.8,
                "messages": [{"role": "user", "content": "What is gold \x1b[31mat?"}],
                "text": "Gold is at 1305.",
            },
            {"name": "merge", "seconds": None, "messages": [], "text": None, "error": "timed out"},
        ]
    }
)


@pytest.fixture
def rows(home):
    database = Database(f"sqlite:///{home / 'data' / 'honestproxy' / 'traces.db'}")
    database.prepare()
    yield Rows(database)
    database.close()


def listed(cli, *words):
    return [
        found["trace_id"] for found in json.loads(cli("traces", "--json", *words).stdout)["traces"]
    ]


def test_the_last_are_listed_newest_first_and_as_narrow_as_asked(cli, rows):
    now = time.time()
    old = row(created=now - 7200, outcome="rewritten", doubts='[{"kind":"user_input"}]')
    new = row(created=now - 60, model="other", total_tokens=321)
    left = row(created=now, outcome=None, client_left=True)
    rows.add([old, new, left])
    assert listed(cli) == [left.id, new.id, old.id]
    assert listed(cli, "--last", 1) == [left.id]
    assert listed(cli, "--since", "1h") == [left.id, new.id]
    assert listed(cli, "--outcome", "rewritten") == [old.id]
    assert listed(cli, "--outcome", "client_left") == [left.id]
    assert listed(cli, "--outcome", "error") == []
    rows.add([failed := row(created=now, outcome=None, failed=True, status=502)])
    assert listed(cli, "--outcome", "error") == [failed.id]
    rows.discard(failed.id)
    assert listed(cli, "--model", "other") == [new.id]
    table = cli("traces").stdout
    assert old.id[:16] in table
    assert all(word in table for word in ("rewritten", "client left", "other", "321"))


def test_no_number_is_cut_off_a_narrow_list(cli, rows, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("honestproxy.cli.traces._WIDE", 80)
    rows.add([row(model="gpt-5-mini-2025-08-07", total_tokens=12345, seconds=12.345)])
    table = cli("traces").stdout
    assert all(word in table for word in ("doubts", "calls", "12345", "12.35"))
    assert max(map(len, table.splitlines())) <= 80


def test_where_it_cant_be_exported_to_is_told_and_the_store_not_blamed(cli, rows):
    rows.add([row()])
    done = cli("traces", "export", "--out", "nowhere/x.jsonl")
    assert done.exit_code == 2
    assert "nowhere/x.jsonl" in done.stderr
    assert "trace_store" not in done.stderr


def test_whoever_reads_no_further_is_no_mistake(rows, home):
    rows.add([row() for _ in range(3000)])
    command = [sys.executable, "-m", "honestproxy", "traces", "export"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout.readline().startswith(b"{")
        process.stdout.close()
        assert process.stderr.read() == b""


def test_one_is_shown_by_the_beginning_of_its_id_with_its_texts(cli, rows):
    one = row(id="abc123", trace=TRACE, doubts='[{"kind":"user_input","statement":"Which?"}]')
    rows.add([one, row(id="b")])
    said = cli("traces", "show", "abc").stdout
    assert all(word in said for word in ("abc123", "user input: Which?", "draft · 0.80 s"))
    assert all(word in said for word in ("user: What is gold at?", "Gold is at 1305.", "timed out"))
    assert "\x1b" not in said
    body = json.loads(cli("traces", "show", "abc123", "--json").stdout)
    assert body["trace"] == json.loads(TRACE)
    assert json.loads(cli("traces", "show", "b", "--json").stdout)["trace"] is None


def test_export_is_a_line_each_the_oldest_first(cli, rows, home):
    rows.add([row(id="new"), row(id="old", created=1.0, trace=TRACE)])
    lines = [json.loads(line) for line in cli("traces", "export").stdout.splitlines()]
    assert [line["trace_id"] for line in lines] == ["old", "new"]
    assert lines[0]["trace"] == json.loads(TRACE)
    done = cli("traces", "export", "--since", "1d", "--out", home / "out.jsonl")
    assert done.stdout == ""
    assert "1 trace in" in done.stderr
    assert json.loads((home / "out.jsonl").read_text())["trace_id"] == "new"


def test_export_works_while_traces_are_written(cli, rows):
    rows.add([row() for _ in range(100)])
    over = threading.Event()

    def write():
        while not over.is_set():
            rows.add([row()])

    writer = threading.Thread(target=write)
    writer.start()
    try:
        numbers = [len(cli("traces", "export").stdout.splitlines()) for _ in range(3)]
    finally:
        over.set()
        writer.join()
    assert 100 <= numbers[0] < numbers[1] < numbers[2]


def test_purge_takes_what_is_older_or_all(cli, rows):
    now = time.time()
    rows.add([row(id="old", created=now - 8 * 86_400), row(id="new", created=now)])
    assert json.loads(cli("traces", "purge", "--older", "7d", "-y", "--json").stdout) == {
        "purged": 1
    }
    assert [found.id for found in rows.each(Filter())] == ["new"]
    assert cli("traces", "purge", "--all", "--yes").stderr == "1 trace purged\n"
    assert rows.count() == 0


def test_purge_deletes_nothing_where_nobody_said_yes(cli, rows):
    rows.add([row()])
    done = cli("traces", "purge", "--all")
    assert done.exit_code == 2
    assert "--yes" in done.stderr
    assert rows.count() == 1


def test_one_is_deleted(cli, rows):
    rows.add([row(id="gone1"), row(id="stays")])
    assert cli("traces", "delete", "gone").exit_code == 0
    assert [found.id for found in rows.each(Filter())] == ["stays"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["show", "nobody"], "there is no trace that begins with 'nobody'"),
        (["delete", "nobody"], "there is no trace that begins with 'nobody'"),
        (["show", "same"], "several traces begin with 'same'"),
        (["--since", "soon"], "--since 'soon': give a number"),
        (["--outcome", "rewriten"], "did you mean 'rewritten'?"),
        (["purge"], "--older 7d, or --all"),
        (["purge", "--all", "--older", "7d"], "--older 7d, or --all"),
        (["purge", "--older", "7"], "--older '7': give a number"),
        (["--trace-store", "mysql://x/y"], "'mysql' is not known here"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(cli, rows, words, says):
    rows.add([row(id="same1"), row(id="same2")])
    done = cli("traces", *words)
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert says in done.stderr
    assert rows.count() == 2


@pytest.mark.parametrize("words", [[], ["export"], ["purge", "--all"]])
def test_where_there_are_none_yet_that_is_said_and_nothing_is_made(cli, home, words):
    done = cli("traces", *words)
    assert (done.exit_code, done.stdout) == (0, "")
    assert "no traces yet" in done.stderr
    assert not (home / "data").exists()


def test_none_yet_is_an_empty_list_for_programs(cli):
    assert json.loads(cli("traces", "--json").stdout) == {"traces": []}


def test_a_file_that_is_no_database_is_a_mistake(cli, home):
    (home / "notes.txt").write_text("Dear diary, " * 100)
    done = cli("traces", "--trace-store", f"sqlite:///{home / 'notes.txt'}")
    assert done.exit_code == 2
    assert "not a database" in done.stderr
