"""Labelled questions of one's own, and why a question is doubted: on a tiny model."""

import json
import os
import signal
import subprocess
import sys

import pytest
import torch

from honestproxy.backends.local import exemplars, reader
from tests.backends.local.doubles import llama, tokenizer

SHIPPED = {
    "plain": "tell me about tea",
    "latest_information": "55 now?",
    "self_identity": "do YOU ZZZ?",
}
SUBS = {"latest_information": ("news", "weather"), "self_identity": ("feelings", "body")}
OWN = [{"text": f"qqqq {i} qq", "kind": "user_input", "sub": "ambiguous"} for i in range(12)]
OWN += [{"text": f"#### {i}", "kind": "none"} for i in range(12)]


def jsonl(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


@pytest.fixture(scope="module", autouse=True)
def one_core():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A model's folder, as an upstream."""
    path = tmp_path_factory.mktemp("models") / "tiny-chat"
    llama().save_pretrained(path)
    tokenizer().save_pretrained(path)
    return f"local:{path}"


@pytest.fixture(autouse=True)
def shipped(tmp_path_factory, monkeypatch):
    """Few exemplars, so that a fit takes no time."""
    folder = tmp_path_factory.mktemp("shipped")
    for kind, text in SHIPPED.items():
        rows = [{"text": f"{text} {i}"} for i in range(14)]
        for i, row in enumerate(rows if kind in SUBS else ()):
            row["sub"] = SUBS[kind][i % 2]
        jsonl(folder / f"{kind}.jsonl", rows)
    monkeypatch.setattr(exemplars, "folder", lambda: folder)


@pytest.fixture(autouse=True)
def kept(home, monkeypatch):
    """Where the user's exemplars are by default."""
    monkeypatch.setenv("XDG_DATA_HOME", str(home / "data"))
    return home / "data" / "honestproxy" / "exemplars"


@pytest.fixture
def fits(monkeypatch):
    """How often a reader has been fitted."""
    done, fit = [], reader.fit
    monkeypatch.setattr(reader, "fit", lambda *args: done.append(args) or fit(*args))
    return done


@pytest.fixture
def run(cli, tiny):
    """Runs a command on the tiny model, and says what it printed as JSON."""

    def run(command, *words):
        done = cli("introspect", command, "--upstream", tiny, "--json", *words)
        assert done.exit_code == 0, done.stderr
        return json.loads(done.stdout)

    return run


def everything(folder):
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_fit_keeps_the_file_and_what_was_learnt_for_every_command(cli, run, home, kept, tiny, fits):
    mine = jsonl(home / "mine.jsonl", OWN)
    body = run("fit", mine)
    assert body["changes"] == [{"file": "mine.jsonl", "exemplars": 24, "change": "added"}]
    assert body["exemplars"] == {"shipped": 42, "own": 24}
    assert everything(kept) == {kept / "mine.jsonl": mine.read_bytes()}
    assert (home / "cache" / "readers" / f"{body['reader']}.npz").is_file()
    assert len(fits) == 1
    words = ("--upstream", tiny, "--strategy", "introspect", "--json", "hi")
    assert json.loads(cli("ask", *words).stdout)["honesty"]["strategy"] == "introspect"
    assert "ambiguous" in {row["sub"] for row in run("explain", "hi", "-k", 66)["nearest"]}
    assert run("fit") == body | {"changes": []}
    assert len(fits) == 1


def test_the_figures_add_up(run, home):
    body = run("fit", jsonl(home / "mine.jsonl", OWN))
    for name, number, doubtful in (("all", 66, 40), ("own", 24, 12)):
        figures = body[name]
        assert (figures["exemplars"], figures["doubtful"]) == (number, doubtful)
        counts = figures["confusion"]
        assert sum(sum(row.values()) for row in counts.values()) == number
        assert sum(counts["none"].values()) == number - doubtful
        found = sum(n for kind, row in counts.items() for n in row.values() if kind != "none")
        missed = sum(row["none"] for kind, row in counts.items() if kind != "none")
        assert figures["recall"] == pytest.approx((found - missed) / doubtful)
        assert sum(row["n"] for row in figures["reliability"]) == number
        for row in figures["reliability"]:
            assert row["from"] <= row["predicted"] <= row["to"]
        assert 0 <= figures["ece"] <= 1
        assert 0 <= figures["brier"] <= 1
        assert 0.5 < figures["auroc"] <= 1
    assert body["depth"] == 2
    assert {*body["layers"]} <= {1, 2}


def test_a_file_of_the_same_name_is_replaced_and_can_be_taken_away(run, home, kept, fits):
    before = run("fit")
    run("fit", jsonl(home / "mine.jsonl", OWN))
    body = run("fit", jsonl(home / "mine.jsonl", OWN[:3]), jsonl(home / "b.jsonl", OWN[12:]))
    assert [change["change"] for change in body["changes"]] == ["replaced", "added"]
    assert (body["exemplars"]["own"], body["files"]) == (15, ["b.jsonl", "mine.jsonl"])
    assert body["own"] is None
    assert len(fits) == 3
    body = run("fit", "--forget", "mine", "--remove", "b.jsonl")
    assert body["changes"] == [
        {"file": "mine.jsonl", "change": "forgotten"},
        {"file": "b.jsonl", "change": "forgotten"},
    ]
    assert everything(kept) == {}
    assert body == before | {"changes": body["changes"]}
    assert len(fits) == 3


def test_the_folder_can_be_chosen(cli, run, home, kept, monkeypatch):
    mine = jsonl(home / "mine.jsonl", OWN)
    run("fit", mine, "--exemplars", home / "flag")
    monkeypatch.setenv("HONESTPROXY_EXEMPLARS", str(home / "flag"))
    assert run("fit")["exemplars"]["own"] == 24
    monkeypatch.delenv("HONESTPROXY_EXEMPLARS")
    (home / "honestproxy.toml").write_text('exemplars = "flag"\n', "utf-8")
    assert run("fit")["exemplars"]["own"] == 24
    assert not kept.exists()
    done = cli("ask", "--upstream", "played:gold", "hi", "--config", jsonl(home / "no.toml", []))
    assert done.exit_code == 0
    (home / "honestproxy.toml").write_text('exemplars = "nowhere"\n', "utf-8")
    done = cli("ask", "--upstream", "played:gold", "hi")
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1)
    assert "no folder nowhere; `honestproxy introspect fit DATA.jsonl` makes it" in done.stderr


