import json
import resource
import subprocess
import sys

import pytest

from honestproxy.errors import EvaluationError
from honestproxy.evals.log import LOG, SAMPLES, Folder, lines
from honestproxy.evals.records import Answered, Verdict
from tests.evals.asked import CONFIG, read, samples

HOLD = """
import sys, pathlib
from honestproxy.evals.log import Folder
with Folder(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def answer(sample: str, arm: str = "raw", **more) -> Answered:
    return Answered(sample, arm, more.pop("text", "Yes. ☂"), **more)


def written(path, *records, config=CONFIG):
    with Folder(path) as folder:
        log = folder.start(config, samples(3))
        for record in records:
            log.append(record)


def test_what_was_written_is_read_again(tmp_path):
    records = [answer("q/0", usage={"total_tokens": 3}), answer("q/1", text="line\nline\u2028line")]
    verdicts = [Verdict("q/0", "raw", "honesty", "honest", {"a": 1.0}, "Since.")]
    written(tmp_path, *records, *verdicts)
    found = read(tmp_path)
    assert list(found.answers.values()) == records
    assert found.verdicts == verdicts
    assert found.samples == samples(3)
    assert found.config == CONFIG


def test_each_record_is_in_the_file_as_soon_as_it_is_appended(tmp_path):
    with Folder(tmp_path) as folder:
        log = folder.start(CONFIG, samples(3))
        for number in range(3):
            log.append(answer(f"q/{number}"))
            assert len((tmp_path / LOG).read_bytes().splitlines()) == number + 1


def test_a_torn_last_line_is_cut_off_and_asked_again(tmp_path):
    written(tmp_path, answer("q/0"), answer("q/1"))
    whole = (tmp_path / LOG).read_bytes()
    (tmp_path / LOG).write_bytes(whole[:-30])
    with Folder(tmp_path) as folder:
        log = folder.start(CONFIG, samples(3))
        assert "torn" in log.notes[0]
        assert set(log.done.answers) == {("q/0", "raw")}
        log.append(answer("q/1"))
    assert (tmp_path / LOG).read_bytes() == whole


@pytest.mark.parametrize("tail", [b"{", b'{"type":"answer","sam', b"\0" * 40])
def test_whatever_the_torn_line_holds_reading_goes_on(tmp_path, tail):
    written(tmp_path, answer("q/0"))
    with (tmp_path / LOG).open("ab") as file:
        file.write(tail)
    assert list(read(tmp_path).answers) == [("q/0", "raw")]
    with Folder(tmp_path) as folder:
        assert folder.start(CONFIG, samples(3)).notes


def test_a_torn_verdict_leaves_those_before_it(tmp_path):
    verdicts = [Verdict("q/1", arm, "honesty", "honest") for arm in ("raw", "gated")]
    written(tmp_path, answer("q/1"), *verdicts)
    whole = (tmp_path / LOG).read_bytes()
    (tmp_path / LOG).write_bytes(whole[:-9])
    with Folder(tmp_path) as folder:
        log = folder.start(CONFIG, samples(3))
        assert log.verdicts("q/1") == verdicts[:1]
        assert log.verdicts("q/0") == []


def test_a_whole_line_of_another_kind_is_named_and_not_cut_off(tmp_path):
    written(tmp_path, answer("q/0"))
    with (tmp_path / LOG).open("ab") as file:
        file.write(b'{"type":"x"}\n')
    with (
        pytest.raises(EvaluationError, match=r"log\.jsonl:2: a record of type 'x'"),
        Folder(tmp_path) as one,
    ):
        one.start(CONFIG, samples(3))
    assert (tmp_path / LOG).read_bytes().endswith(b'{"type":"x"}\n')


def test_a_broken_line_in_the_middle_is_named_and_left_alone(tmp_path):
    written(tmp_path, answer("q/0"), answer("q/1"))
    lines = (tmp_path / LOG).read_bytes().splitlines(keepends=True)
    (tmp_path / LOG).write_bytes(lines[0] + b"oops\n" + lines[1])
    with pytest.raises(EvaluationError, match=r"log\.jsonl:2: no record"), Folder(tmp_path) as one:
        one.start(CONFIG, samples(3))
    assert b"oops" in (tmp_path / LOG).read_bytes()


def test_lines_are_told_with_their_places_and_blank_ones_are_none(tmp_path):
    written(tmp_path, answer("q/0"), answer("q/1"))
    first, second = (tmp_path / LOG).read_bytes().splitlines(keepends=True)
    (tmp_path / LOG).write_bytes(first + b"\n" + second)
    found = list(lines(tmp_path / LOG))
    assert [(one.number, one.offset) for one in found] == [(1, 0), (3, len(first) + 1)]
    assert [one.record for one in found] == [answer("q/0"), answer("q/1")]
    with Folder(tmp_path) as folder:
        log = folder.start(CONFIG, samples(3))
        assert (log.notes, log.answer("q/1", "raw")) == ([], answer("q/1"))


def test_a_last_record_that_lacks_but_its_end_of_line_is_kept(tmp_path):
    """What is written next must not stand on the same line."""
    written(tmp_path, answer("q/0"), answer("q/1"))
    whole = (tmp_path / LOG).read_bytes()
    (tmp_path / LOG).write_bytes(whole[:-1])
    assert [one.is_ended for one in lines(tmp_path / LOG)] == [True, False]
    with Folder(tmp_path) as folder:
        log = folder.start(CONFIG, samples(3))
        assert set(log.done.answers) == {("q/0", "raw"), ("q/1", "raw")}
        assert "lacked its end" in log.notes[0]
        log.append(answer("q/2"))
    assert (tmp_path / LOG).read_bytes().startswith(whole)
    assert set(read(tmp_path).answers) == {(f"q/{n}", "raw") for n in range(3)}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"text": 5}, "`str | null`, got `int`"),
        ({"seconds": None}, "`float`, got `null`"),
        ({"answr": "x"}, "unknown field 'answr'"),
    ],
)
def test_a_record_of_which_a_value_is_wrong_is_told_with_its_line(tmp_path, wrong, said):
    written(tmp_path, answer("q/0"))
    line = json.loads((tmp_path / LOG).read_bytes())
    (tmp_path / LOG).write_text(json.dumps(line | wrong) + "\n", "utf-8")
    with pytest.raises(EvaluationError) as raised, Folder(tmp_path) as folder:
        folder.start(CONFIG, samples(3))
    assert f"{LOG}:1: no whole answer: " in raised.value.message
    assert said in raised.value.message


def test_questions_that_were_lost_are_put_back(tmp_path):
    written(tmp_path, answer("q/0"))
    (tmp_path / SAMPLES).unlink()
    with Folder(tmp_path) as folder:
        folder.start(CONFIG, samples(3))
    assert read(tmp_path).samples == samples(3)


def test_a_folder_that_can_not_be_made_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(EvaluationError, match="no folder that can be written to"):
        Folder(tmp_path / "file")


def test_an_error_that_may_pass_is_not_done_and_the_newest_answer_stands(tmp_path):
    busy = answer("q/0", text=None, error="busy", again=True)
    bad = answer("q/1", text=None, error="too long")
    written(tmp_path, busy, bad)
    with Folder(tmp_path) as folder:
        log = folder.start(CONFIG, samples(3))
        assert set(log.done.answers) == {("q/1", "raw")}
        log.append(answer("q/0"))
    assert read(tmp_path).answers["q/0", "raw"].text == "Yes. ☂"


def test_a_record_that_the_disk_does_not_take_leaves_nothing_half_written(tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with Folder(tmp_path) as folder:
        log = folder.start(CONFIG, samples(3))
        log.append(answer("q/0"))
        whole = (tmp_path / LOG).read_bytes()
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(whole) + 40, limits[1]))
        try:
            with pytest.raises(EvaluationError, match=r"log\.jsonl: can't be written: "):
                log.append(answer("q/1"))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert (tmp_path / LOG).read_bytes() == whole
        log.append(answer("q/2"))
    assert [sample for sample, _ in read(tmp_path).answers] == ["q/0", "q/2"]


def test_another_configuration_is_refused_saying_what_differs(tmp_path):
    config = {"arms": [{"name": "raw", "model": "a"}], "seed": 1, "prompts": {"gated": "d1"}}
    written(tmp_path, answer("q/0"), config={**config, "made_by": "honestproxy 1"})
    other = {"arms": [{"name": "raw", "model": "b"}], "seed": 1, "prompts": {"gated": "d2"}}
    with pytest.raises(EvaluationError) as raised, Folder(tmp_path) as folder:
        folder.start({**other, "limit": 5}, samples(3))
    for said in (
        'arms[1].model is "a" there and "b" here',
        'prompts.gated is "d1" there and "d2" here',
        "limit is null there and 5 here",
        "Choose another --out",
    ):
        assert said in raised.value.message
    assert "seed" not in raised.value.message
    with Folder(tmp_path) as folder:  # a newer version of ours goes on
        folder.start({**config, "made_by": "honestproxy 2"}, samples(3))


def test_a_folder_is_held_by_one_process(tmp_path):
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(EvaluationError, match="another process is at work"):
            Folder(tmp_path)
        process.kill()
        process.wait()
        Folder(tmp_path).close()


@pytest.mark.parametrize("config", [b"{", b"[]"])
def test_a_folder_with_something_else_in_it_is_refused(tmp_path, config):
    (tmp_path / "config.json").write_bytes(config)
    with pytest.raises(EvaluationError, match=r"config\.json"), Folder(tmp_path) as folder:
        folder.start(CONFIG, samples(3))


def test_a_log_without_configuration_is_not_written_to(tmp_path):
    (tmp_path / LOG).write_text(json.dumps({"type": "something"}), "utf-8")
    with pytest.raises(EvaluationError, match="without config"), Folder(tmp_path) as folder:
        folder.start(CONFIG, samples(3))
