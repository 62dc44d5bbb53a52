"""A user's own exemplars: what is refused, and what is kept."""

import json

import pytest

from honestproxy.backends.local import own
from honestproxy.backends.local.exemplars import Exemplar, together
from honestproxy.errors import PromptError

GOOD = {"text": "What is tin at?", "kind": "latest_information", "sub": "live_price"}
TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "hi"},
    {"role": "assistant", "content": None, "tool_calls": []},
    {"role": "user", "content": [{"type": "text", "text": "And now?"}]},
]


def called(calls, content=None):
    said = {"role": "assistant", "content": content, "tool_calls": calls}
    return [said, {"role": "user", "content": "x"}]


def file(folder, *rows, name="mine.jsonl"):
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    (folder / name).write_text("\n".join(lines), "utf-8")
    return folder / name


def test_a_file_is_read_with_the_place_of_each_line(tmp_path):
    rows = [GOOD, "", {"messages": TALK, "kind": "none"}, {"text": "a\u2028b", "kind": "none"}]
    path = file(tmp_path, *[json.dumps(r, ensure_ascii=False) if r else r for r in rows])
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    first, second, third = own.given(path).exemplars
    assert (first.text, first.kind, first.sub) == tuple(GOOD.values())
    assert (second.text, second.line, second.messages) == ("And now?", 3, tuple(TALK))
    assert third.text == "a\u2028b"
    assert second.where == f"{path}, line 3"
    assert all(exemplar.own for exemplar in (first, second, third))


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("{text: 1}", r"not JSON \(Expecting property name.* at column 2\); write it as"),
        ('{"text": "hi", "kind": "none"', "not JSON"),
        ("[" * 100_000, "not JSON that can be read"),
        ("9" * 5000, "not JSON that can be read"),
        ("[1]", "not an object"),
        ({"text": "hi"}, '"kind" is missing; give one of latest_information, .*none'),
        ({"text": "hi", "kind": None}, '"kind" is missing'),
        ({"text": "hi", "kind": "user_inputs"}, "'user_inputs'; did you mean 'user_input'"),
        ({"text": "hi", "kind": ["none"]}, "no kind of doubt is called"),
        ({**GOOD, "sub": "live_prices"}, "no opening 'live_prices'; did you mean 'live_price'"),
        ({**GOOD, "sub": 3}, "no opening 3; known are"),
        ({"text": "hi", "kind": "none", "sub": "news"}, 'leave "sub" out'),
        ({"kind": "none"}, '"text" is missing'),
        ({"text": None, "kind": "none"}, '"text" is missing'),
        ({"text": "  ", "kind": "none"}, "not empty"),
        ({"text": 3, "kind": "none"}, '"text" must be a question'),
        ({"text": "\ud800", "kind": "none"}, "lone surrogate"),
        ({"text": "hi", "messages": TALK, "kind": "none"}, 'both "text" and "messages"'),
        ({"messages": [], "kind": "none"}, "a list of objects"),
        ({"messages": "hi", "kind": "none"}, "a list of objects"),
        ({"messages": ["hi"], "kind": "none"}, "a list of objects"),
        ({"messages": [{"role": "bot", "content": "hi"}], "kind": "none"}, "roles are system"),
        ({"messages": [{"role": [], "content": "hi"}], "kind": "none"}, "a list of objects"),
        ({"messages": [{"role": "user", "content": 3}], "kind": "none"}, "a list of objects"),
        ({"messages": [{"role": "user", "content": [{}]}], "kind": "none"}, "a list of objects"),
        ({"messages": called(5), "kind": "none"}, '"tool_calls", .*a list of objects'),
        ({"messages": called([5]), "kind": "none"}, '"tool_calls", .*a list of objects'),
        ({"messages": called(None), "kind": "none"}, '"tool_calls", .*a list of objects'),
        ({"messages": called(5, "hi"), "kind": "none"}, '"tool_calls", .*a list of objects'),
        ({"messages": TALK[:3], "kind": "none"}, "must end with the user, not with the assistant"),
        ({"messages": [{"role": "user", "content": " "}], "kind": "none"}, "an empty message"),
        ({**GOOD, "kind": "none", "sub": ""}, "is 'latest_information' in .*line 1 and 'none'"),
    ],
)
def test_a_line_that_cant_be_used_is_named(tmp_path, row, said):
    path = file(tmp_path, GOOD, "", row)
    with pytest.raises(PromptError, match=rf"(?s)mine\.jsonl, line 3: .*{said}"):
        own.given(path)


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("mine.jsonl", b"", "holds nothing"),
        ("mine.jsonl", b"\n \r\n", "holds nothing"),
        ("mine.jsonl", b'{"text": "a", "kind": "none"}\n"\xff"', "line 2: not UTF-8"),
        ("mine.jsonl", None, "No such file"),
        ("mine.json", b"{}", r"name it mine\.jsonl"),
    ],
)
def test_a_file_that_cant_be_used_is_named(tmp_path, name, data, said):
    if data is not None:
        (tmp_path / name).write_bytes(data)
    with pytest.raises(PromptError, match=f"(?s)mine.*{said}"):
        own.given(tmp_path / name)


def test_files_are_kept_whole_once_all_went_well(tmp_path):
    given, folder = own.given(file(tmp_path, GOOD)), tmp_path / "a" / "b"
    with own.storing([given], folder):
        assert own.load(folder) == []
    assert (folder / "mine.jsonl").read_bytes() == given.data
    assert [exemplar.text for exemplar in own.load(folder)] == [GOOD["text"]]
    other = own.given(file(tmp_path, {"text": "hi", "kind": "none"}))
    with pytest.raises(RuntimeError, match="no luck"), own.storing([other], folder):
        raise RuntimeError("no luck")
    assert [path.name for path in folder.iterdir()] == ["mine.jsonl"]
    assert (folder / "mine.jsonl").read_bytes() == given.data


def test_a_folder_that_cant_be_written_is_told_at_once(tmp_path):
    (tmp_path / "taken").write_text("a file", "utf-8")
    given = own.given(file(tmp_path, GOOD))
    storing = own.storing([given], tmp_path / "taken")
    with pytest.raises(PromptError, match=r"taken: can't be written.*--exemplars"), storing:
        raise AssertionError
    with pytest.raises(PromptError, match=r"taken: can't be read"):
        own.load(tmp_path / "taken")


def test_two_files_that_contradict_each_other_are_told(tmp_path):
    file(tmp_path, GOOD, name="a.jsonl")
    file(tmp_path, {"text": GOOD["text"], "kind": "none"}, name="b.jsonl")
    with pytest.raises(PromptError, match=r"b\.jsonl, line 1: .*in .*a\.jsonl, line 1"):
        own.load(tmp_path)
    assert list(own.kept(tmp_path, {"b.jsonl"})) == ["a.jsonl"]


def test_a_file_is_found_by_its_name_and_taken_away(tmp_path):
    path = file(tmp_path, GOOD)
    assert own.named("mine", tmp_path) == own.named("mine.jsonl", tmp_path) == path
    with pytest.raises(PromptError, match=r"called 'mein'; did you mean 'mine'"):
        own.named("mein", tmp_path)
    own.forget([path])
    with pytest.raises(PromptError, match="there are none"):
        own.named("mine", tmp_path)


def test_the_users_word_counts_where_ours_differs():
    said = ({"role": "user", "content": "hi"},)
    mine = Exemplar(said, "user_input", own=True)
    other = Exemplar(({"role": "user", "content": "ho"},), "none")
    assert together([Exemplar(said, "none"), other], [mine]) == [mine, other]
