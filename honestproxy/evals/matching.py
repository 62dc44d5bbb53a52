"""Whether a text contains an accepted answer, however it is written.

After SQuAD's normalisation (arXiv 1606.05250), with Unicode and numbers besides. It does not
understand: "not Paris, but Lyon" contains Paris.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from typing import Final

_SMALL: Final = """zero one two three four five six seven eight nine ten eleven twelve thirteen
    fourteen fifteen sixteen seventeen eighteen nineteen"""
_ROUND: Final = "twenty thirty forty fifty sixty seventy eighty ninety"
_VALUES: Final = {
    **{word: number for number, word in enumerate(_SMALL.split())},
    **{word: 10 * number for number, word in enumerate(_ROUND.split(), 2)},
}
_SCALES: Final = {"hundred": 100, "thousand": 1_000, "million": 10**6, "billion": 10**9}
_WORDS: Final = re.compile(
    r"\b(?P<pronoun>(?:no|any|every|some|which|this|that|another) one|one of)\b"
    rf"|\b(?P<tens>{'|'.join(_ROUND.split())})[- ](?P<unit>{'|'.join(_SMALL.split()[1:10])})\b"
    rf"|\b(?P<alone>{'|'.join(_VALUES)})\b"
)
_SCALED: Final = re.compile(rf"\b(a|\d+(?:\.\d+)?) ({'|'.join(_SCALES)})\b")

_SEPARATORS: Final = re.compile("(?<=\\d)[,'’\u00a0\u2009\u202f](?=\\d{3}(?!\\d))")
_ZEROS: Final = re.compile(r"(?<=\d)(?:\.0+|(\.\d*?[1-9])0+)(?!\.?\d)")
_MARKS: Final = re.compile("[\u0300-\u036f\u0591-\u05c7\u064b-\u065f]")
"""Accents, and the vowel points that Hebrew and Arabic may leave out."""
_INITIALS: Final = re.compile(r"\b(?:[^\W\d_]\. ?){2,}|\b(?:[^\W\d_]\.)+[^\W\d_]\b")
_APOSTROPHES: Final = re.compile("['’‘ʼ`]")
_LANGUAGES: Final = re.compile(r"(?<!\w)([a-z])(?:(\+\+)|#)(?![a-z])")
"""Those that are told from others by their marks alone: C++ and C# from C."""
_PUNCTUATION: Final = re.compile(
    r"(?<!\d)\.|\.(?!\d)|(?<=\w)-|-(?!\d)"  # all but decimal points and minus signs
    r"|[^\w\s.\-\u0900-\u0dff\u0e00-\u0eff\u1780-\u17ff]"  # some scripts write vowels as marks
    r"|[_\u0964\u0965]"
)
_CUT: Final = "\u01c3"
_ARTICLES: Final = re.compile(r"\b(?:a|an|the)\b")
_UNSPACED: Final = re.compile("[\u0e00-\u0eff\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]")
"""Thai, Lao, Khmer, kana and Han write no spaces between words."""


def normalise(text: str, *, articles: bool = True) -> str:
    """Lower case, numbers as digits, single spaces; no accents, punctuation or, mostly, articles.

    `articles` says whether to drop them.
    """
    text = _SEPARATORS.sub("", text).replace("\u2212", "-")
    text = unicodedata.normalize("NFKD", text).casefold()
    text = unicodedata.normalize("NFC", _MARKS.sub("", text))
    text = _INITIALS.sub(lambda found: re.sub(r"[. ]", "", found[0]) + " ", text)
    text = _LANGUAGES.sub(lambda found: f"{found[1]}{'plusplus' if found[2] else 'sharp'} ", text)
    text = _APOSTROPHES.sub("", text).replace("%", " percent ").replace("per cent", "percent")
    text = _PUNCTUATION.sub(" ", _ZEROS.sub(r"\1", _in_digits(text)))
    return " ".join((_ARTICLES.sub(" ", text) if articles else text).split())


def contains(text: str, *answers: str) -> bool:
    """Whether the text contains one of the answers, as whole words; never an empty answer.

    An answer that is but an article, as the "A" of a multiple choice, has to be the whole text.
    """
    whole = normalise(text)
    parts = {answer: normalise(answer) for answer in answers}
    return any(_within(p, whole) if p else _is(text, answer) for answer, p in parts.items())


def without(text: str, phrases: Iterable[str]) -> str:
    """The normalised text, with each phrase replaced by a letter that no answer is made of."""
    whole = f" {normalise(text)} "
    for phrase in sorted(map(normalise, phrases), key=len, reverse=True):
        if phrase:
            whole = whole.replace(f" {phrase} ", f" {_CUT} ")
    return whole.strip()


def _is(text: str, answer: str) -> bool:
    bare = normalise(answer, articles=False)
    return bool(bare) and bare == normalise(text, articles=False)


def _within(part: str, whole: str) -> bool:
    return part in whole if _UNSPACED.search(part) else f" {part} " in f" {whole} "


def _in_digits(text: str) -> str:
    text = _WORDS.sub(_digits, text)
    for _ in range(2):  # "two hundred thousand"
        text = _SCALED.sub(_scaled, text)
    return text


def _digits(found: re.Match[str]) -> str:
    if found["pronoun"]:
        return found["pronoun"]
    if found["alone"]:
        return str(_VALUES[found["alone"]])
    return str(_VALUES[found["tens"]] + _VALUES[found["unit"]])


def _scaled(found: re.Match[str]) -> str:
    number, scale = found.groups()
    return f"{(1 if number == 'a' else float(number)) * _SCALES[scale]:.10g}"
