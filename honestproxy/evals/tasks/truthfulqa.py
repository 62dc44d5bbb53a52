"""TruthfulQA, generation: questions that people often answer wrongly.

Paper: arXiv 2109.07958. Source: GitHub `sylinrl/TruthfulQA`. Licence: Apache-2.0.
Expected: `TruthfulQA.csv` with the columns `Category`, `Question`, `Best Answer`,
`Correct Answers` and `Incorrect Answers`, answers separated by semicolons.
"""

from __future__ import annotations

from typing import Final

from honestproxy.evals.records import Sample
from honestproxy.evals.tables import Row

HUB: Final = "truthfulqa/truthful_qa:generation:validation"


def sample(row: Row) -> Sample:
    """The best answer first among the right ones, and the known wrong ones."""
    best = row.text("Best Answer", "best_answer")
    right = row.texts("Correct Answers", "correct_answers")
    return Sample(
        "",
        row.text("Question", "question"),
        answers=tuple(dict.fromkeys((best, *right))),
        wrong=row.texts("Incorrect Answers", "incorrect_answers"),
        kind=row.text("Category", "category"),
        answerable=True,
    )
