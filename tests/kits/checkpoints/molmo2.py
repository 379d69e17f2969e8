"""Writes a tiny Molmo 2 checkpoint as ``allenai/Molmo2-4B`` is, but for the authors' code.

Neither transformers nor vLLM has its configuration and its processor, so that it needs
``*_molmo2.py`` of github.com/allenai/molmo2, ``olmo/hf_model``, in the same folder.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from transformers import set_seed

from tests.kits.checkpoints.common import HALVES, write_json
from tests.kits.checkpoints.vlm_common import (
    HEADS,
    HIDDEN,
    LAYERS,
    answer_ids,
    drawn,
    say,
    tokenizer_of,
)

# As the authors': pictures first, and no turns but those of the user and of the assistant.
CHAT_TEMPLATE = """\
{%- for message in messages -%}
{%- if message.content is not string -%}
{%- for part in message.content if part.type == 'image' %}<|image|>{% endfor -%}
{%- endif -%}
{%- endfor -%}
{%- for message in messages -%}
{%- if (message.role == 'user') != (loop.index0 % 2 == 0) -%}
{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}
{%- endif -%}
<|im_start|>{{ message.role }}
{% if message.content is string %}{{ message.content }}{% else -%}
{%- for part in message.content if part.type == 'text' %}{{ part.text }}{% endfor -%}
{%- endif %}<|im_end|>
{% endfor -%}
{%- if add_generation_prompt %}<|im_start|>assistant
{% endif -%}
"""
WIDE, SIDE, PATCH = 2 * HIDDEN, 56, 14
PARTS = {
    "image_patch_id": "<im_patch>",
    "image_low_res_id": "<im_low>",
    "image_start_token_id": "<im_start>",
    "low_res_image_start_token_id": "<low_res_im_start>",
    "image_end_token_id": "<im_end>",
    "image_col_id": "<im_col>",
    "frame_start_token_id": "<frame_start>",
    "frame_end_token_id": "<frame_end>",
}


def write_molmo2(folder: Path) -> Path:
    """Write the checkpoint into ``folder``, which is made if it is not there, and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = tokenizer_of("<|im_end|>", "<|im_start|>")
    words = len(tokenizer)
    # Tokens of pictures have embeddings of their own, and are never said.
    tokenizer.add_tokens([*PARTS.values(), "<|image|>", "<|video|>"], special_tokens=True)
    ids = tokenizer.get_vocab()
    write_json(folder / "config.json", _config(words, ids))
    set_seed(0)
    weights = drawn(_shapes(words, len(ids) - words))
    embedding = weights["model.transformer.wte.embedding"].normal_()
    say(embedding, weights["lm_head.weight"], answer_ids(ids))
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    tokenizer.bos_token = tokenizer.eos_token
    tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.save_pretrained(folder)
    _write_processors(folder)
    return folder


def _code(name: str, kind: str) -> str:
    return f"{name}_molmo2.Molmo2{kind}"


