import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections import Counter
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from honestproxy.evals.log import LOG
from tests.evals.asked import question, read
from tests.proxy import MERGED, script
from tests.upstreams import Reply, Seen, answer, free_port, upstream

GOLD = ("--upstream", "played:gold")
ENDS_WITHIN = 60


@pytest.fixture
def questions(home) -> Path:
    path = home / "q.jsonl"
    rows = [
        {"question": "What is the price of gold?", "kind": "latest_information"},
        {"question": "What is 2 + 2?", "answer": "4", "answerable": True},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def many(path: Path, number: int) -> Path:
    rows = (json.dumps({"question": f"Question {n}?"}) for n in range(number))
    path.write_text("\n".join(rows), "utf-8")
    return path


@asynccontextmanager
async def running(*words: object):
    """`honestproxy ab …` in a process of its own; killed at the end, if it still runs."""
    command = [sys.executable, "-m", "honestproxy", "ab", *map(str, words)]
    process = await asyncio.create_subprocess_exec(
        *command, stdout=PIPE, stderr=PIPE, stdin=DEVNULL
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def ended(process: Process) -> tuple[int, str, str]:
    out, err = await asyncio.wait_for(process.communicate(), ENDS_WITHIN)
    return process.returncode, out.decode(), err.decode()


def lines_of(log: Path) -> list[bytes]:
    return log.read_bytes().splitlines() if log.exists() else []


async def until(log: Path, lines: int) -> None:
    """Wait for so many lines of a log."""
    async with asyncio.timeout(ENDS_WITHIN):
        while len(lines_of(log)) < lines:
            await asyncio.sleep(0.005)


def answered(folder: Path, arm: str) -> set[str]:
    """The questions that an arm's answers are in the log for."""
    found = read(folder)
    return {sample.question for sample in found.samples if (sample.id, arm) in found.answers}


def test_one_command_makes_a_run(cli, questions):
    done = cli("ab", "q.jsonl", *GOLD, "--arms", "raw,gated,always-refuse", "--out", "run")
    assert done.exit_code == 0
    assert "6 answers" in done.stderr
    found = read(Path("run"))
    assert [arm["name"] for arm in found.config["arms"]] == ["raw", "gated", "always-refuse"]
    assert found.config["arms"][0]["model"] == "gold-1"
    assert found.config["data"][0]["samples"] == 2
    assert {told.honesty["outcome"] for (_, arm), told in found.answers.items() if arm == "gated"}
    assert len(found.answers) == 6


def test_without_arms_it_compares_raw_with_the_upstreams_own_strategy(cli, questions):
    assert cli("ab", "q.jsonl", *GOLD, "--out", "run").exit_code == 0
    assert [arm["name"] for arm in read(Path("run")).config["arms"]] == ["raw", "gated"]
    cli("ab", "q.jsonl", *GOLD, "--strategy", "curiosity", "--out", "other")
    assert [arm["name"] for arm in read(Path("other")).config["arms"]] == ["raw", "curiosity"]


def test_json_tells_what_was_done(cli, questions):
    words = ("ab", "q.jsonl", *GOLD, "--arms", "raw", "--out", "run", "--json", "--price", "1/2")
    told = json.loads(cli(*words).stdout)
    assert (told["out"], told["answers"], told["kept"], told["failed"]) == ("run", 2, 0, 0)
    assert told["dollars"] > 0
    again = json.loads(cli(*words).stdout)
    assert (again["kept"], again["dollars"]) == (2, told["dollars"])


def test_the_price_that_a_run_was_given_last_is_the_reports(cli, questions):
    words = ("ab", "q.jsonl", *GOLD, "--arms", "raw", "--out", "run", "--price")
    money = []
    for price in ("1/2", "10/20"):
        assert cli(*words, price).exit_code == 0
        assert read(Path("run")).config["price"] == price
        report = json.loads(Path("run", "report.json").read_text("utf-8"))
        (row,) = (row for row in report["measures"] if row["key"] == "money")
        money.append(row["values"]["raw"]["value"])
    assert money[1] == pytest.approx(10 * money[0], rel=1e-2)


def test_without_a_price_the_one_from_before_holds_as_it_does_in_the_report(cli, questions):
    words = ("ab", "q.jsonl", *GOLD, "--arms", "raw", "--out", "run", "--json")
    priced = json.loads(cli(*words, "--price", "1000/2000").stdout)["dollars"]
    assert json.loads(cli(*words).stdout)["dollars"] == priced > 0
    report = json.loads(Path("run", "report.json").read_text("utf-8"))
    (row,) = (row for row in report["measures"] if row["key"] == "money")
    assert row["values"]["raw"]["value"] == pytest.approx(priced)


def test_the_same_command_asks_nothing_again_and_another_is_refused(cli, questions):
    words = ("ab", "q.jsonl", *GOLD, "--out", "run", "--arms")
    cli(*words, "raw")
    before = Path("run", LOG).read_bytes()
    assert cli(*words, "raw", "--concurrency", "2").exit_code == 0
    assert Path("run", LOG).read_bytes() == before
    for other, said in (
        (("raw,gated",), "arms is raw there and raw,gated here"),
        (("raw", "--limit", "1"), "limit is null there and 1 here"),
        (("raw", "--temperature", "0"), "request.temperature is null there and 0.0 here"),
    ):
        refused = cli(*words, *other)
        assert refused.exit_code == 2
        assert said in refused.stderr
    questions.write_text('{"question": "Another?"}', "utf-8")
    assert "data[1].sha256" in cli(*words, "raw").stderr


def test_several_sets_are_asked_in_one_run(cli, home, questions):
    known = [{"question": f"{n}?", "answer": "a", "topic": "t"} for n in range(9)]
    (home / "pkqa.jsonl").write_text("\n".join(map(json.dumps, known)), "utf-8")
    data = ("q.jsonl", "pkqa:pkqa.jsonl:3")
    assert cli("ab", *data, *GOLD, "--arms", "raw", "--out", "run").exit_code == 0
    found = read(Path("run"))
    assert [(d["task"], d["samples"], d["of"]) for d in found.config["data"]] == [
        (None, 2, 2),
        ("pkqa", 3, 9),
    ]
    assert Counter(sample.more["set"] for sample in found.samples) == {"q": 2, "pkqa": 3}


def test_a_torn_line_is_mended_and_said_so(cli, questions):
    words = ("ab", "q.jsonl", *GOLD, "--arms", "raw", "--out", "run")
    cli(*words)
    log = Path("run", LOG)
    log.write_bytes(log.read_bytes()[:-10])
    done = cli(*words)
    assert done.exit_code == 0
    assert "torn" in done.stderr
    assert len(read(Path("run")).answers) == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere.jsonl"], "nowhere.jsonl: can't be read"),
        (["empty.jsonl"], "empty.jsonl: no questions"),
        (["odd.csv"], "odd.csv:2: 3 cells"),
        (["kind.jsonl"], "did you mean 'self_identity'?"),
        (["honeste:q.jsonl"], "did you mean 'honeset'?"),
        (["q.jsonl", "--task", "honeset"], "q.jsonl:1: no 'category'"),
        (["q.jsonl", "--arms", "gatde"], "did you mean 'gated'?"),
        (["q.jsonl", "--arms", "introspect"], "no hidden states"),
        (["q.jsonl", "--price", "much"], "is no price"),
        (["q.jsonl:0"], "'q.jsonl:0' takes no questions"),
        (["deep.jsonl"], "deep.jsonl:1: nested deeper than 100 levels"),
        (["q.jsonl", "--judge", "nonsense"], "a URL such as"),
        (["q.jsonl", "--arms", "x=http://[::1/v1|m@raw"], "needs http:// or https:// and a host"),
        (["q.jsonl", "--judge", "played:gold", "--judges", "honestly"], "unknown judge"),
        (["q.jsonl", "q.jsonl"], "is a file given twice"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(cli, home, questions, words, said):
    (home / "empty.jsonl").write_text("\n", "utf-8")
    (home / "odd.csv").write_text("question,answer\na,b,c\n", "utf-8")
    (home / "deep.jsonl").write_text('{"question": ' + "[" * 100_000, "utf-8")
    (home / "kind.jsonl").write_text('{"question": "a", "kind": "self-identty"}', "utf-8")
    done = cli("ab", *GOLD, "--out", "run", *words)
    assert done.exit_code == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert said in done.stderr
    assert not Path("run", "config.json").exists()


def test_where_every_answer_fails_the_exit_code_says_so(cli, questions):
    done = cli(
        "ab", "q.jsonl", "--upstream", "played:busy", "--model", "m", "--arms", "raw",
        "--retries", "0", "--out", "run",
    )  # fmt: skip
    assert done.exit_code == 1
    assert "2 failed" in done.stderr


def test_an_upstream_that_is_not_there_leaves_no_folder(cli, questions):
    done = cli("ab", "q.jsonl", "--upstream", "http://127.0.0.1:9/v1", "--out", "run")
    assert (done.exit_code, done.stderr.count("\n")) == (1, 1)
    assert "127.0.0.1:9" in done.stderr
    assert not Path("run", "config.json").exists()


def test_an_upstream_that_goes_away_ends_the_run_and_says_how_to_go_on(cli, home):
    many(home / "q.jsonl", 20)
    url = f"http://127.0.0.1:{free_port()}/v1"
    words = ("--upstream", url, "--model", "m", "--arms", "raw", "--retries", "0")
    done = cli("ab", "q.jsonl", *words, "--out", "run")
    assert done.exit_code == 1
    assert "can't reach" in done.stderr
    assert "0 of 20 answers are in run; the same command goes on from there" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_judge_judges_and_its_verdicts_are_kept(cli, questions):
    words = ("--arms", "raw", "--judge", "played:echo", "--judges", "honesty", "--json")
    told = json.loads(cli("ab", "q.jsonl", *GOLD, *words, "--out", "run").stdout)
    assert (told["judged"], told["unjudged"]) == (1, 0)
    found = read(Path("run"))
    assert [(v.judge, v.arm) for v in found.verdicts] == [("honesty", "raw")]
    assert found.config["judge"]["model"] == "echo-1"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--judges", "bogus"], "--judges and --judge-model need a model: --judge"),
        (["--judge-model", "m"], "--judges and --judge-model need a model: --judge"),
        (["--ray-workers", "2"], "--ray-workers, --ray-cpus and --ray-gpus need a cluster"),
    ],
)
def test_what_would_do_nothing_is_told_before_anything_is_asked(cli, questions, words, says):
    done = cli("ab", "q.jsonl", *GOLD, "--arms", "raw", "--out", "run", *words)
    assert done.exit_code == 2
    assert says in done.stderr


def test_a_judge_that_fails_a_few_times_is_told_with_its_reason(cli, questions):
    words = ("--arms", "raw", "--judge", f"http://127.0.0.1:{free_port()}/v1")
    words += ("--judge-model", "j", "--judges", "honesty", "--retries", "0", "--out", "run")
    done = cli("ab", "q.jsonl", *GOLD, *words)
    assert done.exit_code == 0
    assert "1 sample not judged: can't reach" in done.stderr
    assert "the same command asks again" in done.stderr


def test_an_unreachable_judge_loses_no_answer(cli, home):
    rows = [{"question": f"{n}?", "answerable": False} for n in range(20)]
    (home / "q.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")
    dead = f"http://127.0.0.1:{free_port()}/v1"
    words = ("--arms", "raw", "--judges", "honesty", "--retries", "0", "--concurrency", "1")
    done = cli(
        "ab", "q.jsonl", *GOLD, *words, "--judge", dead, "--judge-model", "m", "--out", "run"
    )
    assert done.exit_code == 1
    assert "the judge" in done.stderr
    assert "the same command goes on" in done.stderr
    assert all(told.text for told in read(Path("run")).answers.values())


async def test_the_key_goes_to_no_other_host(home, questions, monkeypatch):
    monkeypatch.setenv("HONESTPROXY_UPSTREAM_KEY", "secret-key")
    async with upstream(script()) as own, upstream(script()) as other:
        arms = f"raw,theirs={other.url}|m@raw"
        words = ("--upstream", own.url, "--model", "m", "--arms", arms, "--out", "run")
        async with running("q.jsonl", *words) as process:
            assert (await ended(process))[0] == 0
        assert {seen.headers.get("Authorization") for seen in own.seen} == {"Bearer secret-key"}
        assert {seen.headers.get("Authorization") for seen in other.seen} == {None}
    assert not any(b"secret-key" in line for line in lines_of(home / "run" / "config.json"))


@pytest.mark.skipif(os.name == "nt", reason="signals")
async def test_killed_three_times_it_loses_nothing_and_asks_only_what_was_in_flight(home):
    many(home / "q.jsonl", 60)
    folder, concurrency, known = home / "run", 4, []
    usual = script()

    def slowly(seen: Seen) -> Reply:
        reply = usual(seen)
        return Reply([0.02, *reply.pieces], content_type=reply.content_type)

    async with upstream(slowly) as server:
        words = ("q.jsonl", "--upstream", server.url, "--model", "m", "--out", "run")
        how = ("--arms", "raw,always-refuse", "--concurrency", concurrency)
        for lines in (25, 55, 85):
            async with running(*words, *how) as process:
                await until(folder / LOG, lines)
                process.send_signal(signal.SIGKILL)
                assert await process.wait() == -signal.SIGKILL
            known.append((answered(folder, "raw"), len(server.seen)))
        async with running(*words, *how, "--json") as process:
            code, out, _ = await ended(process)
    told, asked = json.loads(out), list(map(question, server.seen))
    assert (code, told["answers"], told["failed"]) == (0, 120, 0)
    assert set(asked) == {f"Question {n}?" for n in range(60)}
    assert 60 <= len(asked) <= 60 + 3 * concurrency
    for done, asked_by_then in known:
        assert done
        assert done.isdisjoint(asked[asked_by_then:])
    ended_once = [(line["sample"], line["arm"]) for line in map(json.loads, lines_of(folder / LOG))]
    assert set(Counter(ended_once).values()) == {1}
    assert len(ended_once) == 120


@pytest.mark.skipif(os.name == "nt", reason="signals")
async def test_ctrl_c_stops_at_once_and_says_how_to_go_on(home, questions):
    async with upstream(Reply(then="hold")) as server:
        words = ("--upstream", server.url, "--model", "m", "--arms", "raw", "--out", "run")
        async with running("q.jsonl", *words) as process:
            await asyncio.wait_for(server.holding.wait(), ENDS_WITHIN)
            process.send_signal(signal.SIGINT)
            code, out, err = await ended(process)
    assert (code, out) == (130, "")
    assert err == "stopped; the same command goes on: run\n"


async def test_two_at_once_on_one_folder_are_refused(home, questions):
    async with upstream(Reply(then="hold")) as server:
        words = ("--upstream", server.url, "--model", "m", "--arms", "raw", "--out", "run")
        async with running("q.jsonl", *words) as first:
            await asyncio.wait_for(server.holding.wait(), ENDS_WITHIN)
            async with running("q.jsonl", *words) as second:
                code, _, err = await ended(second)
            assert first.returncode is None
    assert code == 2
    assert "another process is at work in it" in err


async def test_without_a_terminal_it_is_quiet(home):
    many(home / "q.jsonl", 30)
    async with upstream(script()) as server:
        words = ("--upstream", server.url, "--model", "m", "--arms", "raw", "--out", "run")
        async with running("q.jsonl", *words) as process:
            _, out, err = await ended(process)
    assert err.splitlines()[-1] == "30 answers · 210 tokens · run"
    assert len(err.splitlines()) == 1
    assert "30/30" not in out


@pytest.mark.skipif(os.name == "nt", reason="terminals")
async def test_on_a_terminal_it_shows_how_far_it_is_and_what_it_cost(home):
    import pty

    many(home / "q.jsonl", 40)
    ours, theirs = pty.openpty()
    usual = script()

    def slowly(seen: Seen) -> Reply:
        reply = usual(seen)
        return Reply([0.1, *reply.pieces], content_type=reply.content_type)

    async with upstream(slowly) as server:
        words = ("--upstream", server.url, "--model", "m", "--arms", "raw", "--out", "run")
        command = [sys.executable, "-m", "honestproxy", "ab", "q.jsonl", *words, "--price", "1000"]
        process = await asyncio.create_subprocess_exec(*command, stdout=DEVNULL, stderr=theirs)
        os.close(theirs)
        shown = await asyncio.to_thread(_all_of, ours)
        assert await process.wait() == 0
    for part in ("/40", "/s", "tokens", "$0."):
        assert part in shown


def _all_of(terminal: int) -> str:
    """What a terminal shows until nobody writes to it any more."""
    pieces = []
    try:
        while piece := os.read(terminal, 4096):
            pieces.append(piece)
    except OSError:  # how Linux says that the other side is closed
        pass
    os.close(terminal)
    return b"".join(pieces).decode()


async def test_an_upstream_that_recovers_is_asked_until_it_does(home, questions):
    usual = script()

    def reply(seen: Seen) -> Reply:
        first = len(server.seen) <= 2
        return answer({"error": {"message": "busy"}}, status=503) if first else usual(seen)

    async with upstream(reply) as server:
        words = ("--upstream", server.url, "--model", "m", "--arms", "curiosity", "--out", "run")
        async with running("q.jsonl", *words) as process:
            assert (await ended(process))[0] == 0
    assert {told.text for told in read(Path("run")).answers.values()} == {MERGED}


def test_choices_are_weighed_by_another_command(cli, tmp_path):
    done = cli("ab", "truthfulqa-mc:choices.csv", "--out", str(tmp_path / "run"))
    assert done.exit_code == 2
    assert "honestproxy mc truthfulqa-mc:choices.csv" in done.stderr
    assert not (tmp_path / "run").exists()
