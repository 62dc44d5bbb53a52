import dataclasses
import os

import numpy as np
import pytest
import torch

from honestproxy.backends.local import Local, exemplars, features, reader, sense
from honestproxy.backends.local.exemplars import Exemplar
from honestproxy.backends.local.features import Layers
from honestproxy.errors import InvalidRequest, PromptError
from honestproxy.types import DOUBT_KINDS
from tests.backends.local.doubles import llama, mixed, sliding

HEAPS = {"none": "", "self_identity": "feelings", "latest_information": "news"}


def heap(text, kind, number=12):
    said = [{"role": "user", "content": f"{text} {i}"} for i in range(number)]
    return [Exemplar((message,), kind, f"{HEAPS[kind]}{i % 2}") for i, message in enumerate(said)]


@pytest.fixture
def few():
    return [*heap("aaaa", "none"), *heap("zz?", "self_identity"), *heap("55", "latest_information")]


@pytest.fixture
def fitted(few):
    random = np.random.default_rng(0)
    centres = {kind: 2 * random.normal(size=8) for kind in HEAPS}
    rows = [[centres[e.kind] + random.normal(size=8)] for e in few]
    vectors = np.array(rows, dtype=np.float32)
    return reader.fit(vectors, few, "d1", [7]), vectors, few


def test_it_tells_kinds_apart_and_says_how_sure_it_is(fitted):
    made, vectors, few = fitted
    read = [made.read(vectors[i, 0]) for i in range(len(few))]
    assert all(0 < scores.doubt < 1 for scores in read)
    right = [(s.doubt > s.threshold) == (e.kind != "none") for s, e in zip(read, few, strict=True)]
    assert sum(right) > 0.9 * len(right)
    assert made.figures["auroc"] > 0.9
    assert read[12].form("self_identity") in {"feelings0", "feelings1"}


def test_what_is_kept_reads_the_same(fitted, tmp_path):
    made, vectors, _ = fitted
    reader.save(made, tmp_path / "a" / "r.npz")
    kept = reader.load(tmp_path / "a" / "r.npz", "d1", 8)
    assert kept.prefix == (7,)
    assert kept.read(vectors[0, 0]) == made.read(vectors[0, 0])


def test_the_nearest_exemplars_are_kept_with_the_reader(fitted, tmp_path):
    made, vectors, few = fitted
    reader.save(made, tmp_path / "r.npz")
    kept = reader.load(tmp_path / "r.npz", "d1", 8)
    assert kept.directions.dtype == np.float16
    (first, cosine), *others = kept.nearest(vectors[3, 0], 5)
    assert (first, cosine) == (3, pytest.approx(1, abs=1e-2))
    assert len(others) == 4
    assert sum(few[i].kind == few[3].kind for i, _ in others) >= 3
    assert [c for _, c in others] == sorted((c for _, c in others), reverse=True)
    assert len(kept.nearest(vectors[3, 0], 999)) == len(few)


def test_each_exemplar_is_judged_by_a_regression_that_hadnt_seen_it(fitted):
    made, _, few = fitted
    assert made.held.shape == (len(few), 3)
    np.testing.assert_allclose(made.held.sum(1), 1, atol=1e-5)
    doubtful = np.array([e.kind != "none" for e in few])
    found = made.doubts(made.held) > made.threshold
    assert found[doubtful].mean() == pytest.approx(made.figures["recall"])


@pytest.mark.parametrize(
    ("kinds", "said"),
    [
        ([], "here is nothing"),
        (["none"] * 4, "exemplars of doubt and of kind 'none': here is none"),
        (["self_identity"] * 4, "here is self_identity"),
        (["none"] * 4 + ["user_input"], "at least 2 exemplars of each kind: add some of user_inp"),
    ],
)
def test_too_few_exemplars_are_told_with_a_remedy(kinds, said):
    some = [Exemplar(({"role": "user", "content": "hi"},), kind) for kind in kinds]
    with pytest.raises(PromptError, match=said):
        reader.fit(np.zeros((len(some), 1, 8)), some, "d1")


def test_two_of_each_kind_are_enough():
    some = [*heap("a", "none", 2), *heap("z", "self_identity", 2)]
    made = reader.fit(np.random.default_rng(0).normal(size=(4, 1, 8)), some, "d1")
    assert 0 <= made.read(np.zeros(8)).doubt <= 1


def test_a_kept_reader_that_is_broken_or_anothers_is_refused(fitted, tmp_path):
    made, path = fitted[0], tmp_path / "r.npz"
    assert reader.load(path, "d1", 8) is None
    reader.save(made, path)
    assert reader.load(path, "d2", 8) is None
    assert reader.load(path, "d1", 9) is None
    path.write_bytes(path.read_bytes()[:-200])
    assert reader.load(path, "d1", 8) is None
    reader.save(dataclasses.replace(made, mean=np.full(8, np.nan)), path)
    assert reader.load(path, "d1", 8) is None


