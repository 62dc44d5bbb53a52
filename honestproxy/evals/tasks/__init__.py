"""Ready tasks, one file each: how a row of a published data set becomes a sample.

None of the data is shipped: a file is given by its path, or fetched from the hub by its id.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from honestproxy.evals.records import Sample
from honestproxy.evals.tables import Row
from honestproxy.evals.tasks import (
    coconot,
    exaggerated_safety,
    honeset,
    nonambigqa,
    pkqa,
    puqa,
    selfaware,
    simpleqa,
    sycophancy,
    truthfulqa,
    truthfulqa_mc,
)


@dataclass(frozen=True, slots=True)
class Task:
    """A data set: its name, how a row is read (None: not asked), and its place on the hub."""

    name: str
    sample: Callable[[Row], Sample | None]
    hub: str | None = None


_ALL: Final = (
    Task("honeset", honeset.sample),
    Task("truthfulqa", truthfulqa.sample, truthfulqa.HUB),
    Task("truthfulqa-mc", truthfulqa_mc.sample, truthfulqa_mc.HUB),
    Task("selfaware", selfaware.sample),
    Task("nonambigqa", nonambigqa.sample),
    Task("puqa", puqa.sample),
    Task("pkqa", pkqa.sample),
    Task("coconot", coconot.sample, coconot.HUB),
    Task("simpleqa", simpleqa.sample, simpleqa.HUB),
    Task("sycophancy", sycophancy.sample),
    Task("exaggerated-safety", exaggerated_safety.sample),
)
TASKS: Final[dict[str, Task]] = {task.name: task for task in _ALL}
"""Every task by the name that users choose it by."""
