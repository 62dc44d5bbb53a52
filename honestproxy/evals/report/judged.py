"""What judges made of a run: which judge measures what, and labels that judges know better."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from honestproxy.evals.records import Verdict
from honestproxy.evals.report.reading import Fact, Run


@dataclass(frozen=True, slots=True)
class Roles:
    """Judges by what their verdicts are, by name.

    `honest` call an answer honest or dishonest, `three` correct, wrong or idk, `two` correct or
    wrong. `scores` give numbers, `duels` compare two answers; `others` have labels of their own.
    """

    honest: list[str] = field(default_factory=list)
    three: list[str] = field(default_factory=list)
    two: list[str] = field(default_factory=list)
    scores: list[str] = field(default_factory=list)
    duels: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)

    @property
    def labels_answers(self) -> str | None:
        """The judge that says whether answers are right; the one that knows idk before others."""
        return next(iter([*self.three, *self.two]), None)


def roles(run: Run) -> Roles:
    """The judges of a run, by name; one of which nothing could be read has no role."""
    found = Roles(duels=sorted({judge for judge, *_ in run.duels}))
    for judge, verdicts in _by_judge(run).items():
        if judge in run.verdicts and any(one.is_read for one in verdicts):
            _role(found, judge, verdicts).append(judge)
    return found


def _role(found: Roles, judge: str, verdicts: list[Verdict]) -> list[str]:
    labels = {verdict.label for verdict in verdicts if verdict.label is not None}
    if any(verdict.scores for verdict in verdicts):
        return found.scores
    if labels & {"honest", "dishonest"}:
        return found.honest
    if labels <= {"correct", "wrong", "idk"}:
        is_three = "idk" in labels or judge == "abstention"
        return found.three if is_three else found.two
    return found.others


def limits(run: Run, judges: Roles) -> Iterator[str]:
    """What isn't known of the answers for want of a judge, or of a verdict that could be read."""
    read = {judge: [one.is_read for one in some] for judge, some in _by_judge(run).items()}
    if not any(map(any, read.values())):
        yield (
            f"No judge has {'said what could be read' if read else 'read the answers'}. That an "
            "answer declines is told by English phrases in its opening, and that it is right by "
            "whether it contains an accepted answer: a paraphrase counts as wrong, a right name in "
            "a wrong sentence as right, and how honest or helpful the rest is can't be told."
            f"{'' if read else ' --judge adds one.'}"
        )
    elif judges.labels_answers is None:
        yield (
            "No judge has said whether answers are right: they count as right where they contain "
            "an accepted answer, and as declining by English phrases."
        )
    for judge, ones in read.items():
        if unread := ones.count(False):
            yield (
                f"{unread:,} of {len(ones):,} verdicts of {judge} couldn't be read, and count for "
                "nothing; the page shows what came instead."
            )


def _by_judge(run: Run) -> dict[str, list[Verdict]]:
    found: dict[str, list[Verdict]] = {}
    for judge, by_arm in sorted(run.verdicts.items()):
        found[judge] = [verdict for some in by_arm.values() for verdict in some.values()]
    for (judge, *_), verdict in run.duels.items():
        found.setdefault(judge, []).append(verdict)
    return found


def relabel(run: Run, judges: Roles) -> None:
    """Let the judge's label stand where one judges answers; what it couldn't tell is unscored.

    Questions that it is never asked about, having no accepted answer, keep the label by words.
    """
    name = judges.labels_answers
    if name is None:
        return
    for arm, facts in run.facts.items():
        verdicts = run.verdicts.get(name, {}).get(arm, {})
        for sample, fact in facts.items():
            if run.samples[sample].answers and fact.answered.error is None:
                fact.label = _label(fact, verdicts, sample, is_three=name in judges.three)
                if name in judges.three:
                    fact.declined = None if fact.label is None else fact.label == "idk"


def _label(
    fact: Fact, verdicts: Mapping[str, Verdict], sample: str, *, is_three: bool
) -> str | None:
    if not is_three and fact.words == "idk":
        return "idk"
    verdict = verdicts.get(sample)
    return verdict.label if verdict else None
