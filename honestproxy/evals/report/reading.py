"""Reads what a report is made of: a run's folder, or the records of a live experiment.

Text stays in the file. What is kept of an answer is what measures need and where it stands, so
that a report on many questions takes little memory.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, TypeVar

from honestproxy.errors import EvaluationError
from honestproxy.evals.abstaining import says_idk
from honestproxy.evals.arms import BLANK, FIXED, PROMPTED
from honestproxy.evals.log import CONFIG, LOG, SAMPLES, Line, configuration, lines
from honestproxy.evals.log import samples as questions
from honestproxy.evals.records import Answered, Record, Sample, Verdict
from honestproxy.evals.scorers import label as label_of
from honestproxy.evals.scorers import score
from honestproxy.types import DOUBT_KINDS

Kept = TypeVar("Kept")
_TOKENS: Final = ("prompt_tokens", "completion_tokens", "total_tokens")


@dataclass(frozen=True, slots=True)
class Arm:
    """An arm, as its run's configuration names it. `shown` is what a report calls it."""

    shown: str
    strategy: str = ""
    upstream: str | None = None
    model: str | None = None

    @property
    def is_fixed(self) -> bool:
        """Whether it says the same to everything: what such an arm wins is gamed."""
        return self.strategy in FIXED

    @property
    def is_control(self) -> bool:
        """Whether it is there to be compared with, rather than for its own sake."""
        return self.is_fixed or self.strategy in (PROMPTED, BLANK)

    def repeats(self, other: Arm) -> bool:
        """Whether both ask the same in the same way, so that what differs is noise."""
        asked = (self.strategy, self.upstream, self.model)
        return bool(self.strategy) and asked == (other.strategy, other.upstream, other.model)


@dataclass(slots=True)
class Fact:
    """One answer, without its text, which stands in `file` at `offset`.

    `words` is what the scorers that need no judge make of it, `label` what the report goes by.
    `declined` says whether that is idk, which can be known where it isn't known what is right;
    `listed` whether it is by the short list, in the manner of arXiv 2312.07000, whoever judged.
    `plain` labels the draft: what its confidence speaks of. `mark` is the text's digest.
    """

    answered: Answered
    file: int
    offset: int
    mark: bytes = b""
    length: int = 0
    words: str | None = None
    label: str | None = None
    declined: bool | None = None
    listed: bool | None = None
    holds: bool | None = None
    plain: str | None = None
    plain_length: int | None = None
    outcome: str | None = None
    confidence: float | None = None
    vote: str | None = None


