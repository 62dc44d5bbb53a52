"""Two runs as one: each arm that both have, the later against the earlier, question by question."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from honestproxy.errors import EvaluationError
from honestproxy.evals.log import differences
from honestproxy.evals.records import Sample, Verdict
from honestproxy.evals.report.reading import Arm, Run
from honestproxy.evals.report.summary import Changed


def merged(first: Run, second: Run) -> Run:
    """The arms and questions that both runs have. Raises EvaluationError where there are none.

    Arms that are there to be measured against in each run by itself are left out.
    """
    if first.is_live or second.is_live:
        live = first if first.is_live else second
        raise EvaluationError(
            f"{live.files[0]}: live records are of other users; report on it alone"
        )
    both = [arm for arm in first.arms if arm.shown in second.facts]
    own = [arm.shown for arm in both if not arm.is_fixed and arm.shown not in first.again]
    arms = own or [arm.shown for arm in both]
    if not arms:
        has = [", ".join(run.facts) for run in (first, second)]
        raise EvaluationError(
            f"no arm is in both runs: {first.name} has {has[0]}, {second.name} {has[1]}; "
            "name arms alike, as in `--arms mine=gated`"
        )
    samples = dict(_common(first.samples, second.samples))
    if not samples:
        raise EvaluationError(
            f"no question is in both runs, {first.name} and {second.name}; compare runs on one file"
        )
    names = _names(first, second)
    runs = [_part(run, n, names[n], arms, samples) for n, run in enumerate((first, second))]
    return Run(
        name=f"{first.name} → {second.name}",
        config={names[0]: first.config, names[1]: second.config},
        arms=[arm for pair in zip(*(run.arms for run in runs), strict=True) for arm in pair],
        samples=samples,
        files=[*first.files, *second.files],
        facts={**runs[0].facts, **runs[1].facts},
        pairs=[(shown(arm, names[0]), shown(arm, names[1])) for arm in arms],
        verdicts=_judged_twice(runs[0].verdicts, runs[1].verdicts),
        ruled=_united(runs[0].ruled, runs[1].ruled),
        notes=[*first.notes, *second.notes],
        is_comparison=True,
    )


def told(first: Run, second: Run) -> list[str]:
    """What differs between two runs besides their answers, in words."""
    return [
        *_configured(first, second),
        *_alone(
            "arm", [a.shown for a in first.arms], [a.shown for a in second.arms], first, second
        ),
        *_alone("question", list(first.samples), list(second.samples), first, second),
        *_otherwise(first, second),
    ]


def changed(run: Run) -> list[Changed]:
    """Answers whose text differs, in the order of the questions."""
    found = []
    for sample in run.samples:
        for before, after in run.pairs:
            old, new = run.facts[before].get(sample), run.facts[after].get(sample)
            if (
                old
                and new
                and (old.mark, old.outcome == "error") != (new.mark, new.outcome == "error")
            ):
                asked = run.samples[sample].question
                found.append(Changed(sample, asked, after, old.label, new.label))
    return found


def shown(arm: str, run: str) -> str:
    """What an arm of one of two runs is called."""
    return f"{arm} ({run})"


def _names(first: Run, second: Run) -> tuple[str, str]:
    return (first.name, second.name) if first.name != second.name else ("A", "B")


def _common(
    first: Mapping[str, Sample], second: Mapping[str, Sample]
) -> Iterator[tuple[str, Sample]]:
    for name, sample in first.items():
        other = second.get(name)
        if other is not None and other.conversation == sample.conversation:
            yield name, sample


def _part(run: Run, file: int, name: str, arms: list[str], samples: Mapping[str, Sample]) -> Run:
    """One of the two runs: what both have, under the names that the report has for it."""
    for facts in run.facts.values():
        for fact in facts.values():
            fact.file = file
    return replace(
        run,
        arms=[_renamed(run.arm(arm), name) for arm in arms],
        facts={
            shown(arm, name): {s: fact for s, fact in run.facts[arm].items() if s in samples}
            for arm in arms
        },
        verdicts={
            judge: {shown(arm, name): _kept(some, samples) for arm, some in by_arm.items()}
            for judge, by_arm in run.verdicts.items()
        },
        duels={},
        ruled={
            sample: {
                (judge, shown(arm, name), against): (file, offset)
                for (judge, arm, against), (_, offset) in places.items()
                if against is None
            }
            for sample, places in run.ruled.items()
        },
    )


def _renamed(arm: Arm, run: str) -> Arm:
    return replace(arm, shown=shown(arm.shown, run))


def _kept(verdicts: Mapping[str, Verdict], samples: Mapping[str, Sample]) -> dict[str, Verdict]:
    return {sample: verdict for sample, verdict in verdicts.items() if sample in samples}


def _judged_twice(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Verdicts of judges that judged both: what only one run was told can't be compared."""
    return {judge: {**first[judge], **second[judge]} for judge in first if judge in second}


def _united(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    keys = dict.fromkeys([*first, *second])
    return {key: {**first.get(key, {}), **second.get(key, {})} for key in keys}


def _configured(first: Run, second: Run) -> Iterator[str]:
    for line in differences(first.config, second.config):
        yield line.replace(" there and ", f" in {first.name} and ").removesuffix(" here") + (
            f" in {second.name}" if line.endswith(" here") else ""
        )


def _alone(what: str, first: list[str], second: list[str], one: Run, other: Run) -> Iterator[str]:
    for run, own, others in ((one, first, second), (other, second, first)):
        missing = [name for name in own if name not in set(others)]
        if missing and what == "arm":
            yield f"arms only in {run.name}: {', '.join(missing)}"
        elif missing:
            yield f"questions only in {run.name}: {len(missing):,}"


def _otherwise(first: Run, second: Run) -> Iterator[str]:
    both = [name for name in first.samples if name in second.samples]
    other = [
        name
        for name in both
        if first.samples[name].conversation != second.samples[name].conversation
    ]
    if other:
        yield f"questions of the same id that ask something else, left out: {len(other):,}"
