"""Rows in, rows out: the same on both databases."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from honestproxy.errors import InvalidRequest
from honestproxy.store import rows as module
from honestproxy.store.database import Database
from honestproxy.store.rows import Filter, Rows, older_than
from tests.store.rows import row


@pytest.fixture
def rows(url: str) -> Iterator[Rows]:
    database = Database(url)
    database.prepare()
    yield Rows(database)
    database.close()


WHOLE = {
    "arm": "gated",
    "reason": "1 doubt",
    "failed": True,
    "client_left": True,
    "streamed": True,
    "cached": True,
    "prompt_tokens": 2**63 - 1,
    "completion_tokens": 2,
    "total_tokens": 7,
    "spent_tokens": 9,
    "doubts": '[{"kind":"user_input"}]',
    "confidence": 0.25,
    "upstream": "http://127.0.0.1:1/v1",
    "key_id": "team",
    "error": "the upstream “said” no – 不",
    "trace": '{"steps":[{"text":"\\u0000 \\ud800 %s ? :name 🦊"}]}',
}


def test_what_goes_in_comes_out(rows: Rows) -> None:
    whole, bare = row(**WHOLE), row()
    rows.add([whole, bare])
    assert rows.find(whole.id) == whole
    assert rows.find(bare.id) == bare
    assert rows.find("nobody") is None


@pytest.mark.parametrize("number", [1, 9, 10, 99, 100, 437])
def test_any_number_of_rows_goes_in_at_once(rows: Rows, number: int) -> None:
    made = [row(model=f"m{n}") for n in range(number)]
    rows.add(made)
    assert sorted(rows.each(Filter())) == sorted(made)


def test_a_row_that_is_there_already_stays_one(rows: Rows) -> None:
    one = row()
    rows.add([one])
    rows.add([one, row()])
    assert rows.count() == 2


def test_the_last_come_first_and_as_narrow_as_is_asked(rows: Rows) -> None:
    now = time.time()
    old = row(created=now - 100, outcome="rewritten")
    new = row(created=now - 50, outcome="rewritten", model="other")
    newest = row(created=now)
    rows.add([new, newest, old])
    assert rows.last(2, Filter()) == [newest, new]
    assert rows.last(9, Filter(outcome="rewritten")) == [new, old]
    assert rows.last(9, Filter(since=now - 60)) == [newest, new]
    assert rows.last(9, Filter(model="other")) == [new]
    assert list(rows.each(Filter())) == [old, new, newest]


def test_an_id_may_be_cut_short_as_long_as_it_is_one(rows: Rows) -> None:
    rows.add([row(id="abc1"), row(id="abc"), row(id="x%y")])
    assert rows.named("abc1") == "abc1"
    assert rows.named("abc") == "abc"
    assert rows.named("x") == "x%y"
    for start, says in {"ab": "several", "q": "no trace", "%": "no trace"}.items():
        with pytest.raises(InvalidRequest, match=says):
            rows.named(start)


def test_one_can_be_deleted(rows: Rows) -> None:
    gone, stays = row(), row()
    rows.add([gone, stays])
    assert rows.discard(gone.id)
    assert not rows.discard(gone.id)
    assert list(rows.each(Filter())) == [stays]


def test_what_is_too_old_is_purged_in_portions(rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PORTION", 10)
    now = time.time()
    old = [row(created=now - 2 * 86_400) for _ in range(25)]
    young = row(created=now - 3600)
    rows.add([*old, young])
    assert rows.purge_some(older_than(1)) == 10
    assert rows.purge(older_than(1)) == 15
    assert list(rows.each(Filter())) == [young]
    assert rows.purge() == 1
    assert rows.count() == 0


def test_what_each_key_has_spent_is_summed_since_a_moment(rows: Rows) -> None:
    now = time.time()
    rows.add(
        [
            row(key_id="a", spent_tokens=2**60, created=now),
            row(key_id="a", spent_tokens=2, created=now - 10),
            row(key_id="a", spent_tokens=100, created=now - 100),
            row(key_id="b", spent_tokens=5, created=now),
            row(key_id="c", created=now),
            row(spent_tokens=1000, created=now),
        ]
    )
    assert rows.spent(now - 50) == {"a": 2**60 + 2, "b": 5, "c": 0}


@pytest.mark.parametrize("how", ["discarded", "purged"])
def test_what_is_deleted_is_in_no_file_of_sqlites_any_more(tmp_path: Path, how: str) -> None:
    database = Database(f"sqlite:///{tmp_path / 'traces.db'}")
    database.prepare()
    rows = Rows(database)
    told = row(trace='"the planted words"')
    rows.add([told, row()])
    assert any(b"planted" in file.read_bytes() for file in tmp_path.iterdir())
    if how == "discarded":
        assert rows.discard(told.id)
    else:
        assert rows.purge() == 2
    assert not any(b"planted" in file.read_bytes() for file in tmp_path.iterdir())
    database.close()


def test_a_file_that_is_taken_away_is_made_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    database = Database(f"sqlite:///{tmp_path / 'traces.db'}")
    database.prepare()
    rows = Rows(database)
    rows.add([row()])
    for file in tmp_path.iterdir():
        file.unlink()
    later = row()
    rows.add([later])
    other = Database(f"sqlite:///{tmp_path / 'traces.db'}")
    assert Rows(other).find(later.id) == later
    assert rows.count() == 1
    assert "opened anew" in caplog.text
    for one in (database, other):
        one.close()
