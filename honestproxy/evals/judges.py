"""Judges as data: a folder each, with a prompt and a `judge.toml`, under `judge/` of the prompts.

A judge of one's own is such a folder in the folder that `--prompts` names.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from honestproxy.errors import EvaluationError, PromptError
from honestproxy.evals import rulings
from honestproxy.evals.candidates import framed
from honestproxy.evals.records import Answered, Sample
from honestproxy.settings import nearest
from honestproxy.templates import JUDGE_FILE, Prompt, Prompts, shipped
from honestproxy.types import DOUBT_KINDS, text_of

FOLDER: Final = "judge"
USUAL: Final = ("honesty", "h2", "correctness", "abstention")
"""Those that judge where nobody says which."""
OTHER: Final = "other"
OVERALL: Final = "overall"
SCALE: Final = (1.0, 10.0)

Asks = Literal["limits", "answers", "pairs"]


class JudgeSettings(BaseModel):
    """What `judge.toml` says.

    `asks`: which questions it judges, those that meet a limit of assistants, those with accepted
    answers, or pairs of answers to any. `labels`: the label for each word of the parser `label`;
    `scores` and `scale` are those of the parser `scores`: one score is `overall`, and H²'s bands,
    by which it is counted, are of a scale from 1 to 10. `required`: by kind of doubt, what an
    honest answer does.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str
    about: str
    asks: Asks
    parser: Literal["label", "scores"]
    temperature: float = Field(0.0, ge=0)
    max_tokens: int = Field(2048, ge=16)
    max_characters: int = Field(12_000, ge=100)
    labels: dict[str, str] = Field(default_factory=dict)
    scores: tuple[str, ...] = ()
    scale: tuple[float, float] = SCALE
    required: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.parser == "label" and len(set(self.labels.values())) < 2:
            raise ValueError("the parser 'label' needs a table [labels] with two at least")
        if self.parser == "scores" and OVERALL not in self.scores:
            raise ValueError("the parser 'scores' needs a list 'scores' with 'overall' in it")
        if self.parser == "scores" and self.scale != SCALE:
            raise ValueError(
                "the parser 'scores' needs scale = [1, 10]: bands end at 4 and 7 of it"
            )
        if self.asks == "pairs" and not {"first", "second"} <= set(self.labels.values()):
            raise ValueError("a judge of pairs needs labels 'first' and 'second'")
        return self


@dataclass(frozen=True)
class Judge:
    """One judge: how it is asked, which questions it is for, and how its replies are read."""

    name: str
    settings: JudgeSettings
    prompt: Prompt

    @property
    def pairs(self) -> bool:
        """Whether it compares two answers."""
        return self.settings.asks == "pairs"

    @property
    def parser(self) -> rulings.Parser:
        """What reads its replies."""
        if self.settings.parser == "scores":
            return rulings.scores(self.settings.scores, *self.settings.scale)
        return rulings.labels(self.settings.labels)

    def judges(self, sample: Sample) -> bool:
        """Whether it has anything to say of answers to this sample."""
        if self.settings.asks == "limits":
            is_limit = sample.kind in DOUBT_KINDS or sample.answerable is False
            return is_limit and sample.answerable is not True
        return bool(sample.answers) or self.pairs

    def ask(self, sample: Sample, *texts: str) -> str:
        """The prompt about one answer, or about two in this order."""
        names = ("first", "second") if self.pairs else ("answer",)
        values = self._values(sample, dict(zip(names, texts, strict=True)))
        return self.prompt.render(**{n: values[n] for n in values if n in self.prompt.placeholders})

    def config(self) -> dict[str, Any]:
        """What must be the same for verdicts to be comparable: digests of prompt and settings."""
        settings = json.dumps(self.settings.model_dump(), sort_keys=True).encode()
        digest = hashlib.sha256(settings).hexdigest()[:16]
        return {"name": self.name, "prompt": self.prompt.digest, "settings": digest}

    def _values(self, sample: Sample, texts: Mapping[str, str]) -> dict[str, str]:
        limit = self.settings.max_characters
        texts = {"question": _asked(sample), "accepted": "\n".join(sample.answers), **texts}
        required = self.settings.required
        kind = sample.kind if sample.kind in required else OTHER
        return {
            **{name: framed(name, text, limit) for name, text in texts.items()},
            "category": kind.replace("_", " "),
            "required": required.get(kind, ""),
        }


@dataclass(frozen=True, slots=True)
class Due:
    """A verdict that is to be asked for: of one arm's answer, or of two in this order."""

    judge: Judge
    arm: str
    against: str | None = None

    @property
    def arms(self) -> tuple[str, ...]:
        """The arms whose answers the judge is to see."""
        return (self.arm,) if self.against is None else (self.arm, self.against)


def due(judges: Iterable[Judge], sample: Sample, answers: Mapping[str, Answered]) -> Iterator[Due]:
    """The verdicts that a sample wants; an arm that failed has nothing to be judged.

    Of two arms either comes first once, and each pair holds the first arm of all.
    """
    arms = [arm for arm, answered in answers.items() if answered.text is not None]
    pairs = [pair for pair in combinations(arms, 2) if pair[0] == next(iter(answers))]
    for judge in judges:
        if not judge.judges(sample):
            continue
        if judge.pairs:
            for one, other in pairs:
                yield from (Due(judge, one, other), Due(judge, other, one))
        else:
            yield from (Due(judge, arm) for arm in arms)


def known(prompts: Prompts) -> list[str]:
    """The names of all judges: those shipped, and those in a folder of one's own."""
    roots = [root for root in (shipped(), prompts.override) if root is not None]
    files = [file for root in roots for file in (root / FOLDER).glob(f"*/{JUDGE_FILE}")]
    return sorted({file.parent.name for file in files})


def load(names: Iterable[str], prompts: Prompts) -> list[Judge]:
    """The judges of these names. Raises EvaluationError, PromptError."""
    there = known(prompts)
    for name in names:
        if name not in there:
            raise EvaluationError(f"unknown judge {name!r}; {nearest(name, there)}")
    return [_load(name, prompts) for name in dict.fromkeys(names)]


def _load(name: str, prompts: Prompts) -> Judge:
    roots = [root for root in (prompts.override, shipped()) if root is not None]
    files = [root / FOLDER / name / JUDGE_FILE for root in roots]
    file = next(file for file in files if file.is_file())
    judge = Judge(name, _settings(file), prompts[f"{FOLDER}/{name}/prompt"])
    judge.ask(Sample("", "?"), *(("1", "2") if judge.pairs else ("1",)))  # checks the placeholders
    return judge


def _settings(file: Path) -> JudgeSettings:
    try:
        return JudgeSettings(**tomllib.loads(file.read_text("utf-8")))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise PromptError(f"{file}: can't be read: {error}") from None
    except ValidationError as error:
        details = error.errors(include_url=False, include_input=False)
        said = "; ".join(": ".join([*map(str, d["loc"]), d["msg"]]) for d in details)
        raise PromptError(f"{file}: {said}") from None


def _asked(sample: Sample) -> str:
    """The question, or the whole conversation that ends in it."""
    messages = sample.conversation
    if len(messages) == 1:
        return sample.question
    return "\n\n".join(f"({m.get('role')}) {text_of(m.get('content'))}" for m in messages)
