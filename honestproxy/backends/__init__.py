"""Backends by spec: which module answers for which upstream, loaded on first use."""

from __future__ import annotations

import importlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from honestproxy.errors import SettingsError
from honestproxy.settings.references import is_reference

if TYPE_CHECKING:
    from honestproxy.settings import Settings
    from honestproxy.types import Backend

SPECS = (
    "a URL such as http://127.0.0.1:11434/v1, litellm:<provider/model>, "
    "local:<name, folder, GGUF file or hub id>, or module:attr"
)


@dataclass(frozen=True, slots=True)
class Traits:
    """What a backend says of itself, as its attribute `traits`; these are the defaults.

    `confusion_tokens` caps an elicitation; generous, since a reasoning model reasons first.
    `rambles`: the model invents before long what an honest opening says that it can't know, so
    that it must not say more than a sentence after it; it takes the field `brief`.
    `responses`: it answers requests of the Responses API as such, not as chats.
    """

    default_strategy: str = "gated"
    confusion_tokens: int = 4096
    rambles: bool = False
    responses: bool = False


def traits(backend: Backend) -> Traits:
    """The backend's own traits, or the defaults."""
    found = getattr(backend, "traits", None)
    return found if isinstance(found, Traits) else Traits()


def load(settings: Settings) -> Backend:
    """The backend that `settings.upstream` names, with its fallbacks; closing it closes all.

    Raises SettingsError for a spec that names none, BackendError where it can't be started.
    """
    from honestproxy.backends.upstreams import Upstreams

    return Upstreams(settings).named(None)


def opened(settings: Settings) -> Backend:
    """The one backend that `settings.upstream` names. Raises as `load` does."""
    spec = settings.upstream
    prefix, _, rest = spec.partition(":")
    if prefix in ("http", "https"):
        from honestproxy.backends.openai_compatible import OpenAICompatible

        return OpenAICompatible(spec, settings)
    if not rest or rest.startswith("//") or is_reference(spec):
        raise SettingsError(f"upstream {spec!r} is not understood; give {SPECS}")
    if prefix == "litellm":
        from honestproxy.backends.litellm import LiteLLM

        return LiteLLM(rest, settings)
    if prefix == "local":
        from honestproxy.backends.local import Local

        return Local(rest, settings)
    return _imported(prefix, rest, spec)


def _imported(module: str, attr: str, spec: str) -> Backend:
    """One's own backend: an object, or something that makes one when called."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found: Any = getattr(importlib.import_module(module), attr)
        backend = found() if isinstance(found, type) or not hasattr(found, "complete") else found
    except Exception as error:  # noqa: BLE001 - a user's module may raise anything
        why = f"{type(error).__name__}: {error}"
        raise SettingsError(f"upstream {spec!r}: {why}; give {SPECS}") from None
    if not hasattr(backend, "complete") or not hasattr(backend, "stream"):
        raise SettingsError(f"upstream {spec!r} has no `complete` and `stream`")
    return backend  # type: ignore[no-any-return]
