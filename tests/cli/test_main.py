import subprocess
import sys

import pytest

from honestproxy import __version__
from honestproxy.cli import output
from honestproxy.cli.options import with_settings
from honestproxy.cli.serve import FLAGS
from honestproxy.settings import Settings

COMMANDS = (*("serve", "ask", "compare", "ab", "mc", "introspect", "models", "prompts", "doctor"),)
SUBCOMMANDS = {"models": ["list"], "prompts": ["list"], "introspect": ["explain"]}


def test_help_names_every_command(cli):
    said = cli("--help").stdout
    assert all(f" {command} " in said for command in COMMANDS)


def test_the_version_is_the_packages(cli):
    assert cli("--version").stdout == f"honestproxy {__version__}\n"


def test_it_runs_as_a_module():
    done = subprocess.run(
        [sys.executable, "-m", "honestproxy", "--help"], capture_output=True, text=True, check=True
    )
    assert "serve" in done.stdout


def test_help_brings_in_nothing_heavy():
    heavy = "{'torch', 'transformers', 'litellm', 'fastapi', 'httptools', 'uvloop'}"
    code = f"import sys, honestproxy.cli; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_takes_the_common_flags(cli, command):
    said = cli(command, *SUBCOMMANDS.get(command, []), "--help").stdout
    assert all(f"--{flag}" in said for flag in ("upstream", "model", "strategy", "config", "json"))


def test_every_flag_is_a_setting():
    assert set(FLAGS) <= set(Settings.model_fields)
    with pytest.raises(KeyError):
        with_settings("no_such_setting")(lambda settings: None)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("two\nlines\tand a tab", "two\nlines\tand a tab"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07text", "text"),
        ("\x1b]8;;http://x\x1b\\link", "link"),
        ("bell\x07 back\x08 csi\x9b2J", "bell back csi2J"),
        ("right\u202eleft", "rightleft"),
        ("ümläut 漢字 👍🏽 \u200d [red]", "ümläut 漢字 👍🏽 \u200d [red]"),
    ],
)
def test_text_of_others_cannot_command_a_terminal(text, shown):
    assert output.safe(text) == shown


def test_counts_are_in_good_english():
    assert [output.count(n, "doubt") for n in (0, 1, 2)] == ["0 doubts", "1 doubt", "2 doubts"]
