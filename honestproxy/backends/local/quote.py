"""Words that an answer quotes from its question, chosen by the model, a token at a time.

A model too small to write a sentence about what it can't do still copies well: at a gap in
a given sentence, it chooses among the spans of the question, and says itself where to stop.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Union, cast

if TYPE_CHECKING:
    from torch import Tensor

LONGEST: Final = 10
"""Words of a span."""
_SHORT: Final = 1.0
"""What an end is worth less than going on: a model rather stops too soon than too late."""
_WORDS: Final = 160
"""Words of a question that are looked at: half of them at its beginning, half at its end."""
_LETTERS: Final = 80
_ANCHOR: Final = "a"
_THIS: Final = " this"
"""What stands in a gap where nothing can be quoted."""
_EDGES: Final = " \t\n\"'“”‘’«»?!.,;:()[]{}<>|`*_#¿¡。、，；：？！（）؟،"
_PAUSE: Final = re.compile(r"[?!.,;:)\]}\"”»。、，；：？！）؟،]$")
_MARKUP: Final = re.compile(r"</?[A-Za-z][^<>]*>|`+|\*\*+")
_WORD: Final = re.compile(r'"[^"\n]{1,60}"|“[^”\n]{1,60}”|«[^»\n]{1,60}»|\([^()\n]{1,60}\)|\S+')
"""Something in quotation marks or parentheses is taken whole."""
_WHOLE: Final = re.compile(r'".+"|“.+”|«.+»|\(.+\)')
_UNSPACED: Final = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\ua4cf\uf900-\ufaff]")
"""Letters of scripts that don't part their words: Thai, Lao, Burmese, Khmer, Han, Kana."""
# In the answer's mouth these would mean somebody else.
_SPEAKERS: Final = """
    i me my mine myself we us our ours you your yours yourself i'm i've i'd i'll you're let's
    ich mich mir mein meine wir uns du dich dir dein deine je me moi mon ma mes nous tu te toi
    ton ta tes vous votre yo mi mis tú tus usted io mio mia tuo tua
"""
# A span neither begins nor ends with one of these.
_SMALL: Final = """
    the this that these those here there it its he him his she her they them their what which
    who whom whose when where why how is are was were am be been being do does did can could
    will would shall should may might must has have had and or but if so not no yes please
    tell give show explain describe write make find get go want need know think about right
    now today currently latest current recent newest than to of for in on at by with from as into
    just only up down out off over per via near around without while whether because since until
    ever never always often still also even like it's it'll he's she's they're there's that's
    isn't aren't wasn't weren't don't doesn't didn't can't couldn't won't wouldn't shouldn't
    yesterday tomorrow tonight rn ok okay hi hello hey thanks certain
    any some all more most very really much many whats what's how's who's where's
    der die das den dem ein eine ist sind war und oder was wer wie wo wann warum von zu im
    le la les un une des du de est sont et ou que qui quoi quel quelle où quand pourquoi
    el los las una es son y o qué quién cómo dónde cuándo por en il lo gli che chi come dove
"""
# What follows one of these is done, or said of somebody: no name for a thing.
_SUBJECTS: Final = """
    i you he she it we they who please
    ich du er wir je tu il elle nous vous yo tú usted io lui lei
"""
_ADVERBS: Final = "ever never always often still also even just really usually sometimes"
# One word by itself that follows one of these would be wanting it.
_ARTICLES: Final = """
    the this that these those a an my your his her its our their
    der die das den dem ein eine mein meine dein deine le la les un une mon ma mes ton ta tes
    el los las una mi mis tus il lo gli mio mia tuo tua
"""
# At the beginning of a sentence these want something done.
_COMMANDS: Final = """
    book build buy calculate call cancel check cite compare compute create delete design discuss
    draw generate help hold list look name open order paint pay play predict print produce prove
    quote read recite remind ring search send sing sketch solve state summarise summarize
    translate turn watch
"""
_NOT_SAID: Final = frozenset(_SPEAKERS.split())
_NOT_EDGES: Final = frozenset(_SMALL.split())
_NOT_ENDS: Final = _NOT_EDGES | {"a", "an"}
_ACTING: Final = frozenset(_SUBJECTS.split())
_PASSED_OVER: Final = frozenset(_ADVERBS.split())
_POINTING: Final = frozenset(_ARTICLES.split())
_ASKING: Final = frozenset(_COMMANDS.split())
_OBJECTS: Final = _POINTING | {"me", "us", "him", "them", "it"}

Trie = dict[int, Union["Trie", None]]
"""Tokens that may come next; None behind the one that ends the quote."""
Part = Trie | tuple[int, ...]
"""A gap, or tokens."""


@dataclass(frozen=True, slots=True)
class Opening:
    """An answer's first words: a text, then `rest`, gaps and tokens in turn."""

    text: str = ""
    rest: tuple[Part, ...] = ()


class Lead:
    """Gives the tokens of an opening's rest, one after the other."""

    def __init__(self, rest: Sequence[Part] = ()) -> None:
        self._fixed: deque[int] = deque()
        self._rest = deque(rest)
        self._gap: Trie | None = None

    def next(self, logits: Tensor) -> int | None:
        """The next token, in a gap the likeliest of those that may stand there; None at the end.

        `logits`: (vocabulary,).
        """
        if self._fixed:
            return self._fixed.popleft()
        if self._gap is None:
            if not self._rest:
                return None
            part = self._rest.popleft()
            if isinstance(part, tuple):
                self._fixed.extend(part)
                return self.next(logits)
            self._gap = part
        gap = self._gap
        token = max(gap, key=lambda one: float(logits[one]) - _SHORT * (gap[one] is None))
        self._gap = gap[token]
        return token


