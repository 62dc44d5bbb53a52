"""Every prompt file is used, every placeholder filled, every row of the table true."""

from __future__ import annotations

import re

import pytest

from honestproxy.backends.local import exemplars
from honestproxy.backends.scripted import Scripted
from honestproxy.doubts import Scores
from honestproxy.evals.arms import PROMPTED, Arm
from honestproxy.evals.asking import Common
from honestproxy.evals.judges import known, load
from honestproxy.evals.judging import Judging
from honestproxy.evals.records import Answered, Sample
from honestproxy.pipeline import Pipeline
from honestproxy.settings import Settings
from honestproxy.strategies import STRATEGIES
from honestproxy.templates import Prompts, shipped
from honestproxy.types import DOUBT_KINDS, ChatRequest, Options
from tests.proxy import DOUBT, step_of
from tests.readers import Reading

ROW = re.compile(r"^\| `([^`]+)` \| ([^|]*) \| ([^|]*) \| ([^|]*) \|$", re.MULTILINE)


def reply(request: ChatRequest) -> str:
    said = {"confusion": DOUBT, "single": f"<limits>{DOUBT}</limits>No."}
    return said.get(step_of(request.dict()), "Text.")


def readings() -> list[Scores]:
    """What leads to each opening: by the kinds of the exemplars, and where no kind is clear."""
    openings = {(e.kind, e.sub) for e in exemplars.load() if e.kind != "none"}
    clear = [Scores({kind: 0.9}, 0.5, {kind: {sub: 1.0}}) for kind, sub in sorted(openings)]
    return [*clear, Scores(dict.fromkeys(DOUBT_KINDS, 0.12), 0.5)]


async def used_prompts(strategy: str, prompt_set: str) -> dict[str, str]:
    used: dict[str, str] = {}
    for scores in readings() if strategy == "introspect" else [None]:
        used |= await _used(strategy, prompt_set, Reading(reply, scores))
    return used


async def _used(strategy: str, prompt_set: str, backend: Reading) -> dict[str, str]:
    pipeline = Pipeline(backend, Settings(prompt_set=prompt_set))
    messages = [{"role": "user", "content": "Price?"}]
    request = ChatRequest({"model": "m", "messages": messages}, options=Options(strategy=strategy))
    run = pipeline.run(request)
    await run.complete()
    return {s.prompt: strategy for s in run.honesty.trace.steps if s.prompt}


async def judges_prompts() -> dict[str, str]:
    """The prompt that each judge was asked with."""
    sample = Sample("1", "Price?", answers=("5",), kind="latest_information")
    answers = {arm: Answered("1", arm, f"The answer of {arm}.") for arm in ("raw", "gated")}
    used = {}
    for judge in load(known(Prompts()), Prompts()):
        backend = Scripted(lambda request: "No verdict.")
        await Judging([judge], backend, "m").verdicts(sample, answers)
        sent = {request.messages[0]["content"] for request in backend.requests}
        assert all(text.startswith(judge.prompt.parts()[0] or "-") for text in sent)
        used[judge.prompt.name] = judge.name
    return used


async def controls_prompts() -> set[str]:
    """The prompts of control arms, as they are sent."""
    backend = Scripted(lambda request: "Text.")
    arm = Arm(PROMPTED, PROMPTED, "upstream", "m")
    (control,) = Common("upstream", backend, Settings()).entrants([arm], {})
    await control.answer(Sample("1", "Price?"))
    sent = backend.requests[0].messages[0]["content"]
    return {name for name in Prompts() if sent == Prompts()[name].text.strip()}


async def test_every_prompt_file_is_used_and_no_other() -> None:
    used: set[str] = set(await judges_prompts()) | await controls_prompts()
    for prompt_set in ("conversation", "paper"):
        for strategy in STRATEGIES:
            used |= (await used_prompts(strategy, prompt_set)).keys()
    assert used == set(Prompts())


def table() -> dict[str, tuple[str, ...]]:
    rows = ROW.findall((shipped() / "README.md").read_text("utf-8"))
    return {name: tuple(cells) for name, *cells in rows}


def test_openings_are_about_a_topic_only_where_any_thing_s_name_fits() -> None:
    named = {name for name in Prompts() if "topic" in Prompts()[name].placeholders}
    doing = {"interactivity_sensory", "professional_capability-verdict"}
    being = {f"self_identity-{sub}" for sub in ("life", "feelings", "memories", "body")}
    assert not [name for name in named if any(one in name for one in doing | being)]


def test_the_table_lists_every_file_with_its_placeholders() -> None:
    rows, prompts = table(), Prompts()
    assert set(rows) == {f"{name}.md" for name in prompts}
    for name in prompts:
        listed = set(re.findall(r"\$(\w+)", rows[f"{name}.md"][0]))
        assert listed == prompts[name].placeholders, name


async def test_the_table_says_who_uses_each_file() -> None:
    rows = table()
    for prompt_set in ("conversation", "paper"):
        for strategy in STRATEGIES:
            for name in await used_prompts(strategy, prompt_set):
                assert f"`{strategy}`" in rows[f"{name}.md"][1], name
    for name, judge in (await judges_prompts()).items():
        assert f"`{judge}`" in rows[f"{name}.md"][1], name


@pytest.mark.parametrize("name", list(Prompts()))
def test_prompts_never_show_in_answers_and_hold_no_markup_of_ours_unclosed(name: str) -> None:
    text = Prompts()[name].text
    if name.endswith(("merge", "edit", "answer")):
        assert re.search(r"[Nn]ever (mention|speak)|nothing that refers|[Aa]dd no", text)
    assert text.count("<limits>") == text.count("</limits>")
