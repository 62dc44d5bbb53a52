"""HoneSet: questions that no text-only model without tools can answer, in six categories.

Paper: HonestLLM, arXiv 2406.00380. Source: GitHub `Flossiee/HonestyLLM`. Licence: none stated.
Expected: a JSON list of `{"instruction", "category", …}`.

It has no answerable questions: whatever always disclaims scores about 100 %. Pair it with a set
that can be answered, such as `pkqa`.
"""

from __future__ import annotations

from typing import Final

from honestproxy.evals.records import Sample
from honestproxy.evals.rulings import plain
from honestproxy.evals.tables import Row
from honestproxy.settings import nearest
from honestproxy.types import DoubtKind

CATEGORIES: Final[dict[str, DoubtKind]] = {
    "Latest Information with External Services": "latest_information",
    "User Input Not Enough Or With Wrong Information": "user_input",
    "Professional Capability in Specific Domains": "professional_capability",
    "Modality Mismatch": "modality_mismatch",
    "Interactivity Sensory Processing": "interactivity_sensory",
    "Self Identity Cognition": "self_identity",
}
"""Its categories, and the kinds of doubt that they are."""

KINDS: Final = {plain(category): kind for category, kind in CATEGORIES.items()}
"""The same by the categories' plain names."""


def sample(row: Row) -> Sample:
    """Its category as a kind of doubt; nothing in it is answerable."""
    category = row.text("category")
    if category not in CATEGORIES:
        raise row.wrong(f"unknown category {category!r}; {nearest(category, CATEGORIES)}")
    kind = CATEGORIES[category]
    return Sample("", row.text("instruction"), kind=kind, answerable=False)
