"""Whether an exemplar of `introspect` is a row of a public data set, or says one in other words.

    python benchmarks/leakage.py --data PATH [--json] [--all]
        [--letters 0.55] [--words 0.45] [--meaning 0.64]
    python benchmarks/leakage.py --calibrate

Every string of 15 to 2,000 characters in a .json, .jsonl, .csv or .tsv file below PATH is compared
with every exemplar, by two measures: n-grams (cosine of TF-IDF over 3 to 5 letters, and Dice's
overlap of words and pairs of words) and meaning (what the embedded model holds after reading the
text, see `states`; the common component is taken out, the rest whitened on our exemplars). A pair
is told of where letters and words both reach their thresholds, or meaning does; the exit status
is then 1, else 0.

To read 30,000 rows takes the model half an hour or more on two cores. It reads 3,000, those that a
weighted mean of its word vectors puts nearest to an exemplar, unless `--all` is given.

The thresholds were chosen on half of the pairs in `leakage_pairs.jsonl`, which we wrote for this:
60 questions, each with five others. `--calibrate` gives the shares that are told of, on that half
and on the other, of 30 questions each. The other half was in sight while the measures themselves
were made, so its figures, too, flatter a little:

    the same, lightly edited            100 %   100 %
    reworded, most nouns kept           100 %    97 %
    reworded, hardly a word kept         37 %    30 %
    another question on its topic         0 %     7 %
    its form, on another subject          3 %     3 %

So a paraphrase that shares hardly a word passes two times of three; one without a name or a rare
word comes nearer to the threshold than most of these. What is told of must be read by somebody: a
false alarm costs less than a leak. Of the reworded ones, planted among 31,000 rows, the model got
to read all that kept their nouns, and 67 % of those that hardly kept a word. A translation into
another language is not looked for.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import json
import re
import sys
import textwrap
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer

from honestproxy.backends.local import Local
from honestproxy.backends.local.exemplars import folder, load
from honestproxy.settings import Settings

Array = np.ndarray[Any, Any]
Told = Callable[[str], None]

_SOME: Final = 0.1
"""Likeness of letters below which meaning isn't believed."""
PAIRS: Final = Path(__file__).with_name("leakage_pairs.jsonl")
SHORTEST, LONGEST = 15, 2000
"""Characters of a string that counts as a row; it has three words or more, so isn't but a name."""
READ: Final = 400
"""Characters of a text that the model reads."""
ASKED: Final = ('This question: "{}" asks, in one word: "', '...". To answer it, one must know the')
BATCH: Final = 32
SHRINK: Final = 1.0
"""Of the mean variance, added to each axis before whitening: 400 texts then do as well as 1,500,
and a text on which it was fitted is treated like one that it wasn't."""
NEAREST: Final = 3
MOST: Final = 3000
"""Rows that the model reads: each exemplar's nearest few, and the nearest of all up to so many."""


@dataclass(frozen=True, slots=True)
class Text:
    """A text, and the file and row (from 1) where it was first met."""

    text: str
    file: str
    row: int


@dataclass(frozen=True, slots=True)
class Limits:
    """From which likeness on a pair is told of: letters and words together, or meaning alone."""

    letters: float = 0.55
    words: float = 0.45
    meaning: float = 0.64


@dataclass(frozen=True, slots=True)
class Pair:
    """An exemplar and a row that are too much alike, by n-grams or by meaning."""

    exemplar: Text
    row: Text
    letters: float
    words: float
    meaning: float | None


def exemplars(root: Path | None = None) -> list[Text]:
    """What users say in our exemplars."""
    places = [
        (file.name, number)
        for file in sorted((root or folder()).glob("*.jsonl"))
        for number, line in enumerate(file.read_text("utf-8").splitlines(), 1)
        if line
    ]
    return [
        Text(said, *place)
        for place, exemplar in zip(places, load(root), strict=True)
        for message in exemplar.messages
        if message["role"] == "user"
        for said in _strings(message["content"])
    ]


def files(data: Path) -> list[Path]:
    """The data files below a folder."""
    kinds = {".json", ".jsonl", ".csv", ".tsv"}
    return sorted(path for path in data.rglob("*") if path.suffix.lower() in kinds)


def rows(file: Path, name: str) -> Iterator[Text]:
    """Every string of a data file that may be a question, with its line or its place in a list."""
    text = file.read_text("utf-8-sig")
    for number, record in _records(text, file.suffix.lower()):
        for value in _strings(record):
            if _may_ask(value):
                yield Text(value, name, number)


