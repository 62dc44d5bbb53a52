import json
import os
import re

import pytest


def test_a_key_is_shown_once_and_what_is_kept_is_not_it(cli, home):
    done = cli("keys", "create", "--keys", "keys.jsonl", "--name", "app")
    assert done.exit_code == 0
    key = done.stdout.strip()
    assert re.fullmatch(r"hp-[0-9a-f]{12}-[\w-]{43}", key)
    assert key not in done.stderr
    listed = cli("keys", "list", "--keys", "keys.jsonl")
    assert "app" in listed.stdout
    assert key[-4:] in listed.stdout
    for text in (listed.stdout, (home / "keys.jsonl").read_text()):
        assert key.split("-", 2)[2][:-4] not in text


def test_json_tells_the_key_and_all_that_was_asked(cli):
    flags = ["--models", "gpt-*, o3", "--strategies", "gated,raw", "--rpm", 60, "--tpm", 1000]
    flags += ["--spend", 5000, "--expires", "30d", "--admin"]
    made = json.loads(cli("keys", "create", "--keys", "k.jsonl", "--json", *flags).stdout)
    key = made.pop("key")
    (listed,) = json.loads(cli("keys", "--keys", "k.jsonl", "--json").stdout)["keys"]
    assert listed == made
    assert listed["models"] == ["gpt-*", "o3"]
    assert listed["strategies"] == ["gated", "raw"]
    assert (listed["rpm"], listed["tpm"], listed["spend"]) == (60, 1000, 5000)
    assert listed["expires"] - listed["created"] == 30 * 86_400
    assert listed["admin"] is True
    assert listed["state"] == "valid"
    assert not {"digest", "key"} & listed.keys()
    assert key.endswith(listed["tail"])
    table = cli("keys", "list", "--keys", "k.jsonl").stdout
    assert "gpt-*" in table
    assert "admin" in table


def test_a_revoked_key_is_listed_as_such_and_revoking_again_changes_nothing(cli):
    made = json.loads(cli("keys", "create", "--keys", "k.jsonl", "--json").stdout)
    first = json.loads(cli("keys", "revoke", made["id"], "--keys", "k.jsonl", "--json").stdout)
    again = json.loads(cli("keys", "revoke", made["id"], "--keys", "k.jsonl", "--json").stdout)
    assert first["state"] == "revoked"
    assert again == first
    (listed,) = json.loads(cli("keys", "--keys", "k.jsonl", "--json").stdout)["keys"]
    assert listed == first


def test_the_file_is_the_one_that_the_settings_name(cli, home):
    (home / "honestproxy.toml").write_text('keys = "theirs.jsonl"\n')
    assert cli("keys", "create").exit_code == 0
    assert (home / "theirs.jsonl").exists()


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["create"], "--keys FILE"),
        (["list"], "--keys FILE"),
        (["list", "--keys", "gone.jsonl"], "keys create"),
        (["revoke", "x", "--keys", "gone.jsonl"], "keys create"),
        (["create", "--keys", "k.jsonl", "--strategies", "gatde"], "did you mean 'gated'?"),
        (["create", "--keys", "k.jsonl", "--expires", "soon"], "as in 7d"),
        (["create", "--keys", "k.jsonl", "--expires", "0s"], "a second at least"),
        (["create", "--keys", "k.jsonl", "--expires", "999999999w"], "100 years at most"),
        (["create", "--keys", "k.jsonl", "--strategy", "gated"], "--strateg"),
        (["create", "--keys", "k.jsonl", "--rpm", "0"], "rpm"),
        (["create", "--keys", "k.jsonl", "--name", "\udcff"], "can't be called"),
    ],
)
def test_a_mistake_says_what_to_do_and_makes_no_key(cli, home, words, hint):
    done = cli("keys", *words)
    assert done.exit_code == 2
    assert hint in done.stderr
    assert list(home.glob("*.jsonl")) == []


def test_an_unknown_id_is_told_with_those_there_are(cli):
    made = json.loads(cli("keys", "create", "--keys", "k.jsonl", "--json").stdout)
    done = cli("keys", "revoke", "nobody", "--keys", "k.jsonl")
    assert done.exit_code == 2
    assert made["id"] in done.stderr


@pytest.mark.skipif(os.name == "nt", reason="modes")
@pytest.mark.parametrize("command", ["list", "create", "serve"])
def test_a_file_that_others_can_read_is_refused(cli, home, command):
    cli("keys", "create", "--keys", "k.jsonl")
    (home / "k.jsonl").chmod(0o644)
    words = ["serve", "--upstream", "played:gold", "--port", "0"]
    words = words if command == "serve" else ["keys", command]
    done = cli(*words, "--keys", "k.jsonl")
    assert done.exit_code == 2
    assert "chmod 600" in done.stderr


def test_a_broken_line_is_named(cli, home):
    cli("keys", "create", "--keys", "k.jsonl")
    with (home / "k.jsonl").open("a") as file:
        file.write('{"id": "x", "digest": "y", "created": 1, "modells": ["m"]}\n')
    done = cli("keys", "list", "--keys", "k.jsonl")
    assert done.exit_code == 2
    assert "line 2" in done.stderr
    assert "modells" in done.stderr
