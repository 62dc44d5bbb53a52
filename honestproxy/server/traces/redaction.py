"""What must not be seen, blotted out of texts: keys, tokens, and patterns of one's own.

Each pattern of ours is looked for only where a text holds a word that it can't do without, and
takes time in proportion to the text. One of your own can be slower than that: one that backtracks
badly, such as `(a+)+$`, holds the whole proxy up.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, Final

from honestproxy.errors import SettingsError

MARK: Final = "[redacted]"

LONGEST: Final = 100_000
"""Characters of one text that are looked at; what is behind them isn't shown either."""

_LINE: Final = 1000
"""Characters of a name or a reason."""


def _prefixed(*kinds: str) -> tuple[str, ...]:
    return tuple(kind + mark for kind in kinds for mark in "-_")


_SECRETS: Final = tuple(
    (hints, re.compile(pattern))
    for hints, pattern in (
        (_prefixed("sk", "pk", "rk", "hp"), r"\b(?:sk|pk|rk|hp)[-_][A-Za-z0-9_-]{16,}+"),
        (("earer", "EARER"), r"(?i:\bbearer)\s++[A-Za-z0-9._~+/=-]{8,}+"),
        (("asic", "ASIC"), r"(?i:\bbasic)\s++[A-Za-z0-9+/]{16,}+={0,2}"),
        (("AKIA", "ASIA"), r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"),
        (
            ("ecret", "ECRET"),
            r"(?i:\b(?:aws_?)?secret_?(?:access_?)?key)[\"']?\s{0,9}[=:]\s{0,9}[\"']?"
            r"[A-Za-z0-9+/=_-]{16,}+[\"']?",
        ),
        (("gh",), r"\bgh[pousr]_[A-Za-z0-9]{30,}+"),
        (("github_pat_",), r"\bgithub_pat_[A-Za-z0-9_]{22,}+"),
        (("glpat-",), r"\bglpat-[A-Za-z0-9_-]{16,}+"),
        (("xox",), r"\bxox[a-z]-[A-Za-z0-9-]{10,}+"),
        (("AIza",), r"\bAIza[A-Za-z0-9_-]{30,}+"),
        (("hf_",), r"\bhf_[A-Za-z0-9]{20,}+"),
        (("eyJ",), r"\beyJ[A-Za-z0-9_-]{8,}+\.[A-Za-z0-9_-]{8,}+\.[A-Za-z0-9_-]*+"),
        (
            ("PRIVATE KEY",),
            r"-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----(?:"
            r"(?:(?!-----BEGIN )[\s\S]){0,30000}?-----END [A-Z ]{0,30}PRIVATE KEY-----"
            # Without an end it was cut off; where nothing of a key follows, it is only spoken of.
            r"|(?=[\s\S]{0,200}?[A-Za-z0-9+/]{24})(?:(?!-----BEGIN )[\s\S]){0,30000}+)",
        ),
        (("://",), r"(?<=://)[^\s/:@]{0,100}:[^\s/@]{1,100}(?=@)"),
    )
)
"""What keys look like, each with words of which a text must hold one."""


class Redaction:
    """Blots secrets out of texts. Raises SettingsError for a pattern that is none."""

    def __init__(self, patterns: Iterable[str] = ()) -> None:
        self.patterns = tuple(patterns)
        self._own = [_compiled(pattern) for pattern in self.patterns]
        self._lines = lru_cache(maxsize=1000)(self._line)  # names come again and again

    def text(self, text: str) -> str:
        """The text, with a mark in the place of each secret, and no longer than may be."""
        more, text = len(text) - LONGEST, text[:LONGEST]
        for hints, secret in _SECRETS:
            if any(hint in text for hint in hints):
                text = secret.sub(MARK, text)
        for pattern in self._own:
            text = pattern.sub(MARK, text)
        return f"{text} … [{more} more characters]" if more > 0 else text

    def line(self, text: str) -> str:
        """A name or a reason as any database takes it: no secrets, NULs or lone surrogates."""
        return self._lines(text[:_LINE])

    def _line(self, text: str) -> str:
        text = self.text(text)
        if text.isascii() and text.isprintable():
            return text
        return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()

    def value(self, value: Any) -> Any:
        """JSON with every text in it redacted."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {self.text(name): self.value(item) for name, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.value(item) for item in value]
        return value


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        found = re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        what = f"redact: {pattern!r} is no pattern of Python's re: {error}"
        raise SettingsError(what, param="redact") from None
    if found.match(""):
        what = f"redact: {pattern!r} fits everywhere, even where nothing is"
        raise SettingsError(what, param="redact")
    return found
