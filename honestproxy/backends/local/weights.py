"""Where a local model's files are, and how they are loaded on this machine."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from honestproxy.backends.local import convert, embedded, runtime
from honestproxy.backends.local.embedded import Progress
from honestproxy.backends.local.sampling import Sampling
from honestproxy.errors import ModelUnavailable

if TYPE_CHECKING:
    import torch

_HUB_ID: Final = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
_PATHLIKE: Final = re.compile(r"[./~\\]|[A-Za-z]:[/\\]")
_PLAIN_ATTENTION: Final = {"full_attention", "sliding_attention", "chunked_attention"}

EMBEDDED_DEFAULTS: Final = Sampling(repetition_penalty=1.1, max_tokens=1024)
"""How the embedded model decodes where a request doesn't say: greedy, with a mild guard
against loops, and never on and on; its files say nothing of it."""


@dataclass(frozen=True, slots=True)
class Spec:
    """What `local:` was asked for: the model's name, of what kind it is, and where it lies."""

    name: str
    kind: Literal["embedded", "folder", "gguf", "hub"]
    path: Path = Path()


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model that is ready, and what must be known of it to decode."""

    model: Any
    tokenizer: Any
    context: int
    ends: frozenset[int]
    defaults: Sampling

    def decode(self, ids: Sequence[int]) -> str:
        """Text of tokens, without the special ones."""
        text: str = self.tokenizer.decode(
            ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text


def parse(spec: str) -> Spec:
    """What a spec names; looks at the disk, never at a network.

    Raises ModelUnavailable where there is no such thing.
    """
    if spec.lower() == embedded.NAME:
        return Spec(embedded.NAME, "embedded")
    path = Path(spec).expanduser()
    if spec.lower().endswith(".gguf"):
        return _gguf(path)
    if path.is_dir():
        return _folder(path)
    if _HUB_ID.fullmatch(spec) and not _PATHLIKE.match(spec):
        return Spec(spec, "hub")
    known = f"{embedded.NAME}, an existing folder, a file that ends in .gguf, or a hub id org/name"
    raise ModelUnavailable(f"no local model {spec!r}: give {known}")


def _gguf(path: Path) -> Spec:
    try:
        with path.open("rb") as file:
            magic = file.read(4)
    except OSError as error:
        raise ModelUnavailable(f"{path} can't be read: {error.strerror}") from None
    if magic != b"GGUF":
        raise ModelUnavailable(f"{path} is no GGUF file: fetch it again")
    return Spec(path.stem, "gguf", path)


def _folder(path: Path) -> Spec:
    if not (path / "config.json").is_file():
        found = sorted(path.glob("*.gguf"))
        hint = f"; did you mean {found[0]}?" if found else ""
        said = f"{path} holds no config.json, so it is no model folder{hint}"
        raise ModelUnavailable(said)
    return Spec(path.resolve().name, "folder", path)


def load(
    spec: Spec, cache: Path, progress: Progress = lambda line: None, dtype: str | None = None
) -> Loaded:
    """Fetch and convert what must be, and load it: seconds, in a thread of the caller's.

    Raises ModelUnavailable where that can't be done, BackendError where torch is missing.
    """
    runtime.prepare()
    import torch

    place = _place(spec, cache, progress)
    progress(f"loading {spec.name}")
    device = _device()
    chosen = getattr(torch, dtype) if dtype else _dtype(device)
    try:
        with runtime.quiet():
            tokenizer, model = _load(place, spec, chosen)
    except Exception as error:  # noqa: BLE001 -- a broken model fails in a hundred ways
        raise _explained(spec, place, error) from None
    defaults = EMBEDDED_DEFAULTS if spec.kind == "embedded" else None
    return ready(model.to(device).eval(), tokenizer, spec.name, defaults)


def _place(spec: Spec, cache: Path, progress: Progress) -> str:
    if spec.kind == "hub":
        return spec.name
    if spec.kind == "folder":
        return str(spec.path)
    with convert.writing(cache):
        if spec.kind == "embedded":
            return str(embedded.fetch(cache, progress))
        return str(convert.converted(spec.path, cache, convert.key_of(spec.path), progress))


def _load(place: str, spec: Spec, dtype: torch.dtype) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    local = spec.kind != "hub"
    tokenizer = AutoTokenizer.from_pretrained(place, local_files_only=local)
    return tokenizer, AutoModelForCausalLM.from_pretrained(
        place, dtype=dtype, local_files_only=local
    )


def _explained(spec: Spec, place: str, error: Exception) -> ModelUnavailable:
    if spec.kind != "hub" or isinstance(error, ImportError):
        return convert.unreadable(Path(place), error)
    said = " ".join(str(error).split())[:300]
    return ModelUnavailable(
        f"can't get {spec.name} from the hub: no network, no such model, or one that needs "
        f"a login; pass a folder or a GGUF file instead ({type(error).__name__}: {said})"
    )


def ready(model: Any, tokenizer: Any, name: str, defaults: Sampling | None = None) -> Loaded:
    """What must be known of a loaded model. Raises ModelUnavailable where it can't chat here."""
    _check(model, tokenizer, name)
    config, generation = model.config.get_text_config(), model.generation_config
    marks = (generation.eos_token_id, config.eos_token_id, tokenizer.eos_token_id)
    lists = (mark if isinstance(mark, list) else [mark] for mark in marks)
    ends = frozenset(mark for marks in lists for mark in marks if mark is not None)
    context = getattr(config, "max_position_embeddings", None) or 2048
    return Loaded(model, tokenizer, context, ends, defaults or _defaults(generation))


def _check(model: Any, tokenizer: Any, name: str) -> None:
    if not tokenizer.chat_template:
        said = f"{name} has no chat template: it is a base model; use its instruct version"
        raise ModelUnavailable(said)
    kinds = set(getattr(model.config.get_text_config(), "layer_types", None) or ())
    if getattr(model, "_is_stateful", False) or not kinds <= _PLAIN_ATTENTION:
        said = f"{name} has layers without a key-value cache, which can't be batched here"
        raise ModelUnavailable(f"{said}; serve it by another program and pass its URL")


def _defaults(generation: Any) -> Sampling:
    """How the model's own files say that it should be decoded."""
    sampled = bool(generation.do_sample)
    return Sampling(
        temperature=_or(generation.temperature, 1.0) if sampled else 0.0,
        top_p=_or(generation.top_p, 1.0),
        top_k=_or(generation.top_k, 0) if sampled else 0,
        repetition_penalty=_or(generation.repetition_penalty, 1.0),
        max_tokens=generation.max_new_tokens,
    )


def _or(value: Any, default: Any) -> Any:
    return default if value is None else value


def _device() -> torch.device:
    import torch

    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def _dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the machine computes in it, else float32."""
    import torch

    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    if device.type == "mps":
        return torch.bfloat16
    return torch.bfloat16 if has_fast_bfloat16() else torch.float32


def has_fast_bfloat16() -> bool:
    """Whether this CPU computes in bfloat16; elsewhere it is emulated, and slower than float32."""
    import torch

    names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name, lambda: False)() for name in names)