def opening(
    tokenizer: Any, parts: Sequence[str | None], question: str, control: re.Pattern[str] | None
) -> Opening:
    """An opening of texts and, for each None between them, a gap for words of the question.

    What spells one of the model's `control` tokens isn't quoted.
    """
    plain = _MARKUP.sub(" ", control.sub(" ", question) if control else question)
    texts, spans = [""], _spans(plain) if None in parts else []
    for part in parts:
        if part is not None:
            texts[-1] += part
        elif spans:
            texts[-1] = texts[-1].rstrip()
            texts.append("")
        else:
            texts[-1] = (texts[-1].rstrip() + _THIS).lstrip()
    before = " " if texts[0] else ""
    # A gap ends where the text after it begins, so there must be some.
    following = _going_on(tokenizer, [text or "." for text in texts[1:]])
    quotes = _going_on(tokenizer, [before + span for span in spans]) if following else []
    rest: list[Part] = []
    for tokens in following:
        rest += [_trie(quotes, tokens[0]), tuple(tokens[1:])]
    return Opening(texts[0], tuple(rest))


def _spans(question: str) -> list[str]:
    """What of the question may be quoted: a few words in a row, each span once."""
    words = _WORD.findall(question)
    if len(words) > _WORDS:
        half = _WORDS // 2
        words = [*words[:half], "?", *words[-half:]]
    every = (span for start in range(len(words)) for span in _from(words, start))
    return list(dict.fromkeys(every))


def _from(words: Sequence[str], start: int) -> Iterator[str]:
    """The spans that begin with one word."""
    if not _may_begin(words, start):
        return
    wants_article = _is_plain(words[start]) and _before(words, start) in _POINTING
    for end in range(start, min(len(words), start + LONGEST)):
        word = _bare(words[end])
        if not _NOT_SAID.isdisjoint(_said(words[end])):
            return
        span = _trimmed(words[start : end + 1])
        is_an_end = word and word not in _NOT_ENDS and not (end == start and wants_article)
        if is_an_end and 1 < len(span) <= _LETTERS:
            yield span
        if _PAUSE.search(words[end]) and not _WHOLE.fullmatch(words[end]):
            return


def _said(word: str) -> list[str]:
    """The words in it that an answer would say as its own; none of what is in quotation marks."""
    return [] if _WHOLE.fullmatch(word) and word[0] != "(" else list(map(_bare, word.split()))


def _may_begin(words: Sequence[str], start: int) -> bool:
    """Whether a thing's name may begin with this word, as far as its neighbours tell."""
    word = _bare(words[start])
    if not word or word in _NOT_EDGES or words[start][0] == "(" or _UNSPACED.search(words[start]):
        return False
    before = _before(words, start)
    if before is None:
        following = _bare(words[start + 1]) if start + 1 < len(words) else ""
        return word not in _ASKING and following not in _OBJECTS
    return before not in _ACTING or not _is_plain(words[start])


def _before(words: Sequence[str], at: int) -> str | None:
    """The word before, but for adverbs; None where a sentence begins."""
    for word in reversed(words[:at]):
        if _PAUSE.search(word) and not _WHOLE.fullmatch(word):
            return None
        if (bare := _bare(word)) not in _PASSED_OVER:
            return bare
    return None


def _is_plain(word: str) -> bool:
    """Whether it is neither a name nor a number nor quoted."""
    return not _WHOLE.fullmatch(word) and word.strip(_EDGES)[:1].islower()


def _trimmed(words: Sequence[str]) -> str:
    """Words without what stands around them; what is taken whole keeps it."""
    text = " ".join(words)
    text = text if _WHOLE.fullmatch(words[0]) else text.lstrip(_EDGES)
    return text if _WHOLE.fullmatch(words[-1]) else text.rstrip(_EDGES)


def _bare(word: str) -> str:
    return word.strip(_EDGES).lower().replace("\u2019", "'")


def _trie(spans: Sequence[Sequence[int]], end: int) -> Trie:
    root: Trie = {}
    ends = [_grown(root, span) for span in spans]
    for node in ends:  # last, so that no span's own token takes an end's place
        node[end] = None
    return root


def _grown(node: Trie, span: Sequence[int]) -> Trie:
    for token in span:
        node = cast("Trie", node.setdefault(token, {}))
    return node


def _going_on(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """The tokens of texts as they go on from another one."""
    if not texts:
        return []
    anchored = [_ANCHOR, *(_ANCHOR + text for text in texts), *texts]
    ids: list[list[int]] = tokenizer(anchored, add_special_tokens=False, verbose=False)["input_ids"]
    anchor, joined, alone = ids[0], ids[1 : 1 + len(texts)], ids[1 + len(texts) :]
    return list(map(partial(_without, anchor), joined, alone))


def _without(anchor: list[int], joined: list[int], alone: list[int]) -> list[int]:
    """What follows the anchor; where that can't be told, the text by itself."""
    cut = len(anchor)
    return joined[cut:] if joined[:cut] == anchor and len(joined) > cut else alone