def _config(words: int, ids: Mapping[str, int]) -> dict[str, Any]:
    shared = {"num_attention_heads": HEADS, "num_key_value_heads": HEADS}
    shared |= {"hidden_size": HIDDEN, "intermediate_size": WIDE, "head_dim": HIDDEN // HEADS}
    return {
        "architectures": ["Molmo2ForConditionalGeneration"],
        "model_type": "molmo2",
        "auto_map": {"AutoConfig": _code("configuration", "Config")},
        "dtype": "float32",
        "text_config": {
            **shared,
            "vocab_size": words,
            "additional_vocab_size": len(ids) - words,
            "num_hidden_layers": LAYERS,
            "max_position_embeddings": 8192,
            "qkv_bias": False,
            "use_qk_norm": True,
            "qk_norm_type": "qwen3",
        },
        "vit_config": {
            **shared,
            "num_hidden_layers": 2,
            "image_default_input_size": [SIDE, SIDE],
            "image_num_pos": (SIDE // PATCH) ** 2,
        },
        "adapter_config": {
            **shared,
            "vit_layers": [-1, -2],
            "pooling_attention_mask": True,
            "text_hidden_size": HIDDEN,
        },
        **{name: ids[token] for name, token in PARTS.items()},
    }


def _write_processors(folder: Path) -> None:
    both = {"AutoProcessor": _code("processing", "Processor")}
    kind = {"processor_class": "Molmo2Processor"}
    shared = {**kind, "size": {"height": SIDE, "width": SIDE}, "patch_size": PATCH, **HALVES}
    image = {
        **shared,
        "image_processor_type": "Molmo2ImageProcessor",
        "auto_map": both | {"AutoImageProcessor": _code("image_processing", "ImageProcessor")},
        "pooling_size": [2, 2],
        "max_crops": 4,
        "overlap_margins": [1, 1],
    }
    video = {
        **shared,
        "video_processor_type": "Molmo2VideoProcessor",
        "auto_map": both | {"AutoVideoProcessor": _code("video_processing", "VideoProcessor")},
        "pooling_size": [2, 2],
    }
    write_json(folder / "preprocessor_config.json", image)
    write_json(folder / "video_preprocessor_config.json", video)
    write_json(folder / "processor_config.json", kind | {"auto_map": both})


def _shapes(words: int, more: int) -> dict[str, tuple[int, ...]]:
    """Return the shapes of all weights, for so many words and more tokens of pictures."""
    shapes: dict[str, tuple[int, ...]] = {
        "model.transformer.wte.embedding": (words, HIDDEN),
        "model.transformer.wte.new_embedding": (more, HIDDEN),
        "model.transformer.ln_f.weight": (HIDDEN,),
        "lm_head.weight": (words, HIDDEN),
    }
    for number in range(LAYERS):
        layer = f"model.transformer.blocks.{number}"
        shapes |= {f"{layer}.{name}.weight": shape for name, shape in _block().items()}
    backbone = "model.vision_backbone"
    shapes[f"{backbone}.image_vit.positional_embedding"] = ((SIDE // PATCH) ** 2, HIDDEN)
    shapes |= {f"{backbone}.image_projector.{w}.weight": (WIDE, HIDDEN) for w in ("w1", "w3")}
    shapes[f"{backbone}.image_projector.w2.weight"] = (HIDDEN, WIDE)
    for name, shape in _tower().items():
        shapes |= {f"{backbone}.{name}.weight": shape, f"{backbone}.{name}.bias": shape[:1]}
    return shapes


def _block() -> dict[str, tuple[int, ...]]:
    return {
        "self_attn.att_proj": (3 * HIDDEN, HIDDEN),
        "self_attn.attn_out": (HIDDEN, HIDDEN),
        "self_attn.q_norm": (HIDDEN // HEADS,),
        "self_attn.k_norm": (HIDDEN // HEADS,),
        "attn_norm": (HIDDEN,),
        "ff_norm": (HIDDEN,),
        "mlp.ff_proj": (2 * WIDE, HIDDEN),
        "mlp.ff_out": (HIDDEN, WIDE),
    }


def _tower() -> dict[str, tuple[int, ...]]:
    """Return the shapes of what has a bias too: the tower, and the attention behind it."""
    layer: dict[str, tuple[int, ...]] = {
        **{f"attention.{name}": (HIDDEN, HIDDEN) for name in ("wq", "wk", "wv", "wo")},
        "feed_forward.w1": (WIDE, HIDDEN),
        "feed_forward.w2": (HIDDEN, WIDE),
        "attention_norm": (HIDDEN,),
        "ffn_norm": (HIDDEN,),
    }
    return {
        "image_vit.patch_embedding": (HIDDEN, 3 * PATCH**2),
        **{
            f"image_vit.transformer.resblocks.{number}.{name}": shape
            for number in range(2)
            for name, shape in layer.items()
        },
        # Two layers of the tower are looked at together.
        **{f"image_pooling_2d.{name}": (HIDDEN, 2 * HIDDEN) for name in ("wq", "wk", "wv")},
        "image_pooling_2d.wo": (HIDDEN, HIDDEN),
    }
