"""`honestproxy config`: what is set and where, what can't work, and a file to begin with."""

import json
import os
import sqlite3
import tomllib
from contextlib import closing
from pathlib import Path

import pytest

from honestproxy.server.access import keys
from honestproxy.settings import ModelSettings, Settings, UpstreamSettings

TWO = """\
upstream = "https://one.example/v1"
upstream_key = "env:ONE_KEY"
trace_store = "env:STORE"
otlp_endpoint = "http://user:sk-otlp@127.0.0.1:4318"

[upstreams.house]
url = "http://127.0.0.1:8000/v1?key=sk-query"
key = "file:key"
models = ["llama-*"]

[models."gpt-5*"]
strategy = "raw"
"""
STORE = "postgresql://proxy:sk-store@db/traces"


@pytest.fixture
def two(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Settings with a key of every kind."""
    monkeypatch.setenv("ONE_KEY", "sk-one")
    monkeypatch.setenv("STORE", STORE)
    monkeypatch.setenv("HONESTPROXY_UPSTREAMS__SPARE__URL", "http://127.0.0.1:8001/v1")
    monkeypatch.setenv("HONESTPROXY_UPSTREAMS__SPARE__KEY", "sk-spare")
    (home / "key").write_text("sk-house", "utf-8")
    (home / "key").chmod(0o600)
    path = home / "honestproxy.toml"
    path.write_text(TWO, "utf-8")
    path.chmod(0o600)
    return path


def test_show_tells_each_setting_and_its_source_but_no_secret(cli, two):
    done = cli("config", "show", "--port", 8401)
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    for line in (
        'upstream = "https://one.example/v1"  # honestproxy.toml:1',
        "upstream_key = set (env:ONE_KEY)  # honestproxy.toml:2",
        "port = 8401  # --port",
        'host = "127.0.0.1"  # default',
        'trace_store = "postgresql://proxy:***@db/traces"  # honestproxy.toml:3 (env:STORE)',
        'upstreams.house.url = "http://127.0.0.1:8000/v1?key=***"  # honestproxy.toml:7',
        "upstreams.house.key = set (file:key)  # honestproxy.toml:8",
        'upstreams.house.models = ["llama-*"]  # honestproxy.toml:9',
        "upstreams.house.pass_key = false  # default",
        "upstreams.spare.key = set  # environment HONESTPROXY_UPSTREAMS__SPARE__KEY",
        'models."gpt-5*".strategy = "raw"  # honestproxy.toml:12',
    ):
        assert line in lines
    assert "sk-" not in done.output


def test_show_as_json_has_every_setting(cli, two):
    done = cli("config", "show", "--json")
    rows = {row["key"]: row for row in json.loads(done.stdout)["settings"]}
    assert set(Settings.model_fields) - {"upstreams", "models"} <= set(rows)
    assert rows["upstream_key"]["value"] == "set (env:ONE_KEY)"
    assert rows["upstreams.house.fallbacks"] == {
        "key": "upstreams.house.fallbacks",
        "value": [],
        "source": "default",
    }
    assert "sk-" not in done.output


def test_check_of_good_settings_is_one_line(cli, two):
    done = cli("config", "check")
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines() == [  # one of them is HONESTPROXY_CACHE
        "honestproxy.toml: in order (7 settings, 3 upstreams, 1 rule for models)"
    ]
    assert json.loads(cli("config", "check", two, "--json").stdout) == {
        "ok": True,
        "file": str(two),
    }


def test_check_tells_every_mistake_with_its_place(cli, home):
    wrong = home / "wrong.toml"
    wrong.write_text(
        'upstream = "nonsense"\nprompts = "nowhere"\nkeys = "nobody.jsonl"\nexemplars = "none"\n'
        'strategy = "gatde"\ntrace_store = "mysql://u:sk-store@h/db"\n'
        'answer_cache = "memcached://h"\nhost = "0.0.0.0"\nprot = 1\nport = "many"\n'
        '[upstreams.house]\nurl = "http://u:sk-url@h/v1"\nfallbacks = ["hose"]\n',
        "utf-8",
    )
    wrong.chmod(0o600)
    done = cli("config", "check", wrong)
    assert done.exit_code == 2
    lines = done.stderr.splitlines()
    told = {
        int(line.split(":")[2]): line.partition(": ")[2].partition(": ")[2]
        for line in lines
        if line.startswith(f"error: {wrong}:")
    }
    assert sorted(told) == [*range(1, 8), 9, 10, 12, 13], done.stderr
    assert len(lines) == len(told)
    assert told[1].startswith("upstream: upstream 'nonsense' is not understood")
    assert "nowhere" in told[2]
    assert "honestproxy keys create" in told[3]
    assert "introspect fit" in told[4]
    assert told[5].endswith("did you mean 'gated'?")
    assert "trace_store" in told[6]
    assert told[9].startswith("unknown setting 'prot'; did you mean 'port'?")
    assert "did you mean 'house'?" in told[13]
    assert done.stdout == ""
    assert "sk-" not in done.output


def test_check_looks_into_a_database_that_is_a_file(cli, home):
    config = home / "honestproxy.toml"
    config.write_text('\ntrace_store = "sqlite:///traces.db"\n', "utf-8")
    assert cli("config", "check").exit_code == 0
    assert not (home / "traces.db").exists()
    with closing(sqlite3.connect(home / "traces.db")) as foreign:
        foreign.execute("CREATE TABLE recipes (name TEXT)")
    done = cli("config", "check")
    assert done.exit_code == 2
    assert done.stderr.startswith("error: honestproxy.toml:2: trace_store: sqlite:///traces.db has")
    assert "recipes" in done.stderr


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("breaker_seconds = inf", "Input should be a finite number"),
        ('upstream_key = "env:"', "env: names nothing: write env:NAME"),
        ('upstream_key = "file: "', "file: names nothing: write file:PATH"),
        ('otlp_endpoint = "collector"', "needs http:// or https:// and a host"),
        ('experiment_header = "X User"', "'X User' can't be a header's name"),
    ],
)
def test_check_tells_values_that_can_mean_nothing(cli, home, line, says):
    (home / "honestproxy.toml").write_text(f"{line}\n", "utf-8")
    done = cli("config", "check")
    assert done.exit_code == 2
    key = line.partition(" ")[0]
    assert done.stderr.startswith(f"error: honestproxy.toml:1: {key}: {says}")


def test_check_tells_each_arm_that_serve_would_refuse(cli, home):
    """One may not be chosen, one reads what no URL shows, and one is no strategy."""
    (home / "honestproxy.toml").write_text(
        'upstream = "http://127.0.0.1:9/v1?key=sk-query"\nfallbacks = ["near"]\n'
        'strategies_allowed = ["raw", "introspect"]\n'
        "[experiment]\nraw = 1\ngated = 1\nintrospect = 1\nintrospcet = 1\n"
        '[upstreams.near]\nurl = "local:smollm2-135m-instruct"\n',
        "utf-8",
    )
    assert "honestproxy.toml:1: upstream: others on this" in cli("config", "check").stderr
    (home / "honestproxy.toml").chmod(0o600)
    done = cli("config", "check")
    assert done.exit_code == 2
    told = sorted(done.stderr.splitlines())
    assert len(told) == 3
    assert told[0].startswith(
        "error: honestproxy.toml:6: experiment.gated: the arm 'gated' is not among "
        "strategies_allowed (raw, introspect), so every request"
    )
    assert told[1].startswith(
        "error: honestproxy.toml:7: experiment.introspect: the arm 'introspect' reads a model's "
        "hidden states, which 'http://127.0.0.1:9/v1?key=***' doesn't show"
    )
    assert told[2].startswith("error: honestproxy.toml:8: experiment.introspcet: unknown strategy")
    assert (done.stdout, "sk-" in done.output) == ("", False)


@pytest.mark.parametrize("upstream", ["local:smollm2-135m-instruct", "mine:model"])
def test_check_believes_what_it_does_not_load_but_not_the_other_upstreams(cli, home, upstream):
    config = home / "honestproxy.toml"
    lines = f'upstream = "{upstream}"\nexperiment = {{raw = 1, introspect = 1}}\n'
    config.write_text(lines, "utf-8")
    assert cli("config", "check").exit_code == 0
    far = '[upstreams.far]\nurl = "http://127.0.0.1:9/v1"\n'
    config.write_text(lines + far, "utf-8")
    assert cli("config", "check").exit_code == 0
    config.write_text(lines + far + 'models = ["gpt-*"]\n', "utf-8")
    done = cli("config", "check")
    assert done.exit_code == 2
    assert done.stderr.startswith("error: honestproxy.toml:2: experiment.introspect: the arm")


def test_an_upstream_that_is_wrong_is_told_once_whatever_the_arms(cli, home):
    (home / "honestproxy.toml").write_text('upstream = "http://"\n', "utf-8")
    done = cli("config", "check", "--experiment", "raw,introspect")
    assert done.exit_code == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: honestproxy.toml:1: upstream: ")


def test_check_refuses_to_listen_elsewhere_without_keys(cli, home):
    done = cli("config", "check", "--host", "0.0.0.0")
    assert done.exit_code == 2
    assert done.stderr.startswith("error: --host: host: ")
    made = home / "keys.jsonl"
    keys.create(made)
    assert cli("config", "check", "--host", "0.0.0.0", "--keys", made).exit_code == 0


def test_check_takes_no_address_of_another_kind_for_a_module(cli, home):
    (home / "honestproxy.toml").write_text('\nupstream = "ftp://127.0.0.1/v1"\n', "utf-8")
    done = cli("config", "check")
    assert done.exit_code == 2
    assert done.stderr.startswith("error: honestproxy.toml:2: upstream: ")


@pytest.mark.skipif(os.name == "nt", reason="modes")
def test_check_refuses_keys_that_others_can_read(cli, home, two):
    made = home / "keys.jsonl"
    keys.create(made)
    made.chmod(0o644)
    (home / "key").chmod(0o644)
    done = cli("config", "check", "--keys", made)
    assert done.exit_code == 2
    assert "--keys: keys: " in done.stderr
    assert "honestproxy.toml:8: upstreams.house.key: " in done.stderr
    assert done.stderr.count("chmod 600") == 2


def test_a_mistake_as_json_is_an_error_of_openais_shape(cli, home):
    (home / "honestproxy.toml").write_text("prot = 1\nhots = 1\n", "utf-8")
    done = cli("config", "check", "--json")
    assert done.exit_code == 2
    error = json.loads(done.stderr)["error"]
    assert error["code"] == "settings_error"
    assert len(error["message"].splitlines()) == 2


def test_show_and_serve_tell_the_same_mistakes(cli, home):
    (home / "honestproxy.toml").write_text("prot = 1\nhots = 1\n", "utf-8")
    told = [cli(*words).stderr for words in (("config", "show"), ("serve",), ("config", "check"))]
    assert told[0] == told[1] == told[2]
    assert len(told[0].splitlines()) == 2


def uncommented(text: str) -> str:
    lines = text.splitlines()
    return "\n".join(line[1:] if line[:1] == "#" and line[1:2] != " " else line for line in lines)


def test_the_example_is_in_order_as_it_is(cli, home):
    done = cli("config", "example")
    assert done.exit_code == 0
    assert tomllib.loads(done.stdout) == {}
    (home / "honestproxy.toml").write_text(done.stdout, "utf-8")
    assert cli("config", "check").exit_code == 0


def test_the_example_holds_every_setting_and_works_with_all_of_them(cli, home, monkeypatch):
    text = uncommented(cli("config", "example").stdout)
    found = tomllib.loads(text)
    assert set(found) == set(Settings.model_fields)
    assert set(found["upstreams"]["house"]) == set(UpstreamSettings.model_fields)
    assert set(found["models"]["gpt-5*"]) == set(ModelSettings.model_fields)
    (home / "honestproxy.toml").write_text(text, "utf-8")
    monkeypatch.setenv("UPSTREAM_KEY", "sk-one")
    monkeypatch.setenv("HOUSE_KEY", "sk-house")
    monkeypatch.setenv("HOME", str(home))  # where the folders of `~` are
    (home / "prompts").mkdir()
    Path(found["exemplars"]).expanduser().mkdir(parents=True)
    keys.create(home / "keys.jsonl")
    done = cli("config", "check")
    assert done.exit_code == 0, done.output


def test_an_examples_values_are_the_defaults(cli):
    found = tomllib.loads(uncommented(cli("config", "example").stdout))
    settings = Settings()
    for name in ("upstream", "port", "threshold", "variants", "traces", "max_body_bytes"):
        assert found[name] == getattr(settings, name)


def test_a_question_goes_to_its_models_upstream(cli, home):
    (home / "honestproxy.toml").write_text(
        'upstream = "played:forbidden"\n'
        '[upstreams.house]\nurl = "played:gold"\nmodels = ["gold-*"]\n',
        "utf-8",
    )
    done = cli("ask", "--model", "gold-1", "What is the price of gold?")
    assert done.exit_code == 0, done.output
    assert "I can't see today's price." in done.stdout