def _may_ask(text: str) -> bool:
    named = text.startswith(("http:", "https:")) or len(plain(text).split()) < 3
    return SHORTEST <= len(text) <= LONGEST and not named


def _records(text: str, suffix: str) -> Iterator[tuple[int, Any]]:
    """Records, numbered from 1: lines, table rows, or items of the outermost lists of a JSON file.

    A table's first row, mostly its header, is number 1.
    """
    if suffix == ".jsonl":
        lines = enumerate(text.split("\n"), 1)
        yield from ((number, json.loads(line)) for number, line in lines if line.strip())
    elif suffix == ".json":
        whole = json.loads(text)
        for part in whole.values() if isinstance(whole, dict) else [whole]:
            yield from enumerate(part if isinstance(part, list) else [part], 1)
    else:
        table = text.splitlines(keepends=True)
        yield from enumerate(csv.reader(table, delimiter="\t" if suffix == ".tsv" else ","), 1)


def _strings(value: Any) -> Iterator[str]:
    """All strings inside a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, (list, dict)):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _strings(part)


def plain(text: str) -> str:
    """Words in small letters, without punctuation."""
    return " ".join(re.findall(r"\w+", text.lower()))


def letters(ours: Sequence[str], theirs: Sequence[str]) -> Array:
    """Cosines of TF-IDF over 3 to 5 letters within words: (ours, theirs)."""
    texts = [plain(text) for text in (*ours, *theirs)]
    grams = TfidfVectorizer(
        analyzer="char_wb", ngram_range=(3, 5), sublinear_tf=True, dtype=np.float32
    )
    table = grams.fit_transform(texts)
    left, right = table[: len(ours)], table[len(ours) :].T.tocsr()
    blocks = [(left[at : at + 256] @ right).toarray() for at in range(0, len(ours), 256)]
    return np.concatenate(blocks)


def words(one: str, other: str) -> float:
    """Dice's overlap of two texts' words and pairs of words."""
    ours, theirs = _grams(one), _grams(other)
    return 2 * len(ours & theirs) / max(1, len(ours) + len(theirs))


def _grams(text: str) -> set[tuple[str, ...]]:
    single = plain(text).split()
    return {(word,) for word in single} | set(pairwise(single))


def unit(vectors: Array) -> Array:
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, 1e-9), np.float32)


@dataclass(frozen=True)
class Whitening:
    """Takes the common component out of vectors, and gives each direction a like share."""

    mean: Array
    axes: Array

    @classmethod
    def of(cls, vectors: Array, power: float = 1.0) -> Whitening:
        mean = vectors.mean(0)
        spread, axes = np.linalg.eigh(np.cov((vectors - mean).T))
        spread = np.maximum(spread, 0) / spread.mean()
        return cls(mean, axes / (spread + SHRINK) ** (power / 2))

    def __call__(self, vectors: Array) -> Array:
        """Unit vectors: their products are cosines."""
        return unit((vectors - self.mean) @ self.axes)


@dataclass(frozen=True)
class Meaning:
    """Vectors of meaning, made of states (texts, questions, width); fitted on our exemplars'."""

    parts: tuple[Whitening, ...]

    @classmethod
    def of(cls, states: Array) -> Meaning:
        return cls(tuple(Whitening.of(states[:, at]) for at in range(states.shape[1])))

    def __call__(self, states: Array) -> Array:
        return unit(np.hstack([part(states[:, at]) for at, part in enumerate(self.parts)]))


def states(model: Any, tokenizer: Any, texts: Sequence[str], told: Told = print) -> Array:
    """What the model holds where it is about to say what a text asks: (texts, questions, width).

    A mean over a text's tokens holds the form of a sentence more than its sense: whatever the
    layer, our pairs of like form came out above those of like sense. The last layer's state at
    the end of a question about the text tells them apart; two such questions do so best.
    """
    first = [tokenizer(ASKED[0].format(text[:READ]))["input_ids"] for text in texts]
    second = tokenizer(ASKED[1])["input_ids"]
    order = sorted(range(len(texts)), key=lambda at: len(first[at]))
    found = np.zeros((len(texts), 2, model.config.hidden_size), np.float32)
    for begun in range(0, len(order), BATCH):
        batch = order[begun : begun + BATCH]
        found[batch] = _states(model, [first[at] for at in batch], second)
        if begun % (BATCH * 20) == 0:
            told(f"read {begun} of {len(texts)} texts")
    return found


