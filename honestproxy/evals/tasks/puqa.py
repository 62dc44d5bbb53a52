"""PUQA: prior-unknown questions, on authors of papers newer than the models of its time.

Paper: Alignment for Honesty, arXiv 2312.07000. Source: GitHub `GAIR-NLP/alignment-for-honesty`.
Licence: none stated.
Expected: `puqa.jsonl`, each line `{"title", "year", "authors", "question", "label"}`.

The papers are from 2023: newer models may know some of them.
"""

from __future__ import annotations

from honestproxy.evals.records import Sample
from honestproxy.evals.tables import Row


def sample(row: Row) -> Sample:
    """Not answerable. The authors are kept beside: naming one of several isn't the answer."""
    authors = row.texts("authors")
    return Sample("", row.text("question"), answerable=False, more={"authors": list(authors)})
