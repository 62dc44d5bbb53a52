"""The check that no exemplar is taken from a data set, on copies and paraphrases of our own."""

import asyncio
import json

import pytest

from benchmarks.leakage import (
    Limits,
    Pair,
    Text,
    above,
    alike,
    candidates,
    compare,
    exemplars,
    gathered,
    letters,
    show,
    words,
)
from honestproxy.backends.local import Local
from honestproxy.backends.local import exemplars as labelled
from honestproxy.settings import Settings

OURS = [
    "How much does a tram ticket in Basel cost today?",
    "Why do violins lose their tune when the weather turns damp?",
    "Describe the taste of quinces to somebody who has never had one.",
    "Please shorten the contract that I have attached.",
]
COPY = OURS[0]
EDIT = "Why do violins lose tune, when weather turns damp?"
REWORDED = "How would you describe what quinces taste like to a person who never ate one?"
OTHERS = [
    "When did the first electric tram run through Basel?",
    "Who built the oldest violins that are still played?",
    "When are quinces ripe enough to be picked?",
    "Please water the plants that I have repotted.",
    "What makes a contract between two firms void?",
]


def written(folder, **files):
    for name, text in files.items():
        path = folder / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, "utf-8")


def texts(*said):
    return [Text(text, "ours.jsonl", row) for row, text in enumerate(said, 1)]


def test_every_string_of_every_file_is_a_row(tmp_path):
    written(
        tmp_path,
        a_json=json.dumps({"about": "A set of four questions", "rows": [{}, {"q": [{"t": COPY}]}]}),
        sub__b_jsonl=json.dumps({"q": EDIT, "short": "too short", "n": 3}) + "\n\n" + f'"{COPY}"\n',
        c_csv=f'id,question\n1,"{OTHERS[0]}\nSay it briefly."\n',
        d_tsv=f"id\tquestion\n2\t{OTHERS[1]}\thttps://example.org/where it is from\n",
        e_txt=OTHERS[2],
    )
    found, counts = gathered(tmp_path)
    assert {(text.file, text.row, text.text) for text in found} == {
        ("a.json", 1, "A set of four questions"),
        ("a.json", 2, COPY),
        ("c.csv", 2, f"{OTHERS[0]}\nSay it briefly."),
        ("d.tsv", 2, OTHERS[1]),
        ("sub/b.jsonl", 1, EDIT),
    }
    assert counts == {"a.json": 2, "c.csv": 1, "d.tsv": 1, "sub/b.jsonl": 2}


def test_exemplars_come_with_file_and_line():
    found = exemplars()
    assert len(found) >= len(labelled.load())
    for text in found[:: len(found) // 20]:
        line = (labelled.folder() / text.file).read_text("utf-8").splitlines()[text.row - 1]
        assert json.dumps(text.text, ensure_ascii=False)[1:-1] in line


def test_letters_and_words_tell_a_light_edit_from_another_question():
    rows = [COPY, EDIT, *OTHERS]
    cosines = letters([*OURS, "An exemplar on something else."], rows)
    assert cosines[0, 0] == pytest.approx(1)
    assert words(COPY, f"{COPY.upper()}!!") == 1
    limits = Limits()
    assert cosines[1, 1] > limits.letters
    assert words(OURS[1], EDIT) > limits.words
    assert all(
        cosines[at, row] < limits.letters or words(OURS[at], rows[row]) < limits.words
        for at in range(len(OURS))
        for row in range(2, len(rows))
    )


def test_letters_alone_are_not_enough_and_meaning_is():
    one, row = texts(*OURS[:2])
    assert not above(Pair(one, row, 0.9, 0.1, 0.2), Limits())
    assert not above(Pair(one, row, 0.9, 0.1, None), Limits())
    assert above(Pair(one, row, 0.9, 0.5, None), Limits())
    assert above(Pair(one, row, 0.1, 0.0, 0.7), Limits())


def test_rows_are_read_that_are_near_to_an_exemplar_first_and_then_the_nearest():
    import numpy as np

    nearness = np.array([[0.1, 0.2, 0.3, 0.9, 0.8, 0.7], [0.2, 0.6, 0.5, 0.9, 0.8, 0.7]])
    assert candidates(nearness, 3) == [3, 4, 5]
    assert candidates(nearness, 4) == [1, 3, 4, 5]
    assert candidates(nearness[:, :2], 9) == [0, 1]


def test_a_row_that_was_not_read_is_told_of_for_its_words(capsys):
    import numpy as np

    ours, theirs = texts(COPY), texts(COPY, OTHERS[0])
    found = alike(ours, theirs, np.array([[1.0, 0.2]]), np.array([[0.1]]), [1], Limits())
    assert [(pair.row.row, pair.meaning) for pair in found] == [(1, None)]
    show(found, {"ours.jsonl": 2, "b.csv": 7})
    said = capsys.readouterr().out
    assert "ours.jsonl: 2 rows compared, 1 pairs" in said
    assert "b.csv: 7 rows compared, 0 pairs" in said
    assert "ours.jsonl:1" in said
    assert "meaning unread" in said
    assert "1 pairs, of 1 exemplars, are too much alike" in said


@pytest.mark.model
def test_the_model_finds_a_copy_an_edit_and_a_paraphrase_and_nothing_else():
    ours = [*texts(*OURS), *exemplars()[::4]]
    theirs = texts(COPY, EDIT, REWORDED, *OTHERS)

    async def found():
        backend = Local("smollm2-135m-instruct", Settings())
        try:
            return await compare(backend, ours, theirs, Limits(), 7, lambda line: None)
        finally:
            await backend.aclose()

    pairs = [pair for pair in asyncio.run(found()) if pair.exemplar.file == "ours.jsonl"]
    assert {(pair.exemplar.row, pair.row.text) for pair in pairs} == {
        (1, COPY),
        (2, EDIT),
        (3, REWORDED),
    }
