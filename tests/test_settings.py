"""Settings: sources in order, secrets that stand elsewhere, and mistakes told with their place."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from honestproxy.errors import SettingsError
from honestproxy.settings import (
    DEFAULT_UPSTREAM,
    ModelSettings,
    Settings,
    gather,
    load,
)
from honestproxy.settings.fields import STRATEGY_NAMES
from honestproxy.settings.lines import lines
from honestproxy.settings.references import blotted
from honestproxy.strategies import STRATEGIES

TWO = """\
upstream = "https://one.example/v1"
fallbacks = ["house"]

[upstreams.house]
url = "http://127.0.0.1:8000/v1"
models = ["llama-*", "qwen*"]

[models."gpt-5*"]
strategy = "raw"
"""


def toml(folder: Path, text: str | bytes) -> Path:
    path = folder / "honestproxy.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    path.chmod(0o600)
    return path


def mistakes(folder: Path, text: str | bytes, **environ: str) -> list[str]:
    """What is told of a file, without the folder it is in."""
    with pytest.raises(SettingsError) as caught:
        load(toml(folder, text), environ=environ)
    return caught.value.message.replace(f"{folder}{os.sep}", "").splitlines()


def test_defaults() -> None:
    settings = load(environ={})
    assert settings.upstream == DEFAULT_UPSTREAM
    assert (settings.host, settings.port) == ("127.0.0.1", 8400)


def test_flags_come_before_the_environment_before_the_file(tmp_path: Path) -> None:
    path = toml(tmp_path, 'port = 1\nhost = "file"\nstrategy = "raw"\n')
    environ = {"HONESTPROXY_PORT": "2", "HONESTPROXY_HOST": "environment", "OTHER": "x"}
    settings = load(path, environ=environ, port=3, host=None)
    assert (settings.port, settings.host, settings.strategy) == (3, "environment", "raw")


def test_settings_made_by_hand_read_nothing(tmp_path, monkeypatch) -> None:
    toml(tmp_path, "port = 1\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HONESTPROXY_HOST", "environment")
    settings = Settings()
    assert (settings.host, settings.port) == ("127.0.0.1", 8400)
    assert settings.model_fields_set == set()


def test_tables_may_come_from_the_file_and_the_environment_together(tmp_path: Path) -> None:
    environ = {
        "HONESTPROXY_UPSTREAMS__HOUSE__KEY": "literal",
        "HONESTPROXY_UPSTREAMS__OTHER__URL": "http://other/v1",
        "HONESTPROXY_UPSTREAMS__OTHER__MODELS": "a-*, b",
        "HONESTPROXY_MODELS": '{"mistral*": {"threshold": 0.5, "capabilities": ["vision"]}}',
    }
    settings = load(toml(tmp_path, TWO), environ=environ)
    house, other = settings.upstreams["house"], settings.upstreams["other"]
    assert house.url == "http://127.0.0.1:8000/v1"
    assert house.key is not None
    assert house.key.get_secret_value() == "literal"
    assert (other.url, other.models) == ("http://other/v1", ("a-*", "b"))
    assert list(settings.models) == ["gpt-5*", "mistral*"]
    assert settings.models["mistral*"].capabilities == ("vision",)


def test_shares_of_one_source_replace_those_of_another(tmp_path: Path) -> None:
    path = toml(tmp_path, "experiment = {raw = 50, gated = 50}\n")
    environ = {"HONESTPROXY_EXPERIMENT": "raw=10,single=90"}
    assert load(path, environ=environ).experiment == {"raw": 10, "single": 90}


@pytest.mark.parametrize(
    "text", ["web_search, vision", '["web_search", "vision"]', ["web_search", "vision"]]
)
def test_lists_may_come_as_words_or_as_json(text: Any) -> None:
    environ = {"HONESTPROXY_CAPABILITIES": text} if isinstance(text, str) else {}
    flags = {} if environ else {"capabilities": text}
    assert load(environ=environ, **flags).capabilities == ("web_search", "vision")


@pytest.mark.parametrize(
    ("text", "patterns"),
    [("a{1,2}", ("a{1,2}",)), ("[0-9]{1,9}", ("[0-9]{1,9}",)), ('["a,b", "c"]', ("a,b", "c"))],
)
def test_a_pattern_keeps_its_commas(text: str, patterns: tuple[str, ...]) -> None:
    assert load(environ={"HONESTPROXY_REDACT": text}).redact == patterns


@pytest.mark.parametrize(
    ("source", "told"),
    [
        (
            {"environ": {"HONESTPROXY_UPSTRAEM": "x"}},
            "environment HONESTPROXY_UPSTRAEM: unknown setting 'upstraem'; "
            "did you mean 'upstream'?",
        ),
        (
            {
                "environ": {
                    "HONESTPROXY_UPSTREAMS__A__URL": "x",
                    "HONESTPROXY_UPSTREAMS__A__UR": "y",
                }
            },
            "environment HONESTPROXY_UPSTREAMS__A__UR: unknown setting 'upstreams.a.ur'; "
            "did you mean 'url'?",
        ),
        ({"environ": {"HONESTPROXY_PORT": "many"}}, "environment HONESTPROXY_PORT: port: Input"),
        ({"environ": {"HONESTPROXY__ENV_FILE": "x"}}, "environment HONESTPROXY__ENV_FILE: unknown"),
        ({"environ": {"HONESTPROXY_UPSTREAMS": "{"}}, "environment HONESTPROXY_UPSTREAMS: upstr"),
        ({"environ": {}, "port": 70000}, "--port: port: Input should be less than"),
        ({"environ": {}, "prompt_set": "x"}, "--prompt-set: prompt_set: Input should be 'conv"),
        (
            {"environ": {}, "strategy": "gatde"},
            "--strategy: strategy: unknown strategy 'gatde'; did",
        ),
    ],
)
def test_a_wrong_setting_is_told_with_its_source(source: dict[str, Any], told: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load(**source)
    assert caught.value.message.startswith(told)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("\ntresholds = 1", "2: unknown setting 'tresholds'; did you mean 'threshold'?"),
        ('a.b = 1\nport = 1\n"" = 2', "1: unknown setting 'a'; known are"),
        ("_env_file = 'x'", "1: unknown setting '_env_file'; "),
        ('# threshold\nthreshold = "high"', "2: threshold: Input should be a valid number"),
        (TWO.replace("models = [", "modles = ["), "6: unknown setting 'upstreams.house.modles'; "),
        (
            TWO.replace("strategy = ", "stratgy = "),
            "9: unknown setting 'models.\"gpt-5*\".stratgy'",
        ),
        (
            TWO.replace('"raw"', '"rwa"'),
            "9: models.\"gpt-5*\".strategy: unknown strategy 'rwa'; did",
        ),
        (TWO.replace('"llama-*", "qwen*"', "\n 7,\n"), "7: upstreams.house.models[0]: Input"),
        (
            TWO.replace('url = "http://127.0.0.1:8000/v1"\n', ""),
            "4: upstreams.house.url is missing",
        ),
        (
            TWO.replace('["house"]', '["hous"]'),
            "2: fallbacks[0]: upstream 'hous' is named but not defined; did you mean 'house'?",
        ),
        (
            TWO.replace('["house"]', '["house", "house"]'),
            "2: fallbacks[1]: upstream 'house' stands",
        ),
        ('allowed_hosts = ["*.corp.example"]', "1: allowed_hosts: '*.corp.example' names no host"),
        ("experiment = {raw = 1e308, gated = 1e308}", "1: experiment: shares that large"),
        ('fallbacks = ["a"]', "1: fallbacks[0]: upstream 'a' is named but not defined; no [upstr"),
        ('[upstream.a]\nurl = "x"', "1: upstream: Input should be a valid string; did you mean"),
        ('[upstreams.default]\nurl = "x"', "1: upstreams.default: that is what `upstream` is"),
        ("port = true", "1: port: Input should be a number, not true or false"),
        ('[models."x"]\nmax_calls = true', "2: models.x.max_calls: Input should be a number"),
        ('redact = ["("]', "1: redact: pattern 1 is no pattern of re's: missing )"),
        ('strategies_allowed = [\n"raw",\n"x"]', "3: strategies_allowed[1]: unknown strategy 'x'"),
        ("experiment = {raw = 1, gatd = 1}", "1: experiment.gatd: unknown strategy 'gatd'; did"),
        ('port = 1\nport = "', "2: not TOML: "),
        ('host = "', "1: not TOML: "),
        ("\n\nport = ", "3: not TOML: "),
        (b"\xef\xbb\xbfport = 1", "1: begins with a byte order mark"),
        ("port = 1".encode("utf-16"), "1: not UTF-8"),
        (b"port = 1\nhost = '\xff'", "2: not UTF-8"),
    ],
)
def test_a_mistake_in_a_file_is_told_with_its_line(
    tmp_path: Path, text: str | bytes, told: str
) -> None:
    assert mistakes(tmp_path, text)[0].startswith(f"honestproxy.toml:{told}")


def test_all_mistakes_are_told_together(tmp_path: Path) -> None:
    text = 'prot = 1\nfallbacks = ["x"]\nthreshold = 2\n[upstreams.a]\nkey = "env:NOWHERE"\n'
    told = mistakes(tmp_path, text, HONESTPROXY_PORT="x")
    assert [line.split(": ")[0] for line in told] == [
        *(f"honestproxy.toml:{line}" for line in range(1, 6)),
        "environment HONESTPROXY_PORT",
    ]


@pytest.mark.parametrize(
    ("fallbacks", "circle"),
    [
        ({"a": ["a"]}, "a → a"),
        ({"a": ["b"], "b": ["a"]}, "a → b → a"),
        ({"a": ["d", "b"], "b": ["c"], "c": ["b"], "d": []}, "b → c → b"),
        ({"": ["a"], "a": ["default"]}, "default → a → default"),
    ],
)
def test_fallbacks_that_lead_in_a_circle_are_told(tmp_path, fallbacks, circle) -> None:
    tables = [
        (f'[upstreams.{name}]\nurl = "http://{name}/v1"\n' if name else "")
        + f"fallbacks = {names}\n"
        for name, names in fallbacks.items()
    ]
    (told,) = mistakes(tmp_path, "".join(tables))
    assert told.endswith(f"fallbacks: fallbacks lead in a circle: {circle}")


def test_fallbacks_that_meet_again_are_no_circle(tmp_path: Path) -> None:
    tables = 'a = ["b", "c"]\nb = ["d"]\nc = ["d"]\nd = []'
    text = "".join(
        '[upstreams.{}]\nurl = "http://x/v1"\nfallbacks = {}\n'.format(*line.split(" = "))
        for line in tables.splitlines()
    )
    assert load(toml(tmp_path, text), environ={}).upstreams["a"].fallbacks == ("b", "c")


def test_a_folder_and_a_file_that_isnt_there_are_named(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nowhere.toml"):
        with pytest.raises(SettingsError, match=f"{path.name}: can't be read"):
            load(path, environ={})


KEYED = 'upstream_key = "env:ONE"\ntrace_store = "file:{folder}/store"\n[upstreams.house]\n' + (
    'url = "http://127.0.0.1:8000/v1"\nkey = "file:{folder}/key"\n'
)


def secret(folder: Path, name: str, text: str, mode: int = 0o600) -> Path:
    path = folder / name
    path.write_text(text, "utf-8")
    path.chmod(mode)
    return path


def test_secrets_are_read_from_where_they_stand(tmp_path: Path) -> None:
    secret(tmp_path, "key", "sk-house\n")
    secret(tmp_path, "store", "postgresql://proxy:pass@db/x\n")
    text = KEYED.format(folder=tmp_path)
    literal = {"HONESTPROXY_ANSWER_CACHE": "redis://:sk-literal@h"}
    gathered = gather(toml(tmp_path, text), environ={"ONE": "sk-one", **literal})
    settings = gathered.settings
    assert gathered.mistakes == ()
    assert settings.upstream_key is not None
    assert settings.upstream_key.get_secret_value() == "sk-one"
    assert settings.upstreams["house"].key is not None
    assert settings.upstreams["house"].key.get_secret_value() == "sk-house"
    assert settings.trace_store == "postgresql://proxy:pass@db/x"
    assert gathered.references["upstream_key",] == "env:ONE"
    shown = f"{settings!r} {gathered!r}"
    assert not {word for word in ("sk-one", "sk-house", "sk-literal", "pass@") if word in shown}


@pytest.mark.skipif(os.name == "nt", reason="modes")
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
def test_a_key_file_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    key = secret(tmp_path, "key", "sk-house", mode)
    secret(tmp_path, "store", "sqlite://")
    (told,) = mistakes(tmp_path, KEYED.format(folder=tmp_path), ONE="x")
    assert told.startswith("honestproxy.toml:5: upstreams.house.key: others on this machine can")
    assert told.endswith("chmod 600 key")
    assert key.exists()


@pytest.mark.skipif(os.name == "nt", reason="modes")
@pytest.mark.parametrize(
    "line", ['upstream_key = "sk-secret"', 'trace_store = "postgresql://u:sk-secret@db/x"']
)
def test_a_key_in_a_settings_file_that_others_can_read_is_refused(tmp_path: Path, line) -> None:
    path = toml(tmp_path, line)
    assert load(path, environ={})
    path.chmod(0o644)
    with pytest.raises(SettingsError, match=r"chmod 600 .* or write env:NAME or file:PATH") as told:
        load(path, environ={})
    assert "sk-secret" not in str(told.value)
    assert load(toml(tmp_path, 'trace_store = "sqlite:///x.db"'), environ={})


@pytest.mark.parametrize(
    ("reference", "content", "told"),
    [
        ("env:NOWHERE", None, "the environment's variable NOWHERE is not set"),
        ("env:EMPTY", None, "the environment's variable EMPTY is empty"),
        ("env:AGAIN", None, "what env:AGAIN holds is a reference again"),
        ("file:{}/gone", None, "gone can't be read: No such file"),
        ("file:{}", None, "can't be read: Is a directory"),
        ("file:{}/key", "", "key is empty"),
        ("file:{}/key", "sk-secret\nsk-secret", "key holds more than one line"),
        ("file:{}/key", "x" * 70_000, "key holds more than one line"),
    ],
)
def test_a_secret_that_isnt_there_is_told_with_its_place(
    tmp_path: Path, reference: str, content: str | None, told: str
) -> None:
    if content is not None:
        secret(tmp_path, "key", content)
    folder = tmp_path / "folder"
    folder.mkdir(mode=0o700)
    where = folder if content is None and reference == "file:{}" else tmp_path
    text = f'[upstreams.a]\nurl = "http://x/v1"\nkey = "{reference.format(where)}"\n'
    (line,) = mistakes(tmp_path, text, EMPTY=" ", AGAIN="env:ONE")
    assert line.startswith("honestproxy.toml:3: upstreams.a.key: ")
    assert told in line
    assert "sk-secret" not in line


def test_no_error_shows_a_secret(tmp_path: Path) -> None:
    text = 'upstream_key = ["sk-1"]\nupstream = {x = "sk-2"}\n[upstreams.a]\nkey = {x = "sk-3"}\n'
    told = "\n".join(mistakes(tmp_path, text, HONESTPROXY_TRACE_STORE='["sk-4"]'))
    assert "upstreams.a.key: " in told
    assert "sk-" not in told
    with pytest.raises(ValidationError) as caught:
        Settings(upstream_key=["sk-1"], port="sk-2")  # type: ignore[arg-type]
    assert "sk-" not in str(caught.value)


def test_by_hand_a_reference_is_no_key() -> None:
    with pytest.raises(ValidationError, match=r"read by load\(\)"):
        Settings(upstream_key="env:OPENAI_API_KEY")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://u:p@h/db", "postgresql://u:***@h/db"),
        ("postgresql+psycopg://u:p@ss:w/o?rd@h/db", "postgresql+psycopg://u:***@h/db"),
        ("redis://:p@h:6379/0", "redis://:***@h:6379/0"),
        ("postgresql:///db?user=u&password=p&x=1", "postgresql:///db?user=u&password=***&x=1"),
        ("https://h/v1?api_key=p", "https://h/v1?api_key=***"),
        ("sqlite:////var/lib/x.db", "sqlite:////var/lib/x.db"),
        ("http://127.0.0.1:8000/v1", "http://127.0.0.1:8000/v1"),
        ("local:smollm2-135m-instruct", "local:smollm2-135m-instruct"),
    ],
)
def test_a_url_is_shown_without_its_password(url: str, shown: str) -> None:
    assert blotted(url) == shown


def test_settings_are_frozen_and_hide_the_key() -> None:
    settings = load(environ={"HONESTPROXY_UPSTREAM_KEY": "sk-secret"})
    assert "sk-secret" not in repr(settings)
    with pytest.raises(ValidationError):
        settings.port = 1  # type: ignore[misc]
    assert isinstance(settings, Settings)


def test_where_each_setting_comes_from_is_known(tmp_path: Path) -> None:
    environ = {"HONESTPROXY_UPSTREAMS__HOUSE__KEY": "x", "HONESTPROXY_HOST": "h"}
    gathered = gather(toml(tmp_path, TWO), environ=environ, port="1")
    assert {
        key: gathered.source(key).rpartition(os.sep)[2]
        for key in [
            ("port",),
            ("host",),
            ("upstream",),
            ("upstreams", "house", "key"),
            ("upstreams", "house", "models"),
            ("models", "gpt-5*", "strategy"),
            ("threshold",),
        ]
    } == {
        ("port",): "--port",
        ("host",): "environment HONESTPROXY_HOST",
        ("upstream",): "honestproxy.toml:1",
        ("upstreams", "house", "key"): "environment HONESTPROXY_UPSTREAMS__HOUSE__KEY",
        ("upstreams", "house", "models"): "honestproxy.toml:6",
        ("models", "gpt-5*", "strategy"): "honestproxy.toml:9",
        ("threshold",): "default",
    }


def test_every_strategy_can_be_set() -> None:
    assert tuple(STRATEGIES) == STRATEGY_NAMES


def test_what_holds_for_some_models_is_a_setting_for_all_of_them_too() -> None:
    assert set(ModelSettings.model_fields) <= set(Settings.model_fields)


def test_importing_settings_brings_in_nothing_heavy() -> None:
    heavy = "{'httptools', 'fastapi', 'sqlalchemy', 'yaml', 'typer'}"
    code = f"import sys, honestproxy.settings; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


TRICKY = '''\
# port = 1
"quoted key" = "x # [no.table]"  # = "y"
a.b."c.d" = 1
'lit"eral' = 'no = "key"'
text = """
port = 2
[table]
\\""" still inside ""\\"
"""
raw = \'\'\'
key = 'x'
\'\'\'
last = """quotes at the end"""""
after = 1
list = [
  1, # one
  [2, "],"],
  { x = 1, "y z" = [
    3 ] },
]
when = 1979-05-27 07:32:00Z
[ table . "sub.x" ] # = 1
key = 1
[table]
inf = -inf
[[rows]]
x = 1
[[rows]]
x = 2
[rows.below]
z = 1
[[rows.more]]
w = 1
[[rows.more]]
w = 2
"\\u0061" = 1
'''


def keys(value: Any, above: tuple[Any, ...] = ()) -> set[tuple[Any, ...]]:
    """The way to everything in a parsed file."""
    pairs = value.items() if isinstance(value, dict) else ()
    pairs = enumerate(value) if isinstance(value, list) else pairs
    return {above} - {()} | {key for name, item in pairs for key in keys(item, (*above, name))}


def test_the_lines_of_a_tricky_file_are_found() -> None:
    found = lines(TRICKY)
    assert set(found) == keys(tomllib.loads(TRICKY))
    of = {name: number for number, name in enumerate(TRICKY.splitlines(), 1)}
    assert found["quoted key",] == 2
    assert found["a", "b", "c.d"] == 3
    assert found["text",] == of['text = """']
    assert found["after",] == of["after = 1"]
    assert found["list", 2, "y z"] == of['  { x = 1, "y z" = [']
    assert found["list", 2, "y z", 0] == of["    3 ] },"]
    assert found["table", "sub.x", "key"] == of["key = 1"]
    assert found["table", "inf"] == of["inf = -inf"]
    assert found["rows", 1, "x"] == of["x = 2"]
    assert found["rows", 1, "below", "z"] == of["z = 1"]
    assert found["rows", 1, "more", 1, "w"] == of["w = 2"]
    assert found["rows", 1, "more", 1, "a"] == of['"\\u0061" = 1']


NAMES = st.text(st.sampled_from("ab.=\"'[]#{} \n\\"), min_size=1, max_size=4)
TEXTS = st.text(st.sampled_from("ab=\"'[]#,{}\n\\ "), max_size=8)
VALUES = st.recursive(
    st.integers() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=6,
)


def written(value: Any) -> str:
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        return f'"{escaped}"'
    if isinstance(value, list):
        return "[" + "".join(f"\n{written(item)}," for item in value) + " # ]\n]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{written(k)} = {written(v)}" for k, v in value.items()) + "}"
    return str(value).lower()


@given(st.dictionaries(NAMES, VALUES, max_size=3), st.dictionaries(NAMES, VALUES, max_size=3))
def test_every_key_of_any_file_is_found(table: dict[str, Any], other: dict[str, Any]) -> None:
    body = "".join(f"{written(name)} = {written(value)}\n" for name, value in table.items())
    below = "".join(f"{written(name)} = {written(value)}\n" for name, value in other.items())
    text = f'{body}[zz."y.z"]\n{below}'
    found = lines(text)
    assert set(found) == keys(tomllib.loads(text))
    assert found["zz",] == body.count("\n") + 1


ANY = st.recursive(
    st.integers() | st.booleans() | st.sampled_from(["env:NO", "file:/no", "a", "raw=1", "*"]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(["a", "url", "key", "models", "fallbacks", "strategy", "x y"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from([*Settings.model_fields, "other"]), ANY, max_size=4))
def test_whatever_a_file_holds_each_mistake_has_its_line(values: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "any.toml"
        path.write_text("".join(f"{k} = {written(v)}\n" for k, v in values.items()), "utf-8")
        path.chmod(0o600)
        try:
            load(path, environ={})
        except SettingsError as error:
            for line in error.message.splitlines():
                assert re.match(r"[^:]+any\.toml:\d+: ", line), line


def test_a_variable_that_is_empty_is_not_set(tmp_path):
    given = {"HONESTPROXY_TRACE_STORE": "", "HONESTPROXY_PORT": "", "HONESTPROXY_NONSENSE": ""}
    config = toml(tmp_path, 'trace_store = "sqlite:///x.db"')
    assert load(config, environ=given) == load(config, environ={})


@pytest.mark.parametrize(
    ("variable", "says"),
    [
        ("HONESTPROXY_UPSTREAM__URL", "unknown setting 'upstream__url'"),
        ("HONESTPROXY_PORT__X", "unknown setting 'port__x'"),
        ("HONESTPROXY_UPSTREAMS__HOUSE__KEY", "upstreams.house.url is missing"),
    ],
)
def test_a_variable_that_leads_nowhere_is_told_with_its_name(variable, says):
    with pytest.raises(SettingsError, match=f"environment {variable}: .*{says}"):
        load(environ={variable: "x"})


def test_a_table_from_variables_has_a_source():
    named = {"HONESTPROXY_EXPERIMENT__RAW": "1", "HONESTPROXY_EXPERIMENT__GATED": "1"}
    assert gather(environ=named).source(("experiment",)).startswith("environment HONESTPROXY_EX")


@pytest.mark.parametrize("pattern", ["x{99999999999}", "x*", "("])
def test_a_pattern_that_cant_be_or_fits_everywhere_is_told(tmp_path, pattern):
    with pytest.raises(SettingsError, match="1: redact: pattern 1"):
        load(toml(tmp_path, f"redact = ['{pattern}']"), environ={})