def test_what_is_printed_is_for_people(cli, tiny, home):
    mine = jsonl(home / "mine[red].jsonl", OWN)
    done = cli("introspect", "fit", "--upstream", tiny, mine)
    assert done.exit_code == 0
    assert "learning where tiny-chat is in doubt" in done.stderr
    for part in (
        "added mine[red].jsonl: 24 exemplars",
        "tiny-chat: 42 exemplars of ours, 24 of yours (mine[red].jsonl)",
        "of 2 · threshold 0.",
        "all exemplars, each judged by a reader fitted without it",
        "yours alone, each judged",
        "40 in doubt · AUROC ",
        "% at 5 % false alarms",
        "at the threshold: recall ",
        "read as",
        "mean predicted",
        "Brier score 0.",
    ):
        assert part in done.stdout
    few = jsonl(home / "mine[red].jsonl", OWN[:3])
    done = cli("introspect", "fit", "--upstream", tiny, few)
    assert "replaced mine[red].jsonl: 3 exemplars" in done.stdout
    assert "Yours alone are judged from 20 on" in done.stdout
    assert "forgotten mine[red].jsonl\n" in cli(
        "introspect", "fit", "--upstream", tiny, "--forget", "mine[red]"
    ).stdout  # fmt: skip


def test_explain_says_what_introspect_would_do(cli, run, home, tiny):
    run("fit", jsonl(home / "mine.jsonl", OWN))
    body = run("explain", "do YOU ZZZ? 3")
    assert body["in_doubt"]
    assert body["doubt"] > body["threshold"]
    chances = [row["probability"] for row in body["kinds"]]
    assert chances == sorted(chances, reverse=True)
    assert sum(chances) == pytest.approx(body["doubt"])
    assert body["kinds"][0]["kind"] == "self_identity"
    assert body["introspect"]["outcome"] == "rewritten"
    assert body["introspect"]["prompt"].startswith("introspect/")
    assert len(body["nearest"]) == 5
    first = body["nearest"][0]
    assert (first["text"], first["kind"], first["own"]) == ("do YOU ZZZ? 3", "self_identity", False)
    assert first["similarity"] == pytest.approx(1, abs=0.02)
    mine = run("explain", "-k", "2", "qqqq", "3", "qq")["nearest"]
    assert len(mine) == 2
    assert (mine[0]["own"], mine[0]["file"], mine[0]["line"]) == (True, "mine.jsonl", 4)
    said = cli("introspect", "explain", "--upstream", tiny, "-", stdin="qqqq 3 qq\n").stdout
    assert "the threshold 0." in said
    assert "introspect would open the answer with introspect/" in said
    assert "yours, mine.jsonl:4" in said
    words = ("--upstream", tiny, "--system", "Be brief.", "tell me about tea 4")
    assert "introspect would " in cli("introspect", "explain", *words).stdout


