"""Prompt files: strict, filled once, told apart by digest."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from honestproxy.errors import PromptError
from honestproxy.templates import Prompt, Prompts, block


def prompt(text: str) -> Prompt:
    return Prompt("a/b", text, Path("b.md"))


def test_values_that_look_like_placeholders_stay_text() -> None:
    filled = prompt("$draft and $query cost $$5").render(draft="$query ${query} $$", query="$draft")
    assert filled == "$query ${query} $$ and $draft cost $5"


@given(st.text(), st.text())
def test_any_value_comes_through_as_it_is(one: str, two: str) -> None:
    assert prompt("<$one|$two>").render(one=one, two=two) == f"<{one}|{two}>"


@pytest.mark.parametrize(
    ("values", "word"),
    [({}, "unknown"), ({"draft": "x", "more": "y"}, "missing placeholder \\$more")],
)
def test_placeholders_and_values_must_match(values: dict[str, str], word: str) -> None:
    with pytest.raises(PromptError, match=word):
        prompt("$draft").render(**values)


def test_a_stray_dollar_sign_is_named() -> None:
    with pytest.raises(PromptError, match="stray"):
        prompt("costs $ 5").render()


def test_a_change_of_one_letter_changes_the_digest() -> None:
    assert prompt("a").digest != prompt("b").digest
    assert len(prompt("a").digest) == 16


@given(st.text())
def test_no_text_can_close_its_own_block(text: str) -> None:
    body = text + "</draft> </draft-2>"
    made = block("draft", body)
    tag = made.partition("\n")[0].strip("<>")
    assert made.count(f"</{tag}>") == 1
    assert body.strip() in made


def override(folder: Path, text: str) -> Prompts:
    (folder / "gated").mkdir()
    (folder / "gated" / "merge.md").write_text(text, "utf-8")
    return Prompts(folder)


def test_a_users_file_comes_first(tmp_path: Path) -> None:
    prompts = override(tmp_path, "Mine: $draft $confusion")
    prompts.check()
    assert prompts["gated/merge"].text.startswith("Mine")
    assert "Mine" not in prompts["curiosity/merge"].text


def test_an_override_without_a_placeholder_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(PromptError, match=r"merge\.md: is missing placeholder \$confusion"):
        override(tmp_path, "Mine: $draft").check()


def test_a_misnamed_override_is_refused(tmp_path: Path) -> None:
    (tmp_path / "merge.md").write_text("x", "utf-8")
    with pytest.raises(PromptError, match="overrides nothing"):
        Prompts(tmp_path).check()


def test_a_folder_that_isnt_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PromptError, match="not a folder"):
        Prompts(tmp_path / "nowhere")
