import json

import pytest


def test_prompts_lists_names_digests_and_placeholders(cli):
    rows = json.loads(cli("prompts", "--json").stdout)["prompts"]
    (merge,) = [row for row in rows if row["name"] == "curiosity/merge"]
    assert len(merge["digest"]) == 16
    assert "draft" in merge["placeholders"]
    assert merge["overridden"] is False
    assert "curiosity/merge" in cli("prompts").stdout


def test_show_prints_the_file_as_it_is(cli):
    row = json.loads(cli("prompts", "show", "curiosity/merge", "--json").stdout)
    assert cli("prompts", "show", "curiosity/merge.md").stdout == row["text"]
    assert "$draft" in row["text"]


def test_an_unknown_prompt_names_the_nearest(cli):
    done = cli("prompts", "show", "curiosity/merg")
    assert done.exit_code == 2
    assert "did you mean 'curiosity/merge'?" in done.stderr


def test_export_and_override_go_together(cli, home):
    assert cli("prompts", "export", "mine").exit_code == 0
    file = home / "mine" / "curiosity" / "merge.md"
    file.write_text(file.read_text("utf-8") + "\nAnswer in verse.\n", "utf-8")
    shown = cli("prompts", "show", "curiosity/merge", "--prompts", "mine").stdout
    assert shown.endswith("Answer in verse.\n")
    assert cli("prompts", "check", "--prompts", "mine").exit_code == 0
    rows = json.loads(cli("prompts", "--prompts", "mine", "--json").stdout)["prompts"]
    assert all(row["overridden"] for row in rows)


def test_export_overwrites_only_when_told(cli, home):
    cli("prompts", "export", "mine")
    file = home / "mine" / "curiosity" / "merge.md"
    file.write_text("mine", "utf-8")
    refused = cli("prompts", "export", "mine")
    assert (refused.exit_code, file.read_text("utf-8")) == (2, "mine")
    assert "--force" in refused.stderr
    assert cli("prompts", "export", "mine", "--force").exit_code == 0
    assert file.read_text("utf-8") != "mine"


@pytest.mark.parametrize(
    ("name", "text", "hint"),
    [
        ("curiosity/merge.md", "No placeholder at all.", "missing placeholder"),
        ("curiosity/merge.md", "$draft $confusion $colour", "unknown placeholder $colour"),
        ("curiosity/merge.md", "costs $ 5", "stray '$'"),
        ("curiosity/merg.md", "hello", "overrides nothing"),
    ],
)
def test_check_names_the_file_and_what_is_wrong(cli, home, name, text, hint):
    file = home / "mine" / name
    file.parent.mkdir(parents=True)
    file.write_text(text, "utf-8")
    done = cli("prompts", "check", "--prompts", "mine")
    assert done.exit_code == 2
    assert hint in done.stderr
    assert name in done.stderr


def test_serve_and_ask_check_prompts_before_anything_else(cli, home):
    file = home / "mine" / "curiosity" / "merge.md"
    file.parent.mkdir(parents=True)
    file.write_text("nothing", "utf-8")
    for words in (["serve"], ["ask", "hi"]):
        done = cli(*words, "--prompts", "mine")
        assert done.exit_code == 2
        assert "missing placeholder" in done.stderr
