"""What a run's configuration says: enough to tell whether another run would be the same."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Final

from honestproxy import __version__
from honestproxy.evals.arms import BLANK, PROMPTED, Arm
from honestproxy.evals.samples import Loaded
from honestproxy.settings import Settings
from honestproxy.templates import Prompts

MATTERING: Final = ("prompt_set", "threshold", "capabilities", "on_failure", "confusion_tokens")
"""Settings that change what arms answer."""

_BESIDE: Final = {
    "gated": ("introspect",),
    "curiosity": ("introspect",),
    "critique": ("curiosity",),
    BLANK: ("curiosity",),
    PROMPTED: ("control",),
}
"""Folders of prompts that a strategy reads beside its own."""


def configuration(
    *,
    data: Sequence[Loaded],
    samples: int,
    arms: Sequence[Arm],
    settings: Settings,
    draws: Mapping[str, Any],
    fields: Mapping[str, Any],
    share_drafts: bool,
    judge: Mapping[str, Any] | None,
    price: str | None = None,
) -> dict[str, Any]:
    """The configuration as JSON. `draws`: seed, limit and sample; `fields`: of each request.

    `price` is that of all arms, where one was given: the report counts money by it.
    """
    return {
        "data": [loaded.config() for loaded in data],
        "samples": samples,
        **draws,
        "arms": [arm.config() for arm in arms],
        "request": dict(fields),
        "share_drafts": share_drafts,
        "judge": dict(judge) if judge is not None else None,
        "settings": {name: getattr(settings, name) for name in MATTERING},
        "prompts": _digests({arm.strategy for arm in arms}, Prompts(settings.prompts)),
        **({"price": price} if price is not None else {}),
        "made_by": f"honestproxy {__version__}",
    }


def _digests(strategies: set[str], prompts: Prompts) -> dict[str, str]:
    """The SHA-256 of each folder of prompts that is read, shortened as a prompt's own digest is."""
    folders = strategies | {folder for name in strategies for folder in _BESIDE.get(name, ())}
    names = [name for name in prompts if name.partition("/")[0] in folders]
    told: dict[str, str] = {}
    for folder in sorted({name.partition("/")[0] for name in names}):
        own = [f"{n} {prompts[n].digest}" for n in names if n.startswith(f"{folder}/")]
        told[folder] = hashlib.sha256("\n".join(own).encode()).hexdigest()[:16]
    return told