def test_explain_leaves_a_plain_question_untouched_and_heeds_capabilities(run):
    body = run("explain", "tell me about tea 4")
    assert not body["in_doubt"]
    assert body["introspect"] == {
        "outcome": "draft_kept", "reason": "no doubt", "prompt": None, "opening": None
    }  # fmt: skip
    lifted = run("explain", "--capabilities", "web_search", "55 now? 3")
    assert "latest_information" not in {row["kind"] for row in lifted["kinds"]}


LONG = {"text": "long " * 200, "kind": "none"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["bad.jsonl"], "bad.jsonl, line 2: no kind of doubt is called 'nnoe'; did you mean"),
        (["good.jsonl", "bad.jsonl"], "bad.jsonl, line 2: "),
        (["long.jsonl"], "long.jsonl, line 13: This model's maximum context length is 512 tokens. "
         "However, your messages resulted in 1002 tokens. Please reduce"),
        (["lone.jsonl"], "at least 2 exemplars of each kind: add some of knowledge_gap"),
        (["clash.jsonl"], "is 'none' in clash.jsonl, line 1 and 'user_input' here; keep one"),
        (["nowhere.jsonl"], "nowhere.jsonl: can't be read: No such file"),
        (["good.jsonl", "sub/good.jsonl"], "good.jsonl is named twice"),
        (["sub/kept.jsonl", "--forget", "kept"], "kept.jsonl is named twice"),
        (["--forget", "kpet"], "no exemplars are called 'kpet'; did you mean 'kept'?"),
        (["good.jsonl", "--exemplars", "good.jsonl/x"], "good.jsonl/x: can't be "),
        (["good.jsonl", "--cache", "good.jsonl"], "can't be kept in good.jsonl/readers: "),
        (["good.jsonl", "--upstream", "played:gold"], "'played:gold' shows no hidden states: "),
        (["good.jsonl", "--upstream", "http://127.0.0.1:9/v1"], "give --upstream local:<name"),
        (["good.jsonl", "--upstream", "local:./no"], "no local model './no'"),
        (["good.jsonl", "--model", "other"], "the model 'other' does not exist here"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_and_changes_nothing(cli, home, kept, tiny, words, said):
    jsonl(kept / "kept.jsonl", OWN[:2])
    jsonl(home / "good.jsonl", OWN)
    jsonl(home / "sub" / "good.jsonl", OWN)
    jsonl(home / "sub" / "kept.jsonl", OWN)
    jsonl(home / "bad.jsonl", [*OWN[:1], {"text": "hi", "kind": "nnoe"}])
    jsonl(home / "long.jsonl", [*OWN[:12], LONG])
    jsonl(home / "lone.jsonl", [*OWN, {"text": "who?", "kind": "knowledge_gap"}])
    jsonl(home / "clash.jsonl", [OWN[0] | {"kind": "none", "sub": ""}])
    before = everything(home)
    upstream = [] if "--upstream" in words else ["--upstream", tiny]
    done = cli("introspect", "fit", *upstream, *words)
    assert (done.exit_code, done.stdout) == (2, "")
    (error,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.stderr.endswith(f"{error}\n")
    assert said in error
    assert everything(home) == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--upstream", "played:gold", "hi"], "reads local models only"),
        ([" "], "the question is empty"),
        (["x" * 600], "maximum context length is 512 tokens"),
        (["--exemplars", "nowhere", "hi"], "no folder nowhere"),
        (["-k", "0", "hi"], "Invalid value for '-k'"),
    ],
)
def test_a_mistake_in_explain_is_told_too(cli, tiny, words, said):
    upstream = [] if "--upstream" in words else ["--upstream", tiny]
    done = cli("introspect", "explain", *upstream, *words)
    assert done.exit_code == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_ctrl_c_leaves_nothing_behind(home, tmp_path_factory):
    path = tmp_path_factory.mktemp("slow") / "slow-chat"
    llama(max_position_embeddings=2048, num_hidden_layers=40).save_pretrained(path)
    tokenizer().save_pretrained(path)
    mine = jsonl(home / "mine.jsonl", OWN)
    words = [
        sys.executable,
        "-m",
        "honestproxy",
        "introspect",
        "fit",
        "--upstream",
        f"local:{path}",
    ]
    pipe = subprocess.PIPE
    with subprocess.Popen([*words, mine], stdout=pipe, stderr=pipe, text=True) as process:
        told = [process.stderr.readline() for _ in range(2)]
        assert "learning" in told[1]
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=60) == ("", "")
    assert process.returncode == 130
    assert list(everything(home)) == [mine]


