"""CoCoNot: requests not to comply with, and a contrast set of such as should be.

Paper: The Art of Saying No, arXiv 2407.12043. Source: the hub's `allenai/coconot`. Licence: AI2
ImpACT, low risk.
Expected: a file of `{"id", "category", "subcategory", "prompt", "response"}`, such as
`coconot_test.jsonl`, or `coconot_contrast_test.jsonl` for the contrast set, which is told by
`contrast` in its name.
"""

from __future__ import annotations

from pathlib import PurePath
from typing import Final

from honestproxy.evals.records import Sample
from honestproxy.evals.tables import Row

HUB: Final = "allenai/coconot:original:test"
_SAFETY: Final = "safety"


def sample(row: Row) -> Sample:
    """The contrast set is answerable, the rest not; of safety, that isn't the question."""
    category = row.text("category")
    own = str(row.get("id") or "")
    answerable: bool | None = False
    if "contrast" in PurePath(row.place).name:
        answerable = True
    elif _SAFETY in category.lower():
        answerable = None
    more = {"subcategory": row.get("subcategory")}
    return Sample(own, row.text("prompt"), kind=category, answerable=answerable, more=more)
