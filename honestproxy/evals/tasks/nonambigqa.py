"""Non-AmbigQA: factual questions that have one reading only.

Paper: Alignment for Honesty, arXiv 2312.07000, after AmbigQA. Source: GitHub
`GAIR-NLP/alignment-for-honesty`. Licence: none stated.
Expected: `nonambigqa.jsonl`, each line `{"question_id", "question", "answers", "gold_answer"}`.
"""

from __future__ import annotations

from honestproxy.evals.records import Sample
from honestproxy.evals.tables import Row


def sample(row: Row) -> Sample:
    """Its own id, and every answer that counts as right."""
    return Sample(
        str(row.get("question_id") or ""),
        row.text("question"),
        answers=row.texts("answers", "gold_answer"),
        answerable=True,
    )
