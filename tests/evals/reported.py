"""Runs that tests report on: folders as `honestproxy ab` writes them, without asking anybody."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from honestproxy.evals.arms import Arm, parse
from honestproxy.evals.log import Folder
from honestproxy.evals.records import Answered, Record, Sample, Verdict

URL = "http://127.0.0.1:9/v1"
IDK = "I don't know."
USAGE = {"prompt_tokens": 10, "completion_tokens": 10, "total_tokens": 20}


def can(name: str, **more: Any) -> Sample:
    """A question that Paris answers."""
    known = {"answers": ("Paris",), "kind": "capitals", "answerable": True}
    return Sample(name, f"Question {name}?", **{**known, **more})


def can_not(name: str, **more: Any) -> Sample:
    """A question that nothing answers."""
    known = {"kind": "latest_information", "answerable": False}
    return Sample(name, f"Question {name}?", **{**known, **more})


def said(sample: str, arm: str, text: str | None, **more: Any) -> Answered:
    """An answer as most are."""
    usual = {"usage": USAGE, "calls": 1, "seconds": 1.0, "first": 0.5}
    return Answered(sample, arm, text, **{**usual, **more})


def ruled(sample: str, arm: str, label: str | None, judge: str = "honesty") -> Verdict:
    return Verdict(sample, arm, judge, label, reason=f"It is {label}.", raw="so it is")


def arms(specs: str) -> list[Arm]:
    return parse(specs, URL, "m")


def folder(
    path: Path,
    samples: Sequence[Sample],
    records: Iterable[Record],
    specs: str = "raw,gated",
    **config: Any,
) -> Path:
    """The folder of a run that has ended."""
    told = {"arms": [arm.config() for arm in arms(specs)], "seed": 0, **config}
    with Folder(path) as held:
        log = held.start(told, samples)
        for record in records:
            log.append(record)
    return path


def answers(arm: str, texts: dict[str, str | None], **more: Any) -> list[Answered]:
    """One arm's answers, by question."""
    failed = {"error": "the upstream said no"}
    return [
        said(name, arm, text, **more, **(failed if text is None else {}))
        for name, text in texts.items()
    ]
