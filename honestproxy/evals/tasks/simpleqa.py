"""SimpleQA: short questions with one answer that nobody disputes.

Paper: arXiv 2411.04368. Source: GitHub `openai/simple-evals`. Licence: MIT.
Expected: `simple_qa_test_set.csv` with the columns `metadata`, `problem` and `answer`; the
metadata is a Python dictionary with `topic` and `answer_type`.
"""

from __future__ import annotations

import ast
from typing import Any, Final

from honestproxy.evals.records import Sample
from honestproxy.evals.tables import Row

HUB: Final = "basicv8vc/SimpleQA"


def sample(row: Row) -> Sample:
    """One answer; the kind is the topic."""
    metadata = _metadata(row)
    more = {name: metadata[name] for name in ("answer_type",) if name in metadata}
    return Sample(
        "",
        row.text("problem"),
        answers=(row.text("answer"),),
        kind=metadata.get("topic"),
        answerable=True,
        more=more,
    )


def _metadata(row: Row) -> dict[str, Any]:
    given = row.get("metadata")
    if isinstance(given, str):
        try:
            given = ast.literal_eval(given)
        except (ValueError, SyntaxError):
            raise row.wrong("'metadata' is no dictionary") from None
    return given if isinstance(given, dict) else {}
