"""Writes tiny GLM-4.6V and Llama 4 checkpoints, as transformers and vLLM load them."""

from collections.abc import Mapping
from pathlib import Path

import torch
from transformers import (
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
    set_seed,
)

from tests.kits.checkpoints.common import CLIP
from tests.kits.checkpoints.vlm_common import (
    HEADS,
    HIDDEN,
    TEXT,
    answer_ids,
    chat_template,
    enlarge,
    tokenizer_of,
)


def glm4v(folder: Path) -> Path:
    """Write GLM-4.6V-Flash, as ``zai-org/GLM-4.6V-Flash``: the network of GLM-4.1V."""
    image = ["<|begin_of_image|>", "<|image|>", "<|end_of_image|>"]
    video = ["<|begin_of_video|>", "<|video|>", "<|end_of_video|>"]
    roles = ["<|system|>", "<|user|>", "<|assistant|>"]
    tokenizer = tokenizer_of("<|endoftext|>", "[gMASK]", "<sop>", *roles, *image, *video)
    ids = tokenizer.get_vocab()
    _save(folder, Glm4vForConditionalGeneration(_glm4v_config(ids)), ids)
    size = {"shortest_edge": 56 * 56, "longest_edge": 28 * 28 * 60}
    Glm46VProcessor(
        Glm46VImageProcessor(size=size, **CLIP),
        tokenizer,
        Glm46VVideoProcessor(size=size, **CLIP),
        chat_template=chat_template(
            "[gMASK]<sop>",
            "<|{role}|>\n",
            "",
            "<|begin_of_image|><|image|><|end_of_image|>",
        ),
    ).save_pretrained(folder)
    return folder


def _glm4v_config(ids: Mapping[str, int]) -> Glm4vConfig:
    return Glm4vConfig(
        text_config={
            **TEXT,
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


def llama4(folder: Path) -> Path:
    """Write Llama 4, as ``meta-llama/Llama-4-Scout-17B-16E-Instruct``: pictures in tiles."""
    image = ["<|image_start|>", "<|image_end|>", "<|image|>", "<|patch|>"]
    tiles = ["<|tile_x_separator|>", "<|tile_y_separator|>"]
    turns = ["<|header_start|>", "<|header_end|>", "<|eot|>"]
    tokenizer = tokenizer_of(
        "<|finetune_right_pad|>", "<|begin_of_text|>", "<|end_of_text|>", *turns, *image, *tiles
    )
    ids = tokenizer.get_vocab()
    _save(folder, Llama4ForConditionalGeneration(_llama4_config(ids)), ids)
    Llama4Processor(
        Llama4ImageProcessor(size={"height": 56, "width": 56}, max_patches=4),
        tokenizer,
        chat_template=chat_template(
            "<|begin_of_text|>",
            "<|header_start|>{role}<|header_end|>\n\n",
            "<|eot|>",
            "<|image|>",
        ),
    ).save_pretrained(folder)
    return folder


def _llama4_config(ids: Mapping[str, int]) -> Llama4Config:
    return Llama4Config(
        text_config={
            **TEXT,
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


def _save(folder: Path, model: PreTrainedModel, ids: Mapping[str, int]) -> None:
    set_seed(0)
    with torch.no_grad():
        enlarge(model, answer_ids(ids))
    model.save_pretrained(folder)
