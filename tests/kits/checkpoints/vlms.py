"""Tiny random vision-language models in the formats that vLLM loads, one per architecture.

Each answers Yes or No at once, by the picture: the last token of its chat template makes both
likely, and the random layers decide between them.
"""

from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from transformers import (
    Aimv2VisionConfig,
    CLIPImageProcessor,
    Glm4vConfig,
    Glm4vForConditionalGeneration,
    Glm46VImageProcessor,
    Glm46VProcessor,
    Glm46VVideoProcessor,
    Llama4Config,
    Llama4ForConditionalGeneration,
    Llama4ImageProcessor,
    Llama4Processor,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    set_seed,
)

from tests.kits.checkpoints.common import CLIP, byte_vocabulary, write_json

WORDS = ["Yes", "yes", "No", "no"]
HIDDEN, HEADS, LAYERS = 64, 2, 2
_VISUAL_WORDS = 64
_TEXT = {
    "hidden_size": HIDDEN,
    "intermediate_size": 2 * HIDDEN,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": HEADS,
    "max_position_embeddings": 8192,
}


def glm4v(folder: Path) -> Path:
    """Write GLM-4.6V-Flash, as ``zai-org/GLM-4.6V-Flash``: the network of GLM-4.1V."""
    image = ["<|begin_of_image|>", "<|image|>", "<|end_of_image|>"]
    video = ["<|begin_of_video|>", "<|video|>", "<|end_of_video|>"]
    roles = ["<|system|>", "<|user|>", "<|assistant|>"]
    tokenizer = _tokenizer("<|endoftext|>", "[gMASK]", "<sop>", *roles, *image, *video)
    ids = tokenizer.get_vocab()
    config = Glm4vConfig(
        text_config={
            **_TEXT,
            "vocab_size": len(ids),
            "num_key_value_heads": 1,
            "eos_token_id": [ids["<|endoftext|>"], ids["<|user|>"]],
            "pad_token_id": ids["<|endoftext|>"],
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 500_000.0,
                "partial_rotary_factor": 0.5,
                "mrope_section": [2, 3, 3],
            },
        },
        vision_config={
            "depth": 2,
            "hidden_size": HIDDEN,
            "intermediate_size": 2 * HIDDEN,
            "num_heads": HEADS,
            "image_size": 56,
            "out_hidden_size": HIDDEN,
        },
        image_start_token_id=ids["<|begin_of_image|>"],
        image_end_token_id=ids["<|end_of_image|>"],
        image_token_id=ids["<|image|>"],
        video_start_token_id=ids["<|begin_of_video|>"],
        video_end_token_id=ids["<|end_of_video|>"],
        video_token_id=ids["<|video|>"],
    )
    _write(folder, Glm4vForConditionalGeneration(config), _ids(ids, "\n"))
    size = {"shortest_edge": 56 * 56, "longest_edge": 28 * 28 * 60}
    Glm46VProcessor(
        Glm46VImageProcessor(size=size, **CLIP),
        tokenizer,
        Glm46VVideoProcessor(size=size, **CLIP),
        chat_template=_chat(
            "[gMASK]<sop>",
            "<|{role}|>\n",
            "",
            "<|begin_of_image|><|image|><|end_of_image|>",
        ),
    ).save_pretrained(folder)
    return folder


def llama4(folder: Path) -> Path:
    """Write Llama 4, as ``meta-llama/Llama-4-Scout-17B-16E-Instruct``: pictures in tiles."""
    image = ["<|image_start|>", "<|image_end|>", "<|image|>", "<|patch|>"]
    tiles = ["<|tile_x_separator|>", "<|tile_y_separator|>"]
    turns = ["<|header_start|>", "<|header_end|>", "<|eot|>"]
    tokenizer = _tokenizer(
        "<|finetune_right_pad|>", "<|begin_of_text|>", "<|end_of_text|>", *turns, *image, *tiles
    )
    ids = tokenizer.get_vocab()
    config = Llama4Config(
        text_config={
            **_TEXT,
            "vocab_size": len(ids),
            "head_dim": HIDDEN // HEADS,
            "intermediate_size_mlp": 2 * HIDDEN,
            "num_local_experts": 4,
            "bos_token_id": ids["<|begin_of_text|>"],
            "eos_token_id": [ids["<|end_of_text|>"], ids["<|eot|>"]],
            "pad_token_id": ids["<|finetune_right_pad|>"],
        },
        vision_config={
            "hidden_size": HIDDEN,
            "intermediate_size": 4 * HIDDEN,
            "num_hidden_layers": 2,
            "num_attention_heads": HEADS,
            "image_size": 56,
            "vision_output_dim": HIDDEN,
            "projector_input_dim": HIDDEN,
            "projector_output_dim": HIDDEN,
        },
        boi_token_index=ids["<|image_start|>"],
        eoi_token_index=ids["<|image_end|>"],
        image_token_index=ids["<|patch|>"],
    )
    _write(folder, Llama4ForConditionalGeneration(config), _ids(ids, "\n"))
    Llama4Processor(
        Llama4ImageProcessor(size={"height": 56, "width": 56}, max_patches=4),
        tokenizer,
        chat_template=_chat(
            "<|begin_of_text|>",
            "<|header_start|>{role}<|header_end|>\n\n",
            "<|eot|>",
            "<|image|>",
        ),
    ).save_pretrained(folder)
    return folder