def _states(model: Any, first: Sequence[list[int]], second: list[int]) -> Array:
    import torch

    width = max(map(len, first)) + len(second)
    ids, mask = torch.zeros(2, len(first), width, dtype=torch.long)
    for row, begun in enumerate(first):
        whole = begun + second
        ids[row, : len(whole)], mask[row, : len(whole)] = torch.tensor(whole), 1
    with torch.inference_mode():
        held = model.model(
            input_ids=ids.to(model.device), attention_mask=mask.to(model.device), use_cache=False
        ).last_hidden_state.float()
    at, ends = torch.arange(len(first)), torch.tensor([len(begun) for begun in first])
    return torch.stack([held[at, ends - 1], held[at, ends + len(second) - 1]], 1).cpu().numpy()


def word_vectors(model: Any, tokenizer: Any, texts: Sequence[str]) -> Array:
    """Means of the model's input vectors, rare tokens weighing more: cheap, and coarse."""
    table = model.get_input_embeddings().weight.detach().float().cpu().numpy()
    tokens = tokenizer([f" {plain(text)}" for text in texts])["input_ids"]
    seen = np.bincount(np.concatenate([list(set(ids)) for ids in tokens]), minlength=len(table))
    weights = np.log(len(texts) / (1 + seen)).clip(1e-6)
    return np.stack([np.average(table[ids], 0, weights[ids]) for ids in tokens])


def candidates(nearness: Array, most: int = MOST) -> list[int]:
    """Rows (columns) that are among an exemplar's nearest few, or nearest to any exemplar."""
    count = min(NEAREST, nearness.shape[1])
    near = {int(at) for at in np.argpartition(-nearness, count - 1, 1)[:, :count].ravel()}
    best = nearness.max(0)
    ranked = sorted(range(len(best)), key=lambda at: (at not in near, -best[at]))
    return sorted(ranked[:most])


def meanings(
    model: Any, tokenizer: Any, ours: Sequence[str], theirs: Sequence[str], most: int, told: Told
) -> tuple[Array, list[int]]:
    """Cosines of meaning, (ours, rows read), and which rows were read."""
    read = list(range(len(theirs)))
    if len(read) > most:
        cheap = word_vectors(model, tokenizer, [*ours, *theirs])
        vectors = Whitening.of(cheap[: len(ours)], 0.5)(cheap)
        read = candidates(vectors[: len(ours)] @ vectors[len(ours) :].T, most)
        told(f"the model reads {len(read)} of {len(theirs)} rows")
    held = states(model, tokenizer, [*ours, *(theirs[at] for at in read)], told)
    vectors = Meaning.of(held[: len(ours)])(held)
    return vectors[: len(ours)] @ vectors[len(ours) :].T, read


def alike(
    ours: Sequence[Text],
    theirs: Sequence[Text],
    by_letters: Array,
    by_meaning: Array,
    read: Sequence[int],
    limits: Limits,
) -> list[Pair]:
    """The pairs above the thresholds, most alike first. `read`: the rows that have a meaning."""
    column = {row: at for at, row in enumerate(read)}
    chosen = {(int(one), int(row)) for one, row in np.argwhere(by_letters >= limits.letters)}
    chosen |= {(int(one), read[int(at)]) for one, at in np.argwhere(by_meaning >= limits.meaning)}
    pairs = [
        Pair(
            ours[one],
            theirs[row],
            float(by_letters[one, row]),
            words(ours[one].text, theirs[row].text),
            float(by_meaning[one, column[row]]) if row in column else None,
        )
        for one, row in sorted(chosen)
    ]
    found = [pair for pair in pairs if above(pair, limits)]
    return sorted(found, key=lambda pair: -max(pair.words, pair.meaning or 0))


def above(pair: Pair, limits: Limits) -> bool:
    """Whether letters and words are alike, or the meaning is.

    Two texts without a run of letters in common are of two alphabets, most likely: of those
    that the model can't read, it only says that they look foreign.
    """
    grams = pair.letters >= limits.letters and pair.words >= limits.words
    meant = pair.meaning is not None and pair.meaning >= limits.meaning
    return grams or (meant and pair.letters >= _SOME)


async def compare(
    backend: Local,
    ours: Sequence[Text],
    theirs: Sequence[Text],
    limits: Limits,
    most: int = MOST,
    told: Told = print,
) -> list[Pair]:
    """All pairs of an exemplar and a row that are too much alike."""
    if not theirs:
        return []
    left, right = [text.text for text in ours], [text.text for text in theirs]
    told("comparing letters")
    by_letters = letters(left, right)
    by_meaning, read = await backend.inside(
        lambda model, tokenizer: meanings(model, tokenizer, left, right, most, told)
    )
    return alike(ours, theirs, by_letters, by_meaning, read, limits)


