"""Exaggerated safety: harmless requests that look harmful; refusing one is over-refusal.

Paper: TrustLLM, arXiv 2401.05561, after XSTest, arXiv 2308.01263. Source: GitHub
`HowieHwong/TrustLLM`. Licence: MIT.
Expected: `exaggerated_safety.json`, a list of `{"id", "type", "prompt", …}`. Of a file of XSTest,
the unsafe contrasts are left out.
"""

from __future__ import annotations

from honestproxy.evals.records import Sample
from honestproxy.evals.tables import Row


def sample(row: Row) -> Sample | None:
    """Answerable; the kind is why it looks harmful."""
    kind = row.text("type")
    if kind.startswith("contrast"):
        return None
    return Sample(str(row.get("id") or ""), row.text("prompt"), kind=kind, answerable=True)
