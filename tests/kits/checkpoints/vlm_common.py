"""What the tiny vision-language models share: tokenizer, chat template, weights that answer.

Each answers Yes or No at once, by the picture: the last token of its chat template makes both
likely, and the random layers decide between them.
"""

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from tests.kits.checkpoints.common import byte_vocabulary

WORDS = ["Yes", "yes", "No", "no"]
# vLLM's attention on a CPU takes heads of 32 and more.
HIDDEN, HEADS, LAYERS = 64, 2, 2
TEXT = {
    "hidden_size": HIDDEN,
    "intermediate_size": 2 * HIDDEN,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": HEADS,
    "max_position_embeddings": 8192,
}


def tokenizer_of(*special: str) -> PreTrainedTokenizerFast:
    """Return a byte-level tokenizer; the first of its special tokens ends and pads."""
    vocabulary = byte_vocabulary(*special, *WORDS, *("\u0120" + word for word in WORDS))
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(special))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=special[0],
        pad_token=special[0],
        model_max_length=8192,
    )


def chat_template(begin: str, head: str, end: str, image: str) -> str:
    """Return a chat template: its begin, a turn's head and end, what stands for a picture."""
    opening, closing = head.split("{role}")
    return (
        f"{begin}{{%- for message in messages -%}}"
        f"{opening}{{{{ message.role }}}}{{{{ {closing!r} }}}}"
        "{%- if message.content is string %}{{ message.content }}{% else -%}"
        "{%- for part in message.content -%}"
        f"{{%- if part.type == 'image' %}}{image}{{% else %}}{{{{ part.text }}}}{{% endif -%}}"
        "{%- endfor -%}{%- endif -%}"
        f"{{{{ {end!r} }}}}{{%- endfor -%}}"
        "{%- if add_generation_prompt -%}"
        f"{opening}assistant{{{{ {closing!r} }}}}{{%- endif -%}}"
    )


def answer_ids(ids: Mapping[str, int]) -> list[int]:
    """Return the ids of the template's last token, a line end, and of the words behind it."""
    return [ids["\u010a"], *(ids[word] for word in WORDS)]


def drawn(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Return random weights of those shapes: scales of norms are 1, and biases 0."""
    weights = {}
    for name, shape in shapes.items():
        if len(shape) > 1:
            weights[name] = torch.randn(shape) / prod(shape[1:]) ** 0.5
        else:
            weights[name] = torch.zeros(shape) if name.endswith("bias") else torch.ones(shape)
    return weights


def enlarge(model: Any, answer: Sequence[int]) -> None:
    """Make the random weights large enough to tell pictures apart, and the answer likely."""
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.copy_(torch.randn_like(parameter) / parameter[0].numel() ** 0.5)
    embedding: Tensor = model.get_input_embeddings().weight.normal_()
    say(embedding, model.get_output_embeddings().weight, answer)


def say(embedding: Tensor, head: Tensor, answer: Sequence[int]) -> None:
    """Have the output layer say one of the words behind the last token of the template."""
    head.normal_(0.0, 0.05)
    last, *words = answer
    for word in words:
        head[word] += 0.4 * embedding[last]
    head[words[0]] += 0.3 * torch.randn(HIDDEN)
