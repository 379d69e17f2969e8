"""Writes a tiny Qwen3-VL checkpoint in its real format, as transformers and vLLM load it.

The weights are random, but for a table of what follows what: the output layer is made to continue
the last token as told. Between two continuations the random layers decide, by the picture. The chat
template's argument ``mode`` opens the answer, so that one checkpoint can answer at once, reason
first, reason without end, or say nothing that is an answer.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from torch import Tensor
from transformers import (
    PreTrainedModel,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLMoeConfig,
    Qwen3VLMoeForConditionalGeneration,
    set_seed,
)
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

Follows = Mapping[str, Sequence[str]]
ANSWERS: Follows = {
    # Answers at once, Yes or No by the picture.
    "\n": ["Yes", "No"],
    # mode = "reason": two words, then the end of the reasoning.
    "<think>": ["cones"],
    "cones": ["\u0120ahead"],
    "\u0120ahead": ["</think>"],
    "</think>": ["Yes", "No"],
    # mode = "brood": goes round in circles.
    "system": ["user"],
    "user": ["system"],
    # Once the reasoning is closed.
    "\n\n": ["Yes", "No"],
}
MUMBLES: Follows = {}
"""Says anything: nearly all of the probability leaks from yes and no."""
OPENINGS = {"reason": "<think>", "brood": "<think>system", "mumble": ":"}

WORDS = ["Yes", "yes", "YES", "No", "no", "NO", "cones", "ahead", "user", "assistant", "system"]
SPECIAL = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
]
# Tokens that are no words, and yet text.
THINK = ["<think>", "</think>"]
HIDDEN, HEADS, LAYERS = 64, 2, 2
PATCH, MERGE = 16, 2

CHAT_TEMPLATE = """\
{%- for message in messages -%}
<|im_start|>{{ message.role }}
{% if message.content is string %}{{ message.content }}{% else -%}
{%- for part in message.content -%}
{%- if part.type in ('image', 'image_url') or 'image' in part -%}
<|vision_start|><|image_pad|><|vision_end|>
{%- else -%}{{ part.text }}{%- endif -%}
{%- endfor -%}
{%- endif %}<|im_end|>
{% endfor -%}
{%- if add_generation_prompt %}<|im_start|>assistant
{{ OPENINGS.get(mode, '') }}{% endif -%}
"""


def write_qwen3_vl(
    folder: Path, follows: Follows = ANSWERS, *, seed: int = 0, experts: int = 0
) -> Path:
    """Write the checkpoint into ``folder`` and return it.

    Args:
        folder: Made if it is not there.
        follows: Which tokens are likely after which, as the tokenizer spells them.
        seed: Of the random weights.
        experts: 0 for the dense Qwen3-VL; else Qwen3-VL-MoE, as ``Qwen/Qwen3-VL-30B-A3B-*``, with
            two of so many experts active.
    """
    folder.mkdir(parents=True, exist_ok=True)
    ids = _write_tokenizer(folder)
    set_seed(seed)
    model = _model(ids, experts).to(torch.float32)
    with torch.no_grad():
        _enlarge(model, ids, follows)
    model.save_pretrained(folder)
    if experts:
        _turn_experts(folder / "model.safetensors")
    _write_processor(folder)
    return folder


def _turn_experts(weights: Path) -> None:
    """Store experts input first, as the hub has them; transformers 5.19 saves output first."""
    turned = {
        name: weight.transpose(1, 2).contiguous() if ".experts." in name else weight
        for name, weight in load_file(weights).items()
    }
    save_file(turned, weights, {"format": "pt"})


def _model(ids: Mapping[str, int], experts: int) -> PreTrainedModel:
    if not experts:
        return Qwen3VLForConditionalGeneration(Qwen3VLConfig(**_config(ids)))
    config = _config(ids)
    config["text_config"] |= {
        "num_experts": experts,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 48,
        "norm_topk_prob": True,
    }
    return Qwen3VLMoeForConditionalGeneration(Qwen3VLMoeConfig(**config))


def _config(ids: Mapping[str, int]) -> dict[str, Any]:
    return {
        "text_config": {
            "vocab_size": len(ids),
            "hidden_size": HIDDEN,
            "intermediate_size": 2 * HIDDEN,
            "num_hidden_layers": LAYERS,
            "num_attention_heads": HEADS,
            "num_key_value_heads": HEADS,
            "head_dim": HIDDEN // HEADS,
            "max_position_embeddings": 8192,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 5_000_000.0,
                "mrope_section": [6, 5, 5],
                "mrope_interleaved": True,
            },
            "dtype": "float32",
            "eos_token_id": ids["<|im_end|>"],
            "bos_token_id": ids["<|endoftext|>"],
        },
        "vision_config": {
            "depth": 2,
            "hidden_size": HIDDEN,
            "intermediate_size": 2 * HIDDEN,
            "num_heads": HEADS,
            "patch_size": PATCH,
            "spatial_merge_size": MERGE,
            "temporal_patch_size": 2,
            "out_hidden_size": HIDDEN,
            "num_position_embeddings": 64,
            "deepstack_visual_indexes": [0],
        },
        "image_token_id": ids["<|image_pad|>"],
        "video_token_id": ids["<|video_pad|>"],
        "vision_start_token_id": ids["<|vision_start|>"],
        "vision_end_token_id": ids["<|vision_end|>"],
        "tie_word_embeddings": False,
        "dtype": "float32",
    }


def _enlarge(model: Any, ids: Mapping[str, int], follows: Follows) -> None:
    """Make the random weights large enough to tell pictures apart, and ``follows`` hold."""
    embedding: Tensor = model.model.language_model.embed_tokens.weight
    embedding.copy_(torch.randn_like(embedding))
    for name, weight in model.model.named_parameters():
        if weight.dim() >= 2 and "embed" not in name:
            weight.copy_(torch.randn_like(weight) / weight[0].numel() ** 0.5)
    _look_at_pictures(model, [embedding[ids[_spelled(last)]] for last in follows])
    head: Tensor = model.lm_head.weight
    head.copy_(torch.randn_like(head) * 0.05)
    for last, following in follows.items():
        for token in following:
            head[ids[_spelled(token)]] += 0.4 * embedding[ids[_spelled(last)]]
    head[ids["Yes"]] += 0.3 * torch.randn(HIDDEN)


def _look_at_pictures(model: Any, lasts: Sequence[Tensor]) -> None:
    """Have the tokens that decide look at the picture: a long prompt would drown it otherwise."""
    mark = torch.nn.functional.normalize(torch.randn(HIDDEN), dim=0)
    merger = model.model.visual.merger.linear_fc2
    merger.bias.copy_(8.0 * mark)
    # What rotates least with the position, in the halves of each head.
    slow = torch.zeros(HIDDEN // HEADS)
    slow[[HIDDEN // HEADS // 2 - 1, -1]] = 1.0
    for layer in model.model.language_model.layers:
        attention = layer.self_attn
        for head in range(HEADS):
            rows = slice(head * HIDDEN // HEADS, (head + 1) * HIDDEN // HEADS)
            attention.k_proj.weight[rows] += 3.0 * torch.outer(slow, mark)
            for last in lasts:
                attention.q_proj.weight[rows] += 3.0 * torch.outer(slow, last / last.norm())


def _spelled(token: str) -> str:
    return token.replace("\n", "\u010a")


def _write_tokenizer(folder: Path) -> dict[str, int]:
    vocab, merges = _bpe()
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(SPECIAL)
    tokenizer.add_tokens(THINK)
    tokenizer.save(str(folder / "tokenizer.json"))
    template = CHAT_TEMPLATE.replace("OPENINGS", repr(OPENINGS))
    (folder / "chat_template.jinja").write_text(template)
    settings = {
        "tokenizer_class": "Qwen2Tokenizer",
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "unk_token": "<|endoftext|>",
        "model_max_length": 8192,
        "additional_special_tokens": SPECIAL[1:],
        "chat_template": template,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return dict(tokenizer.get_vocab(with_added_tokens=True))


def _bpe() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Return a byte-level vocabulary with the words above whole, with and without a space."""
    vocab = {byte: i for i, byte in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    merges: list[tuple[str, str]] = []
    for word in ["\u010a\u010a", *WORDS]:
        for end in range(2, len(word) + 1):
            if word[:end] not in vocab:
                vocab[word[:end]] = len(vocab)
                merges.append((word[: end - 1], word[end - 1]))
    for word in WORDS:
        vocab["\u0120" + word] = len(vocab)
        merges.append(("\u0120", word))
    return vocab, merges


def _write_processor(folder: Path) -> None:
    shared = {
        "size": {"shortest_edge": 4096, "longest_edge": 1 << 20},
        "patch_size": PATCH,
        "temporal_patch_size": 2,
        "merge_size": MERGE,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
    }
    image = shared | {
        "processor_class": "Qwen3VLProcessor",
        "image_processor_type": "Qwen2VLImageProcessorFast",
    }
    video = shared | {
        "processor_class": "Qwen3VLProcessor",
        "video_processor_type": "Qwen3VLVideoProcessor",
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(image))
    (folder / "video_preprocessor_config.json").write_text(json.dumps(video))
    generation = {"do_sample": True, "temperature": 0.7, "top_p": 0.8, "top_k": 20}
    (folder / "generation_config.json").write_text(json.dumps(generation))
