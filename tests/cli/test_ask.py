import json
import os
import signal
import subprocess
import sys
import time

import pytest

GOLD = ("--upstream", "played:gold")


def test_ask_prints_the_answer_on_stdout_and_what_was_done_on_stderr(cli):
    done = cli("ask", *GOLD, "--strategy", "curiosity", "What is the price of gold?")
    assert done.exit_code == 0
    assert done.stdout == "I can't see today's price.\n"
    assert done.stderr.startswith("curiosity · rewritten · 3 calls")


def test_words_make_one_question(cli):
    done = cli("ask", "--upstream", "played:echo", "--strategy", "raw", "how", "are", "you")
    assert done.stdout == "how are you\n"


def test_a_dash_reads_the_question_from_stdin(cli):
    done = cli("ask", "--upstream", "played:echo", "--strategy", "raw", "-", stdin="why?\n")
    assert done.stdout == "why?\n"


def test_a_system_message_comes_first(cli):
    words = ("--upstream", "played:system", "--strategy", "raw", "--system", "Be brief.", "hi")
    assert cli("ask", *words).stdout == "Be brief.\n"


def test_doubts_are_listed(cli):
    done = cli("ask", *GOLD, "--strategy", "gated", "What is the price of gold?")
    assert "gated · rewritten · 1 doubt · 3 calls" in done.stderr
    assert "latest information: I see no [b]live[/b] prices." in done.stderr


def test_trace_shows_each_step_with_its_prompt_and_text(cli):
    done = cli("ask", *GOLD, "--strategy", "curiosity", "--trace", "What is the price of gold?")
    for part in ("draft ·", "confusion · curiosity/confusion.md", "merge · curiosity/merge.md"):
        assert part in done.stderr
    assert "Gold costs [red]2000[/red]" in done.stderr


def test_json_carries_answer_honesty_and_usage(cli):
    done = cli("ask", *GOLD, "--strategy", "raw", "--json", "What is the price of gold?")
    said = json.loads(done.stdout)
    assert said["answer"] == "Gold costs [red]2000[/red] \x1b[31mdollars."
    assert said["honesty"]["strategy"] == "raw"
    assert "usage" in said
    assert done.stderr == ""


def test_json_with_trace_has_the_text_of_each_step(cli):
    words = ("--strategy", "curiosity", "--trace", "--json", "What is the price of gold?")
    steps = json.loads(cli("ask", *GOLD, *words).stdout)["trace"]
    assert [step["name"] for step in steps] == ["draft", "confusion", "merge"]
    assert steps[2]["text"] == "I can't see today's price."
    assert steps[2]["prompt"] == "curiosity/merge"


def test_the_model_is_the_first_one_listed_unless_set(cli):
    done = cli("ask", "--upstream", "played:lists_nothing", "--strategy", "raw", "hi")
    assert done.exit_code == 2
    assert "--model" in done.stderr
    words = ("--upstream", "played:lists_nothing", "--strategy", "raw", "--model", "m", "hi")
    assert cli("ask", *words).stdout == "hello\n"


@pytest.mark.parametrize(
    ("words", "code", "hint"),
    [
        (["--upstream", "played:busy", "--strategy", "raw", "hi"], 1, "slow down"),
        (["--upstream", "http://127.0.0.1:9/v1", "hi"], 1, "127.0.0.1:9"),
        (["--upstream", "played:nobody", "hi"], 2, "played:nobody"),
        (["--upstream", "nonsense", "hi"], 2, "a URL such as"),
        (["--upstream", "local:no/such/folder.gguf", "hi"], 2, "no/such/folder.gguf"),
        (["--upstream", "local:./nowhere", "hi"], 2, "nowhere"),
        ([*GOLD, "--strategy", "gatde", "hi"], 2, "did you mean 'gated'?"),
        ([*GOLD, "--threshold", "7", "hi"], 2, "threshold"),
        ([*GOLD, "--prompts", "no-folder", "hi"], 2, "no-folder"),
        ([*GOLD, "--config", "no.toml", "hi"], 2, "no.toml"),
        ([*GOLD, "  "], 2, "empty"),
    ],
)
def test_a_mistake_is_one_line_and_an_exit_code(cli, words, code, hint):
    done = cli("ask", *words)
    assert done.exit_code == code
    assert done.stderr.startswith("error: ")
    assert hint in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


def test_an_error_is_openai_shaped_under_json(cli):
    done = cli("ask", *GOLD, "--strategy", "gatde", "--json", "hi")
    assert done.exit_code == 2
    assert json.loads(done.stderr)["error"]["code"] == "settings_error"


def test_an_unknown_setting_names_the_nearest(cli, home, monkeypatch):
    (home / "honestproxy.toml").write_text("treshold = 0.5\n", "utf-8")
    done = cli("ask", *GOLD, "hi")
    assert done.exit_code == 2
    assert (
        "honestproxy.toml:1: unknown setting 'treshold'; did you mean 'threshold'?" in done.stderr
    )
    (home / "honestproxy.toml").unlink()
    monkeypatch.setenv("HONESTPROXY_UPSTREM", "x")
    assert "did you mean 'upstream'?" in cli("ask", "hi").stderr


def test_a_gguf_cut_in_half_is_told_in_one_line(cli, home):
    (home / "half.gguf").write_bytes(b"GGUF\x03\x00\x00\x00" + b"\x01" * 64)
    done = cli("ask", "--upstream", "local:half.gguf", "hi")
    assert done.exit_code == 2
    assert "half.gguf" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(os.name == "nt", reason="signals")
@pytest.mark.parametrize("command", ["ask", "compare"])
def test_ctrl_c_is_quiet(command):
    words = [sys.executable, "-m", "honestproxy", command, "--upstream", "played:slow", "hi"]
    pipe = subprocess.PIPE
    with subprocess.Popen(words, stdout=pipe, stderr=pipe, text=True) as process:
        time.sleep(1.5)  # long enough to be waiting for the answer
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=20)
        assert (process.returncode, *said) == (130, "", "")
