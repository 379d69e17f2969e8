"""Writes a tiny Ovis2 checkpoint in the authors' own format, as vLLM loads it."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import (
    Aimv2VisionConfig,
    CLIPImageProcessor,
    Qwen2Config,
    Qwen2ForCausalLM,
    set_seed,
)

from tests.kits.checkpoints.common import CLIP, write_json
from tests.kits.checkpoints.vlm_common import (
    HEADS,
    HIDDEN,
    TEXT,
    answer_ids,
    drawn,
    enlarge,
    tokenizer_of,
)

# As Qwen 2.5's: it takes text alone, so that pictures stand before it.
CHAT_TEMPLATE = """\
{%- for message in messages -%}
<|im_start|>{{ message.role }}
{{ message.content }}<|im_end|>
{% endfor -%}
{%- if add_generation_prompt %}<|im_start|>assistant
{% endif -%}
"""
VISUAL_WORDS = 64


def write_ovis2(folder: Path) -> Path:
    """Write Ovis2, as ``AIDC-AI/Ovis2-34B``, in the authors' own format."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = tokenizer_of("<|im_end|>", "<|im_start|>", "<|image_pad|>")
    ids = tokenizer.get_vocab()
    llm = Qwen2Config(
        **TEXT, vocab_size=len(ids), eos_token_id=ids["<|im_end|>"], tie_word_embeddings=False
    )
    sight = Aimv2VisionConfig(
        hidden_size=HIDDEN,
        intermediate_size=2 * HIDDEN,
        num_hidden_layers=2,
        num_attention_heads=HEADS,
        image_size=56,
        patch_size=14,
    )
    write_json(folder / "config.json", _config(llm, sight))
    set_seed(0)
    model = Qwen2ForCausalLM(llm)
    with torch.no_grad():
        enlarge(model, answer_ids(ids))
    words = {f"llm.{name}": weight for name, weight in model.state_dict().items()}
    save_file(words | drawn(_sight()), folder / "model.safetensors", {"format": "pt"})
    side = {"height": 56, "width": 56}
    CLIPImageProcessor(size=side, do_center_crop=False, **CLIP).save_pretrained(folder)
    tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.save_pretrained(folder)
    return folder


def _config(llm: Qwen2Config, sight: Aimv2VisionConfig) -> dict[str, Any]:
    return {
        "architectures": ["Ovis"],
        "model_type": "ovis",
        "hidden_size": HIDDEN,
        "dtype": "float32",
        "conversation_formatter_class": "QwenConversationFormatter",
        "llm_config": llm.to_dict(),
        "visual_tokenizer_config": {
            "model_type": "aimv2_visual_tokenizer",
            "backbone_config": sight.to_dict() | {"model_type": "aimv2"},
            "vocab_size": VISUAL_WORDS,
            "hidden_stride": 2,
            "tokenize_function": "softmax",
        },
    }


def _sight() -> dict[str, tuple[int, ...]]:
    """Return the shapes of Ovis2's AIMv2, of its visual vocabulary, and of that's embeddings."""
    trunk = {"norm_1": (HIDDEN,), "norm_2": (HIDDEN,), "attn.qkv": (3 * HIDDEN, HIDDEN)}
    trunk |= {"attn.proj": (HIDDEN, HIDDEN), "mlp.fc2": (HIDDEN, 2 * HIDDEN)}
    trunk |= {"mlp.fc1": (2 * HIDDEN, HIDDEN), "mlp.fc3": (2 * HIDDEN, HIDDEN)}
    patches = "visual_tokenizer.backbone.preprocessor"
    return {
        f"{patches}.patchifier.proj.weight": (HIDDEN, 3, 14, 14),
        f"{patches}.patchifier.proj.bias": (HIDDEN,),
        f"{patches}.patchifier.norm.weight": (HIDDEN,),
        f"{patches}.pos_embed": (1, 16, HIDDEN),
        **{
            f"visual_tokenizer.backbone.trunk.blocks.{block}.{name}.weight": shape
            for block in range(2)
            for name, shape in trunk.items()
        },
        # The last five words mark where pictures begin and end.
        "visual_tokenizer.head.0.weight": (VISUAL_WORDS - 5, 4 * HIDDEN),
        "visual_tokenizer.head.1.weight": (VISUAL_WORDS - 5,),
        "visual_tokenizer.head.1.bias": (VISUAL_WORDS - 5,),
        "vte.weight": (VISUAL_WORDS, HIDDEN),
    }
