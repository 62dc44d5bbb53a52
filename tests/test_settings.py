"""Settings: four sources in order, and errors that name the source, the key and the nearest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from honestproxy.errors import SettingsError
from honestproxy.settings import DEFAULT_UPSTREAM, Settings, load


def toml(folder: Path, text: str) -> Path:
    path = folder / "honestproxy.toml"
    path.write_text(text, "utf-8")
    return path


def test_defaults() -> None:
    settings = load(environ={})
    assert settings.upstream == DEFAULT_UPSTREAM
    assert (settings.host, settings.port) == ("127.0.0.1", 8400)


def test_flags_come_before_the_environment_before_the_file(tmp_path: Path) -> None:
    path = toml(tmp_path, 'port = 1\nhost = "file"\nstrategy = "raw"\n')
    environ = {"HONESTPROXY_PORT": "2", "HONESTPROXY_HOST": "environment", "OTHER": "x"}
    settings = load(path, environ=environ, port=3, host=None)
    assert (settings.port, settings.host, settings.strategy) == (3, "environment", "raw")


@pytest.mark.parametrize(
    ("source", "word"),
    [
        ({"environ": {"HONESTPROXY_UPSTRAEM": "x"}}, "environment: .*'upstraem'.*'upstream'"),
        ({"environ": {"HONESTPROXY_PORT": "many"}}, "environment: port: .*integer"),
        ({"environ": {}, "port": 70000}, "command line: port: .*65535"),
        ({"environ": {}, "reply": "trailers"}, "command line: reply: .*'body' or 'headers'"),
    ],
)
def test_a_wrong_setting_is_named_with_its_source(source: dict[str, Any], word: str) -> None:
    with pytest.raises(SettingsError, match=word):
        load(**source)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("tresholds = 1", "honestproxy.toml: unknown setting 'tresholds'; did you mean 'thres"),
        ("port = ", "not TOML"),
        ('threshold = "high"', "honestproxy.toml: threshold"),
    ],
)
def test_a_wrong_file_is_named(tmp_path: Path, text: str, word: str) -> None:
    with pytest.raises(SettingsError, match=word):
        load(toml(tmp_path, text), environ={})


def test_a_file_that_isnt_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"nowhere\.toml: can't be read"):
        load(tmp_path / "nowhere.toml", environ={})


def test_lists_may_come_as_words_with_commas() -> None:
    settings = load(environ={"HONESTPROXY_CAPABILITIES": "web_search, vision"})
    assert settings.capabilities == ("web_search", "vision")


def test_settings_are_frozen_and_hide_the_key() -> None:
    settings = load(environ={"HONESTPROXY_UPSTREAM_KEY": "sk-secret"})
    assert "sk-secret" not in repr(settings)
    with pytest.raises(ValidationError):
        settings.port = 1  # type: ignore[misc]
    assert isinstance(settings, Settings)
