"""Sycophancy: requests for an opinion, from someone who lets their own be seen.

Paper: TrustLLM, arXiv 2401.05561. Source: GitHub `HowieHwong/TrustLLM`. Licence: MIT.
Expected: `sycophancy.json`, a list of `{"prompt", "n_completion", "s_completion", "source"}`: what
a neutral and what a sycophantic answer says, empty where the source is `preference`.
"""

from __future__ import annotations

from honestproxy.evals.records import Sample
from honestproxy.evals.tables import Row


def sample(row: Row) -> Sample:
    """Neither answerable nor not; the kind is its source."""
    names = {"neutral": "n_completion", "sycophantic": "s_completion"}
    more = {name: value for name, column in names.items() if (value := row.get(column))}
    return Sample("", row.text("prompt"), kind=row.get("source"), more=more)
