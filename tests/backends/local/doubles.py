"""Small models: one that repeats what it is told, and a random Llama for the numbers."""

import threading
import time
from types import SimpleNamespace

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

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


def llama(seed=0, **config):
    """Two layers with random weights; every run makes the same."""
    torch.manual_seed(seed)
    shape = {
        "vocab_size": 261,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "bos_token_id": None,
        "eos_token_id": 0,
        "initializer_range": 0.5,
    }
    return LlamaForCausalLM(LlamaConfig(**{**shape, **config})).eval()


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
        follows = (text + [0])[len(said)] if len(said) <= len(text) else 0
        return torch.nn.functional.one_hot(torch.tensor(follows), 261).float() * 50
