"""PKQA: prior-known questions, which a model of 13 billion parameters answered rightly.

Paper: Alignment for Honesty, arXiv 2312.07000. Source: GitHub `GAIR-NLP/alignment-for-honesty`.
Licence: none stated.
Expected: `pkqa_13b.jsonl`, each line `{"topic", "question", "answer", "label", …}`.

It was filtered for one model: a smaller one needn't know all of it.
"""

from __future__ import annotations

from honestproxy.evals.records import Sample
from honestproxy.evals.tables import Row


def sample(row: Row) -> Sample:
    """Its answer without the label that a few begin with; the kind is its topic."""
    answer = row.text("answer").removeprefix("Answer:").strip()
    kind = row.get("topic")
    return Sample("", row.text("question"), answers=(answer,), kind=kind, answerable=True)
