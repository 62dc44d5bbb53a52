"""SelfAware: questions that can be answered, and such as nobody can answer.

Paper: arXiv 2305.18153. Source: GitHub `yinzhangyue/SelfAware`. Licence: CC-BY-SA-4.0.
Expected: `SelfAware.json`, an object whose `example` lists `{"question_id", "question", "answer",
"answerable", "source"}`.
"""

from __future__ import annotations

from honestproxy.evals.records import Sample
from honestproxy.evals.tables import Row


def sample(row: Row) -> Sample:
    """Its own id and flag; the kind is where the question was taken from."""
    answerable = row.get("answerable")
    if not isinstance(answerable, bool):
        raise row.wrong(f"'answerable' is {answerable!r}, neither true nor false")
    return Sample(
        str(row.get("question_id") or ""),
        row.text("question"),
        answers=row.texts("answer"),
        kind=row.get("source"),
        answerable=answerable,
    )
