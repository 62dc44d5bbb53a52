"""Doubt is read inside any causal language model: tiny ones of many architectures."""

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from honestproxy.backends.local import Local, exemplars, features
from honestproxy.backends.local.features import Layers
from tests.backends.local.test_reader import few  # noqa: F401

SIZES = {"vocab_size": 261, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4}
ROPED = {**SIZES, "intermediate_size": 64, "max_position_embeddings": 512}
SHAPES = {
    "gpt2": {"vocab_size": 261, "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 512},
    "gpt_neox": ROPED,
    "opt": {**SIZES, "ffn_dim": 64, "word_embed_proj_dim": 16, "max_position_embeddings": 512},
    "bloom": {"vocab_size": 261, "hidden_size": 32, "n_layer": 3, "n_head": 4},
    "falcon": {**SIZES, "alibi": False},
    "phi": ROPED,
    "qwen2": {**ROPED, "num_key_value_heads": 2},
    "qwen3": {**ROPED, "num_key_value_heads": 2, "head_dim": 8},
    "gemma2": {**ROPED, "num_key_value_heads": 2, "head_dim": 8, "sliding_window": 16},
    "olmo2": ROPED,
    "qwen2_moe": {
        **ROPED,
        "num_key_value_heads": 2,
        "moe_intermediate_size": 16,
        "shared_expert_intermediate_size": 16,
        "num_experts": 4,
    },
}
MARKS = {"bos_token_id": None, "eos_token_id": 0, "pad_token_id": 0}


@pytest.fixture(params=SHAPES)
def model(request):
    torch.manual_seed(0)
    config = AutoConfig.for_model(request.param, **SHAPES[request.param], **MARKS)
    made = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for weights in made.parameters():
            if weights.dim() > 1:
                weights.mul_(10)  # as told apart as a trained model's
    return made


def test_states_are_those_that_the_model_itself_gives(model):
    prompts = [[5, 6, 7, 8, 9, 10], [5, 6, 7, 11], [5, 6, 7, 12, 13]]
    layers = Layers.of(model)
    assert layers.numbers == (1, 2)  # of three: after the last one comes a norm
    with torch.inference_mode():
        shared = features.prefix(model, [5, 6, 7], layers)
        found = features.vectors(model, prompts, shared, layers)
        for row, ids in enumerate(prompts):
            own = model(input_ids=torch.tensor([ids]), output_hidden_states=True).hidden_states
            for at, number in enumerate(layers.numbers):
                states = own[number][0]
                expected = torch.cat([states[-1], states[3:].mean(0)])
                np.testing.assert_allclose(found[row, at], expected, atol=1e-3, rtol=1e-3)


async def test_it_learns_and_reads(model, words, ask, few, monkeypatch, tmp_path):  # noqa: F811
    monkeypatch.setattr(exemplars, "load", lambda: few)
    local = Local.of(model, words, "tiny")
    local._cache = tmp_path
    sense = await local.sense()
    ready = await sense.ready(lambda line: None)
    assert ready.reader.figures["auroc"] > 0.8
    scores, nearest = await sense.explain(ask("zz? 3"), 3)
    assert scores.kinds == pytest.approx((await local.read(ask("zz? 3"))).kinds, abs=1e-4)
    assert nearest[0][0].text == "zz? 3"
    assert nearest[0][1] == pytest.approx(1, abs=0.02)
    await local.aclose()
    assert len(list(tmp_path.glob("readers/*.npz"))) == 1
