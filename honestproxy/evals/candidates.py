"""Text that is to be judged, made harmless: whoever wrote it may want to talk to the judge."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

from honestproxy.templates import block

CUT: Final = "[…]"
"""What stands where a long text was cut; the judges' prompts say so."""

_ENDS: Final = re.compile("\r\n?|[\x0b\x0c\x85\u2028\u2029]")
_HIDDEN: Final = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0000-\U000e0fff]"
)
"""What shows nothing and is neither a control nor a format character: fillers, selectors, tags."""

_ROLES: Final = "system|developer|assistant|user|human|tool|judge|grader|evaluator"
_TAGS: Final = f"question|answer|accepted|first|second|think(?:ing)?|instructions?|{_ROLES}"
_TAG: Final = re.compile(rf"[<＜]\s*[/／]?\s*(?:{_TAGS})\b[^<>＜＞\n]{{0,60}}[>＞]", re.IGNORECASE)
_TOKEN: Final = re.compile(
    r"<[|｜][^<>\n]{1,60}[|｜]>|\[/?(?:INST|SYS\w*|AVAILABLE_TOOLS)\]|<</?SYS>>|</?s>"
    r"|<(?:start|end)_of_turn>|<(?:bos|eos|pad|unk)>",
    re.IGNORECASE,
)
"""What chat templates write around messages."""
_SPEAKER: Final = re.compile(
    rf"^([ \t>*#_`\[(]*)((?:{_ROLES}|instructions?|verdict|score)(?:[ \t]+\w+)?[\])*_` \t]*[:：])",
    re.IGNORECASE | re.MULTILINE,
)
_HARMLESS: Final = str.maketrans("<＜>＞[]|｜", "‹‹››⟦⟧¦¦")


def cleaned(text: str, limit: int) -> str:
    """The text without what is invisible or plays at being the frame that it stands in.

    Controls, zero-width and other hidden characters are gone; tags like ours, tokens of chat
    templates and words that open another speaker's turn are written in other brackets or in
    quotes. What is longer than `limit` characters loses its middle.
    """
    seen = "".join(filter(_is_seen, _HIDDEN.sub("", _ENDS.sub("\n", text))))
    seen = _TAG.sub(_rebracketed, _TOKEN.sub(_rebracketed, seen))
    return _cut(_SPEAKER.sub(r"\1“\2”", seen).strip(), limit)


def framed(name: str, text: str, limit: int) -> str:
    """The cleaned text between tags, as it stands in a judge's prompt."""
    return block(name, cleaned(text, limit))


def _is_seen(character: str) -> bool:
    """Whether it is neither a control, a format character nor half of a surrogate pair."""
    return character in "\n\t" or unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Co")


def _rebracketed(found: re.Match[str]) -> str:
    return found[0].translate(_HARMLESS)


def _cut(text: str, limit: int) -> str:
    """The beginning, and half as much of the end."""
    if len(text) <= limit:
        return text
    kept = limit - len(CUT) - 2
    end = kept // 3
    return f"{text[: kept - end]}\n{CUT}\n{text[-end:]}"