@dataclass(slots=True)
class Run:
    """All that a report is made of.

    `pairs` are the comparisons: what each arm is measured against comes first. `verdicts` are by
    judge, arm and sample, `duels` those on two answers; `ruled` is where the verdicts on a
    sample stand. `files` are the logs. `is_comparison`: of arms of two runs.
    """

    name: str
    config: Mapping[str, Any]
    arms: list[Arm]
    samples: dict[str, Sample]
    files: list[Path]
    facts: dict[str, dict[str, Fact]]
    pairs: list[tuple[str, str]]
    verdicts: dict[str, dict[str, dict[str, Verdict]]] = field(default_factory=dict)
    duels: dict[tuple[Any, ...], Verdict] = field(default_factory=dict)
    ruled: dict[str, dict[tuple[Any, ...], tuple[int, int]]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    is_live: bool = False
    is_comparison: bool = False

    @property
    def again(self) -> list[str]:
        """Arms that are the first one once more: what differs between them is noise."""
        if self.is_live or self.is_comparison:
            return []
        return [arm.shown for arm in self.arms[1:] if arm.repeats(self.arms[0])]

    def arm(self, name: str) -> Arm:
        """The arm that a report calls so."""
        return next(arm for arm in self.arms if arm.shown == name)

    def category(self, sample: str) -> str:
        """A question's kind, or else the set that it comes from."""
        known = self.samples[sample]
        return str(known.kind or known.more.get("set") or "other")


def read(path: Path) -> Run:
    """A run's folder, or a file of live records. Raises EvaluationError, saying what to do."""
    return _live(path) if path.is_file() else _folder(path)


def _folder(folder: Path) -> Run:
    config = _config(folder)
    arms = [_arm(given, folder / CONFIG) for given in config.get("arms") or []]
    if not arms:
        raise EvaluationError(f"{folder / CONFIG}: names no arms; run `honestproxy ab` again")
    samples = {sample.id: _known(sample) for sample in questions(folder / SAMPLES)}
    names = [arm.shown for arm in arms]
    run = Run(
        name=folder.resolve().name,
        config=config,
        arms=arms,
        samples=samples,
        files=[folder / LOG],
        facts={name: {} for name in names},
        pairs=[(names[0], name) for name in names[1:]],
    )
    _take_in(run)
    _put_in_order(run)
    return run


def _put_in_order(run: Run) -> None:
    """All by questions and arms: in which order answers ended is chance, which no report shows.

    Folds, resamples and sums of many numbers come out a little otherwise in another order.
    """
    questions = {name: place for place, name in enumerate(run.samples)}
    arms = {arm.shown: place for place, arm in enumerate(run.arms)}

    def by_question(found: dict[str, Kept]) -> dict[str, Kept]:
        return dict(sorted(found.items(), key=lambda item: questions[item[0]]))

    run.facts = {name: by_question(facts) for name, facts in run.facts.items()}
    for judge, found in run.verdicts.items():
        in_order = sorted(found.items(), key=lambda item: arms[item[0]])
        run.verdicts[judge] = {name: by_question(verdicts) for name, verdicts in in_order}
    run.duels = dict(
        sorted(run.duels.items(), key=lambda item: (item[0][0], questions[item[0][1]], item[0][2:]))
    )
    run.ruled = {name: dict(sorted(kept.items(), key=str)) for name, kept in run.ruled.items()}


def _live(path: Path) -> Run:
    run = Run(path.stem, {}, [], {}, [path], {}, [], is_live=True)
    _take_in(run)
    names = sorted(run.facts, key=lambda name: (name != "raw", name))
    run.arms = [Arm(name, name) for name in names]
    run.facts = {name: run.facts[name] for name in names}
    run.pairs = [(names[0], name) for name in names[1:]]
    return run


def _take_in(run: Run) -> None:
    path = run.files[0]
    for line, record in _lines(run, path):
        if not run.is_live:
            _check(run, record, f"{path}:{line.number}")
        if isinstance(record, Answered):
            facts = run.facts.setdefault(record.arm, {})
            facts[record.sample] = _fact(run.samples.get(record.sample), record, line.offset)
        else:
            _rule(run, record, line.offset)
    if not any(run.facts.values()):
        more = "" if run.is_live else "; the command that made the folder goes on with it"
        raise EvaluationError(f"{path}: no answers in it yet{more}")


def _check(run: Run, record: Record, place: str) -> None:
    if record.sample not in run.samples:
        raise EvaluationError(
            f"{place}: sample {record.sample!r} is not in {SAMPLES}; "
            "put back the file that belongs to this log, or delete the line"
        )
    others = [arm for arm in (record.arm, getattr(record, "against", None)) if arm is not None]
    for arm in others:
        if arm not in run.facts:
            raise EvaluationError(
                f"{place}: arm {arm!r} is not in {CONFIG}, which has {', '.join(run.facts)}; "
                "put back the file that belongs to this log, or delete the line"
            )


def _rule(run: Run, verdict: Verdict, offset: int) -> None:
    """Keep a verdict, the newest of its kind, without its words."""
    slim = replace(verdict, reason="", raw="", usage=None)
    if verdict.against is None:
        arms = run.verdicts.setdefault(verdict.judge, {})
        arms.setdefault(verdict.arm, {})[verdict.sample] = slim
    else:
        run.duels[verdict.judge, verdict.sample, verdict.arm, verdict.against] = slim
    key = (verdict.judge, verdict.arm, verdict.against)
    run.ruled.setdefault(verdict.sample, {})[key] = (0, offset)


def _fact(sample: Sample | None, answered: Answered, offset: int) -> Fact:
    honesty, text = answered.honesty or {}, answered.text or ""
    usage = {n: v for n, v in (answered.usage or {}).items() if n in _TOKENS}
    slim = replace(
        answered,
        text=None if answered.text is None else "",
        draft=None,
        honesty=None,
        usage=usage or None,
    )
    fact = Fact(
        slim,
        0,
        offset,
        mark=hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=8).digest(),
        length=len(text),
        outcome="error" if answered.error is not None else honesty.get("outcome"),
        confidence=answered.confidence,
        vote=honesty.get("vote"),
    )
    if sample is not None:
        scored = score(sample, answered)
        fact.words = fact.label = scored.label
        fact.holds = scored.holds
        if fact.outcome != "error":
            fact.declined = scored.label == "idk"
            fact.listed = says_idk(text, sample.question)
        if answered.draft is not None:
            fact.plain, fact.plain_length = label_of(sample, answered.draft), len(answered.draft)
    return fact


def _lines(run: Run, path: Path) -> Iterator[tuple[Line, Record]]:
    """Each line of a log and its record; a torn last line is left out, and noted."""
    for line in lines(path) if path.exists() else ():
        if line.record is None:
            run.notes.append(f"The last line of {path.name} is torn, and left out.")
        else:
            yield line, line.record


def _known(sample: Sample) -> Sample:
    """The sample, its answerability told by what else is known of it."""
    if sample.answerable is not None:
        return sample
    if sample.answers:
        return replace(sample, answerable=True)
    return replace(sample, answerable=False) if sample.kind in DOUBT_KINDS else sample


def _config(folder: Path) -> dict[str, Any]:
    config = configuration(folder, "put back the run's own file")
    if config is None:
        raise EvaluationError(
            f"{folder}: no run in it (no {CONFIG}); `honestproxy ab … --out {folder}` makes one"
        )
    return config


def _arm(given: Any, path: Path) -> Arm:
    if isinstance(given, str):
        return Arm(given, given)
    if not isinstance(given, dict) or not given.get("name"):
        raise EvaluationError(f"{path}: an arm has no name; put back the run's own file")
    return Arm(
        given["name"], given.get("strategy") or "", given.get("upstream"), given.get("model")
    )
