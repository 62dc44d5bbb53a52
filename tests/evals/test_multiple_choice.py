"""MC1 and MC2: by hand, on a backend that is told how likely each text is."""

import math

import pytest

from honestproxy.backends.scripted import Scripted
from honestproxy.errors import EvaluationError, InvalidRequest
from honestproxy.evals.multiple_choice import figures, measured, prompt, shuffled
from honestproxy.evals.records import Sample

TEA = Sample("tea", "Is tea blue?", answers=("No", "Hardly"), wrong=("Yes", "Always"), kind="Tea")
SKY = Sample("sky", "Is the sky blue?", answers=("Often",), wrong=("Never",))


class Told:
    """Weighs texts by a table of chances; notes what it was asked."""

    def __init__(self, chances, refused=""):
        self.chances = chances
        self.refused = refused
        self.asked = []

    async def choices(self, first, texts):
        self.asked.append((first, list(texts)))
        if self.refused and self.refused in first:
            raise InvalidRequest("too long")
        return [math.log(self.chances[text]) for text in texts]


CHANCES = {" No": 0.2, " Hardly": 0.3, " Yes": 0.1, " Always": 0.4, " Often": 0.03, " Never": 0.01}


async def test_mc2_is_the_mass_on_right_answers_and_mc1_the_best_against_the_wrong():
    tea, sky = await measured([TEA, SKY], Told(CHANCES))
    assert (tea.mc1, sky.mc1) == (False, True)
    assert tea.mc2 == pytest.approx(0.5)
    assert sky.mc2 == pytest.approx(0.75)
    found = figures([tea, sky])
    assert (found.mc1.value, found.mc1.n) == (0.5, 2)
    assert found.mc2.value == pytest.approx(0.625)
    assert found.chance == {"mc1": pytest.approx((1 / 3 + 1 / 2) / 2), "mc2": 0.5}
    assert found.mc2.low <= found.mc2.value <= found.mc2.high


async def test_another_right_answer_that_is_likelier_costs_mc1_nothing():
    chances = CHANCES | {" Hardly": 0.9, " Always": 0.1}
    (tea,) = await measured([TEA], Told(chances))
    assert tea.mc1 is True


async def test_a_tie_with_a_wrong_answer_is_lost():
    (sky,) = await measured([SKY], Told(CHANCES | {" Never": 0.03}))
    assert (sky.mc1, sky.mc2) == (False, pytest.approx(0.5))


async def test_very_unlikely_texts_still_have_shares():
    class Unlikely:
        async def choices(self, first, texts):
            return [-2000.0 if text == " Often" else -2000.0 - math.log(3) for text in texts]

    (sky,) = await measured([SKY], Unlikely())
    assert sky.mc2 == pytest.approx(0.75)


async def test_the_question_follows_the_primer_in_its_form():
    backend = Told(CHANCES)
    await measured([SKY], backend)
    await measured([SKY], backend, primer="Q: One?\nA: One.\n")
    assert [first for first, _ in backend.asked] == [
        "Q: Is the sky blue?\nA:",
        "Q: One?\nA: One.\n\nQ: Is the sky blue?\nA:",
    ]
    assert prompt("{question}", "") == "Q: {question}\nA:"


async def test_choices_are_shuffled_by_the_seed_and_the_question_alone():
    many = [
        Sample(f"{number}", "?", answers=("a", "b"), wrong=("c", "d", "e")) for number in range(40)
    ]
    orders = [[choice.text for choice in shuffled(sample, 1)] for sample in many]
    assert {order[0] for order in orders} == set("abcde")
    assert orders == [[choice.text for choice in shuffled(sample, 1)] for sample in many]
    assert orders != [[choice.text for choice in shuffled(sample, 2)] for sample in many]
    assert all(sorted(order) == list("abcde") for order in orders)


async def test_each_measure_counts_its_own_wrong_choices():
    only = {"mc1": ["Always"], "mc2": ["Yes"]}
    sample = Sample("tea", "?", answers=("No",), wrong=("Yes", "Always"), more=only)
    (row,) = await measured([sample], Told(CHANCES))
    assert (row.mc1, row.mc2) == (False, pytest.approx(2 / 3))
    assert (row.chance("mc1"), row.chance("mc2")) == (0.5, 0.5)


async def test_what_cant_be_weighed_is_recorded_and_left_out():
    bare = Sample("bare", "Bare?", answers=("Yes",))
    untrue = Sample("untrue", "Untrue?", wrong=("Yes",))
    steps = []
    backend = Told(CHANCES, refused="sky")
    rows = await measured([bare, TEA, SKY, untrue], backend, lambda *step: steps.append(step))
    errors = ["no wrong answers", None, "too long", "no right answers"]
    assert [row.error for row in rows] == errors
    assert [row.mc2 is None for row in rows] == [error is not None for error in errors]
    assert steps == [(1, 4), (2, 4), (3, 4), (4, 4)]
    found = figures(rows)
    assert (found.mc1.n, found.mc1.unscored) == (1, 3)


async def test_nothing_weighed_is_undefined():
    found = figures(await measured([SKY], Told(CHANCES, refused="sky")))
    assert (found.mc1.value, found.mc2.value) == (None, None)
    assert found.chance == {"mc1": None, "mc2": None}


@pytest.mark.parametrize(
    ("backend", "samples", "says"),
    [
        (Scripted(["hi"]), [SKY], "choose a `local:` one"),
        (Told({}), [Sample("a", "A?"), Sample("b", "B?", answers=("x",))], "'wrong' ones"),
    ],
)
async def test_what_cant_be_measured_at_all_is_said(backend, samples, says):
    with pytest.raises(EvaluationError, match=says):
        await measured(samples, backend)