def test_a_kept_reader_runs_no_code(tmp_path):
    class Trap:
        def __reduce__(self):
            return (print, ("caught",))

    np.savez(tmp_path / "r.npz", told=np.array([Trap()], dtype=object))
    assert reader.load(tmp_path / "r.npz", "d1", 8) is None


@pytest.mark.parametrize("make", [llama, sliding, mixed])
def test_states_are_the_same_alone_in_a_batch_and_after_a_shared_beginning(make):
    model = make()
    layers = Layers.of(model)
    prompts = [[5, 6, 7, 8, 9, 10], [5, 6, 7, 11], [5, 6, 7, 12, 13]]
    with torch.inference_mode():
        begun = features.prefix(model, features.common(prompts), layers)
        assert begun.ids == (5, 6, 7)
        together = features.vectors(model, prompts, begun, layers)
        alone = [features.vectors(model, [ids], begun, layers)[0] for ids in prompts]
        plain = [features.vectors(model, [ids], None, layers)[0] for ids in prompts]
    width = model.config.hidden_size
    np.testing.assert_allclose(together, alone, atol=1e-4)
    np.testing.assert_allclose(together[:, :, :width], np.stack(plain)[:, :, :width], atol=1e-4)


def test_a_model_without_layers_is_a_clear_error(echo):
    with pytest.raises(InvalidRequest, match=r"no hidden states.*such as 'gated'"):
        Layers.of(echo)


async def test_the_reader_is_fitted_once_and_kept(words, ask, few, tmp_path, monkeypatch):
    monkeypatch.setattr(exemplars, "load", lambda: few)
    told = []
    for _ in range(2):
        local = Local.of(llama(), words, "random")
        local._cache = tmp_path
        await local.load_reader(told.append)
        scores = await local.read(ask("How are you? " * 30))
        assert set(scores.kinds) == {"self_identity", "latest_information"}
        await local.aclose()
    assert sum("auroc" in line for line in told) == 1
    assert len(list(tmp_path.glob("readers/*.npz"))) == 1


async def test_readers_that_were_used_longest_ago_leave_the_cache(
    words, few, tmp_path, monkeypatch
):
    monkeypatch.setattr(exemplars, "load", lambda: few)
    folder = tmp_path / "readers"

    async def start(dtype):
        local = Local.of(llama().to(dtype), words, "random")
        local._cache = tmp_path
        await local.load_reader()
        await local.aclose()

    await start(torch.float32)
    (first,) = [path.name for path in folder.iterdir()]
    for at, name in enumerate([first, *(f"{number}.npz" for number in range(sense.KEPT))]):
        (folder / name).touch()
        os.utime(folder / name, (at, at))
    await start(torch.float32)  # used again, it isn't the oldest any more
    await start(torch.bfloat16)
    left = {path.name for path in folder.iterdir()}
    assert len(left) == sense.KEPT
    assert first in left
    assert not {"0.npz", "1.npz"} & left


async def test_an_opening_is_given_back_and_counted(random_local, ask):
    said = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "Well then,"}]
    asked = ask(messages=said, max_tokens=14, echo=True)
    whole = await random_local.complete(asked)
    assert whole.text.startswith("Well then,")
    assert whole.usage["completion_tokens"] <= 14
    silent = await random_local.complete(asked.replace(("echo",), max_tokens=4))
    assert whole.usage["prompt_tokens"] == silent.usage["prompt_tokens"] - 10
    pieces = [chunk.text async for chunk in random_local.stream(asked) if chunk.text]
    assert pieces[0] == "Well then,"
    assert "".join(pieces) == whole.text


async def test_a_cap_within_the_opening_cuts_it(random_local, ask):
    said = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "Well then,"}]
    cut = await random_local.complete(ask(messages=said, max_tokens=4, echo=True))
    assert (cut.text, cut.finish_reason) == ("Well", "length")
    assert cut.usage["completion_tokens"] == 4


def test_the_shipped_exemplars_are_enough_of_each():
    found = exemplars.load()
    counts = {kind: sum(e.kind == kind for e in found) for kind in (*DOUBT_KINDS, "none")}
    assert all(count >= 40 for count in counts.values()), counts
    assert counts["none"] >= 300
    assert all(e.sub for e in found if e.kind != "none")


@pytest.mark.parametrize(
    ("name", "line"), [("plain", "{}"), ("plain", "no"), ("worries", '{"text": "hi"}')]
)
def test_exemplars_that_cant_be_used_are_named(tmp_path, name, line):
    (tmp_path / f"{name}.jsonl").write_text(line, "utf-8")
    with pytest.raises(PromptError, match=name):
        exemplars.load(tmp_path)


def test_one_kind_alone_is_not_enough(tmp_path):
    (tmp_path / "plain.jsonl").write_text('{"text": "hi"}', "utf-8")
    with pytest.raises(PromptError, match="needs files of doubts"):
        exemplars.load(tmp_path)