def ovis2(folder: Path) -> Path:
    """Write Ovis2, as ``AIDC-AI/Ovis2-34B``, in the authors' own format."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = _tokenizer("<|im_end|>", "<|im_start|>", "<|image_pad|>")
    ids = tokenizer.get_vocab()
    llm = Qwen2Config(
        **_TEXT, vocab_size=len(ids), eos_token_id=ids["<|im_end|>"], tie_word_embeddings=False
    )
    sight = Aimv2VisionConfig(
        hidden_size=HIDDEN,
        intermediate_size=2 * HIDDEN,
        num_hidden_layers=2,
        num_attention_heads=HEADS,
        image_size=56,
        patch_size=14,
    )
    config = {
        "architectures": ["Ovis"],
        "model_type": "ovis",
        "hidden_size": HIDDEN,
        "dtype": "float32",
        "conversation_formatter_class": "QwenConversationFormatter",
        "llm_config": llm.to_dict(),
        "visual_tokenizer_config": {
            "model_type": "aimv2_visual_tokenizer",
            "backbone_config": sight.to_dict() | {"model_type": "aimv2"},
            "vocab_size": _VISUAL_WORDS,
            "hidden_stride": 2,
            "tokenize_function": "softmax",
        },
    }
    write_json(folder / "config.json", config)
    set_seed(0)
    model = Qwen2ForCausalLM(llm)
    with torch.no_grad():
        _enlarge(model, _ids(ids, "\n"))
    words = {f"llm.{name}": weight for name, weight in model.state_dict().items()}
    save_file(words | _drawn(_ovis_sight()), folder / "model.safetensors", {"format": "pt"})
    side = {"height": 56, "width": 56}
    CLIPImageProcessor(size=side, do_center_crop=False, **CLIP).save_pretrained(folder)
    # As Qwen 2.5's: it takes text alone, so that pictures stand before it.
    tokenizer.chat_template = (
        "{%- for message in messages -%}"
        "<|im_start|>{{ message.role }}{{ '\n' }}{{ message.content }}<|im_end|>{{ '\n' }}"
        "{%- endfor -%}"
        "{%- if add_generation_prompt %}<|im_start|>assistant{{ '\n' }}{% endif -%}"
    )
    tokenizer.save_pretrained(folder)
    return folder


def _ovis_sight() -> dict[str, tuple[int, ...]]:
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
        "visual_tokenizer.head.0.weight": (_VISUAL_WORDS - 5, 4 * HIDDEN),
        "visual_tokenizer.head.1.weight": (_VISUAL_WORDS - 5,),
        "visual_tokenizer.head.1.bias": (_VISUAL_WORDS - 5,),
        "vte.weight": (_VISUAL_WORDS, HIDDEN),
    }


def _drawn(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Return random weights of those shapes: scales of norms are 1, and biases 0."""
    drawn = {}
    for name, shape in shapes.items():
        if len(shape) > 1:
            drawn[name] = torch.randn(shape) / prod(shape[1:]) ** 0.5
        else:
            drawn[name] = torch.zeros(shape) if name.endswith("bias") else torch.ones(shape)
    return drawn


def _tokenizer(*special: str) -> PreTrainedTokenizerFast:
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


def _chat(begin: str, head: str, end: str, image: str) -> str:
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


def _ids(ids: dict[str, int], last: str) -> list[int]:
    """Return the ids of the template's last token, and of the words behind it."""
    return [ids[last.replace("\n", "\u010a")], *(ids[word] for word in WORDS)]


def _write(folder: Path, model: PreTrainedModel, answer: Sequence[int]) -> None:
    set_seed(0)
    with torch.no_grad():
        _enlarge(model, answer)
    model.save_pretrained(folder)


def _enlarge(model: Any, answer: Sequence[int]) -> None:
    """Make the random weights large enough to tell pictures apart, and the answer likely."""
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.copy_(torch.randn_like(parameter) / parameter[0].numel() ** 0.5)
    embedding: Tensor = model.get_input_embeddings().weight
    head: Tensor = model.get_output_embeddings().weight
    embedding.normal_()
    head.normal_(0.0, 0.05)
    last, *words = answer
    for word in words:
        head[word] += 0.4 * embedding[last]
    head[words[0]] += 0.3 * torch.randn(HIDDEN)