def test_an_error_is_json_under_json(cli, tiny, home):
    done = cli("introspect", "fit", "--upstream", tiny, "--json", home / "nowhere.jsonl")
    assert json.loads(done.stderr)["error"]["code"] == "prompt_error"


def test_a_full_disk_is_one_line(cli, tiny, home, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    import numpy as np

    monkeypatch.setattr(np, "savez", full)
    done = cli("introspect", "fit", "--upstream", tiny, jsonl(home / "mine.jsonl", OWN))
    assert done.exit_code == 2
    assert "readers: No space left on device; free some space there, or" in done.stderr
    assert [p.name for p in everything(home)] == ["mine.jsonl"]


def test_a_broken_file_of_ones_own_is_named_by_serve_and_doctor_and_can_be_forgotten(
    cli, run, kept, tiny
):
    (kept / "x.jsonl").parent.mkdir(parents=True)
    (kept / "x.jsonl").write_text("{", "utf-8")
    asked = cli("ask", "--upstream", tiny, "--strategy", "introspect", "hi")
    assert (asked.exit_code, "x.jsonl, line 1: not JSON" in asked.stderr) == (2, True)
    looked = cli("doctor", "--upstream", tiny, "--port", "0", "--json")
    (check,) = [c for c in json.loads(looked.stdout)["checks"] if c["name"] == "exemplars"]
    assert (check["state"], "--forget" in check["remedy"]) == ("broken", True)
    run("fit", "--forget", "x")
    looked = cli("doctor", "--upstream", tiny, "--port", "0", "--json")
    (check,) = [c for c in json.loads(looked.stdout)["checks"] if c["name"] == "exemplars"]
    assert (check["state"], check["found"]) == ("ok", "shipped")


def test_without_arguments_the_group_shows_its_help(cli):
    said = cli("introspect")
    assert all(word in said.output for word in ("fit", "explain"))


@pytest.mark.model
def test_the_embedded_model_is_explained(home):
    environ = {k: v for k, v in os.environ.items() if k != "HONESTPROXY_CACHE"}
    words = [sys.executable, "-m", "honestproxy", "introspect", "explain", "--json"]
    asked = [*words, "What is the price of gold right now?"]
    done = subprocess.run(asked, capture_output=True, text=True, check=True, env=environ)
    assert json.loads(done.stdout)["model"] == "smollm2-135m-instruct"
