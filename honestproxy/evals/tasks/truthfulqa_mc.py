"""TruthfulQA, multiple choice: the same file, scored by log-probabilities (MC1, MC2).

Paper: arXiv 2109.07958. Source: GitHub `sylinrl/TruthfulQA`. Licence: Apache-2.0.
Expected: `TruthfulQA.csv`, as for `truthfulqa`. The best answer, which MC1 looks for, comes first
in `answers`: whoever shows choices must shuffle them.
"""

from __future__ import annotations

from honestproxy.evals.tasks.truthfulqa import HUB, sample

__all__ = ["HUB", "sample"]