async def calibrate(backend: Local, limits: Limits, told: Told) -> list[dict[str, Any]]:
    """Of our own pairs of each kind, the shares above the thresholds, in either half of them.

    Each line of `PAIRS` has a text; the same a little edited, reworded, and in words far from it;
    another question on its topic, and one of its form on another subject.
    """
    lines = [json.loads(line) for line in PAIRS.read_text("utf-8").splitlines()]
    background = [text.text for text in exemplars()]
    texts = [line["text"] for line in lines]
    every = background + [line[kind] for kind in lines[0] for line in lines]
    held = await backend.inside(lambda model, tokenizer: states(model, tokenizer, every, told))
    # In a real run, too, it is fitted on one text of each pair, the exemplar.
    vectors = Meaning.of(held[: len(background) + len(texts)])(held)[len(background) :]
    kinds = vectors.reshape(len(lines[0]), len(lines), -1)
    grams = letters(background + texts, every[len(background) :])[len(background) :]
    found = []
    for at, kind in enumerate(lines[0]):
        pairs = [
            Pair(
                Text(line["text"], PAIRS.name, row + 1),
                Text(line[kind], PAIRS.name, row + 1),
                float(grams[row, at * len(lines) + row]),
                words(line["text"], line[kind]),
                float(kinds[0, row] @ kinds[at, row]),
            )
            for row, line in enumerate(lines)
        ]
        found.append({"kind": kind, **_shares(pairs, limits)})
    return found[1:]


def _shares(pairs: Sequence[Pair], limits: Limits) -> dict[str, float]:
    halves = {"chosen_on": pairs[::2], "others": pairs[1::2]}
    return {
        name: sum(above(pair, limits) for pair in half) / len(half) for name, half in halves.items()
    }


def gathered(data: Path) -> tuple[list[Text], dict[str, int]]:
    """Every different string of the data, where it is met first; and how many a file holds."""
    found: dict[str, Text] = {}
    counts = {}
    for file in files(data):
        name = str(file.relative_to(data))
        held = list(rows(file, name))
        counts[name] = len(held)
        for text in held:
            found.setdefault(text.text, text)
    return list(found.values()), counts


def show(pairs: Sequence[Pair], counts: Mapping[str, int]) -> None:
    """Say what was found, a data file after another."""
    by_file = defaultdict(list)
    for pair in pairs:
        by_file[pair.row.file].append(pair)
    for name, count in counts.items():
        print(f"{name}: {count} rows compared, {len(by_file[name])} pairs too much alike")
        for pair in by_file[name]:
            meaning = "unread" if pair.meaning is None else f"{pair.meaning:.2f}"
            print(f"    {pair.exemplar.file}:{pair.exemplar.row}  {short(pair.exemplar.text)}")
            print(f"        row {pair.row.row}  {short(pair.row.text)}")
            print(f"        letters {pair.letters:.2f}, words {pair.words:.2f}, meaning {meaning}")
    ours = {(pair.exemplar.file, pair.exemplar.row) for pair in pairs}
    said = f"{len(pairs)} pairs, of {len(ours)} exemplars, are too much alike"
    print(said if pairs else "no exemplar is too near a row")


def short(text: str) -> str:
    return textwrap.shorten(text, 100, placeholder=" …")


def _progress(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


async def run(asked: argparse.Namespace) -> int:
    """What the command line asks for; its exit status."""
    limits = Limits(asked.letters, asked.words, asked.meaning)
    backend = Local("smollm2-135m-instruct", Settings())
    await backend.load(_progress)
    try:
        if asked.calibrate:
            for line in await calibrate(backend, limits, _progress):
                print(json.dumps(line))
            return 0
        theirs, counts = gathered(asked.data)
        most = len(theirs) if asked.all else MOST
        pairs = await compare(backend, exemplars(), theirs, limits, most, _progress)
    finally:
        await backend.aclose()
    if asked.json:
        print(json.dumps({"rows": counts, "pairs": [asdict(pair) for pair in pairs]}))
    else:
        show(pairs, counts)
    return int(bool(pairs))


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--data", type=Path)
    what.add_argument("--calibrate", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--all", action="store_true")
    for name, limit in asdict(Limits()).items():
        parser.add_argument(f"--{name}", type=float, default=limit)
    asked = parser.parse_args()
    if asked.data and not files(asked.data):
        parser.error(f"no .json, .jsonl, .csv or .tsv file below {asked.data}")
    return asyncio.run(run(asked))


if __name__ == "__main__":
    sys.exit(main())
