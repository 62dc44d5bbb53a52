"""Prompt files: found, checked, filled in one pass, and told apart by their digests.

A file holds one message. `$name` is a placeholder and `$$` a dollar sign. Values are data:
what looks like a placeholder inside a value stays text.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from string import Template

from honestproxy.errors import PromptError

_HERE = Path(__file__).parent
_GAP = "\0"
JUDGE_FILE = "judge.toml"
"""What makes a folder a judge, with a prompt of its own."""


@dataclass(frozen=True)
class Prompt:
    """One prompt file: its name (`gated/merge`), its text, and where it was found."""

    name: str
    text: str
    path: Path

    @cached_property
    def digest(self) -> str:
        """The first 16 hex digits of the SHA-256 of the file's text."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:16]

    @cached_property
    def placeholders(self) -> frozenset[str]:
        """The names that need a value. Raises PromptError on a stray dollar sign."""
        if not self._template.is_valid():
            raise PromptError(f"{self.path}: a stray '$': write '$$' for a dollar sign")
        return frozenset(self._template.get_identifiers())

    @cached_property
    def _template(self) -> Template:
        return Template(self.text.strip())

    def render(self, **values: str) -> str:
        """The message. Raises PromptError where placeholders and values differ."""
        self.check(frozenset(values))
        return self._template.substitute(values)

    def parts(self) -> list[str | None]:
        """The text around the placeholders, and None for each of them."""
        texts = self.render(**dict.fromkeys(self.placeholders, _GAP)).split(_GAP)
        return [part for text in texts for part in (text, None)][:-1]

    def beginning(self, text: str) -> str:
        """As much of `text` as this prompt made, whatever fills it; all, where it is cut off."""
        made = ("(?s:.*?)" if part is None else re.escape(part) for part in self.parts())
        found = re.match("".join(made), text)
        return found[0] if found else text

    def check(self, expected: frozenset[str]) -> None:
        """Raise PromptError unless the placeholders are exactly those expected."""
        for problem, names in (
            ("is missing", expected - self.placeholders),
            ("has an unknown", self.placeholders - expected),
        ):
            if names:
                listed = ", ".join(f"${name}" for name in sorted(names))
                raise PromptError(f"{self.path}: {problem} placeholder {listed}")


class Prompts:
    """The shipped prompt files, and a user's folder whose files come first."""

    def __init__(self, override: Path | None = None) -> None:
        if override is not None and not override.is_dir():
            raise PromptError(f"prompt folder {override} is not a folder", param="prompts")
        self.override = override
        self._loaded: dict[str, Prompt] = {}

    def __getitem__(self, name: str) -> Prompt:
        """The prompt called `name`, e.g. `curiosity/merge`; read once."""
        if name not in self._loaded:
            self._loaded[name] = self._load(name)
        return self._loaded[name]

    def __iter__(self) -> Iterator[str]:
        """Names of the shipped prompts, sorted."""
        root = shipped()
        files = (path.relative_to(root) for path in root.rglob("*.md"))
        return iter(sorted(p.with_suffix("").as_posix() for p in files if len(p.parts) > 1))

    def strangers(self) -> list[Path]:
        """Files of the user's folder that override nothing: most likely misnamed."""
        if self.override is None:
            return []
        known, root = set(self), self.override
        files = sorted(root.rglob("*.md"))
        names = {path: path.relative_to(root).with_suffix("").as_posix() for path in files}
        known |= {"README"} | {names[p] for p in files if p.with_name(JUDGE_FILE).is_file()}
        return [path for path in files if names[path] not in known]

    def check(self) -> None:
        """Raise PromptError unless every override keeps its original's placeholders."""
        try:
            self._check()
        except PromptError as error:
            raise PromptError(error.message, param="prompts") from None

    def _check(self) -> None:
        for stranger in self.strangers():
            raise PromptError(f"{stranger}: overrides nothing; `honestproxy prompts` lists names")
        for name in self:
            self[name].check(_read(shipped(), name).placeholders)

    def _load(self, name: str) -> Prompt:
        roots = [root for root in (self.override, shipped()) if root is not None]
        for root in roots:
            if (root / f"{name}.md").is_file():
                return _read(root, name)
        raise PromptError(f"no prompt file {name}.md in {' or '.join(map(str, roots))}")


def shipped() -> Path:
    """The folder of the shipped prompts: beside the package in a checkout, inside it in a wheel."""
    inside = _HERE / "prompts"
    return inside if inside.is_dir() else _HERE.parent / "prompts"


def block(name: str, text: str) -> str:
    """`text` between tags that it can't close, whatever it holds."""
    tag, tries = name, 1
    while f"</{tag}>" in text:
        tries += 1
        tag = f"{name}-{tries}"
    return f"<{tag}>\n{text.strip()}\n</{tag}>"


def _read(root: Path, name: str) -> Prompt:
    path = root / f"{name}.md"
    try:
        return Prompt(name, path.read_text("utf-8"), path)
    except (OSError, UnicodeDecodeError) as error:
        raise PromptError(f"{path}: can't be read: {error}") from None
