"""Tiny random checkpoints of SAM 3, depth models, Florence-2, InternVL, in their real formats."""

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import (
    CLIPImageProcessor,
    CLIPTokenizer,
    DepthAnythingConfig,
    DepthAnythingForDepthEstimation,
    DepthProConfig,
    DepthProForDepthEstimation,
    Florence2Config,
    Florence2ForConditionalGeneration,
    Florence2Processor,
    GotOcr2ImageProcessor,
    InternVLConfig,
    InternVLForConditionalGeneration,
    InternVLProcessor,
    InternVLVideoProcessor,
    PreTrainedModel,
    Qwen2Tokenizer,
    RobertaTokenizer,
    Sam3Config,
    Sam3ImageProcessor,
    Sam3Model,
    Sam3Processor,
    Sam3VideoConfig,
)

from tests.kits.checkpoints.common import (
    HALVES,
    IMAGENET,
    byte_vocabulary,
    seeded,
    write_preprocessor,
)

SAM_SIDE = 56
DEPTH_SIZE = (84, 56)
DEPTH_PRO_SIDE = 128
FLORENCE_SIDE = 64
INTERNVL_SIDE = 28
_SPREAD = 0.2
_SMALL = {"hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 32}
_EYES = {
    **_SMALL,
    "num_hidden_layers": 2,
    "image_size": SAM_SIDE,
    "patch_size": 14,
    "window_size": 2,
    "global_attn_indexes": [1],
    "pretrain_image_size": 28,
}
_MAPS = {"fpn_hidden_size": 32, "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]]}


def sam3(folder: Path, *, video: bool = True) -> Path:
    """Write SAM 3: with its tracker, as ``facebook/sam3`` is, or the image model alone."""
    detector = _detector()
    if video:
        whole = Sam3VideoConfig(
            detector_config=detector, tracker_config=_tracker(), low_res_mask_size=16
        )
        _saved(lambda: _sam3_video(whole), folder, spread=0.3)
    else:
        alone = Sam3Config(**detector)
        _saved(lambda: Sam3Model(alone), folder, spread=0.3)
    vocabulary = byte_vocabulary("<|startoftext|>", "<|endoftext|>", endings="</w>")
    tokenizer = CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=32)
    images = Sam3ImageProcessor(size={"height": SAM_SIDE, "width": SAM_SIDE})
    Sam3Processor(images, tokenizer).save_pretrained(folder)
    return folder


def _sam3_video(config: Sam3VideoConfig) -> PreTrainedModel:
    with warnings.catch_warnings():
        # Its module compiles a function by torch.jit, which PyTorch has deprecated.
        warnings.simplefilter("ignore", DeprecationWarning)
        from transformers import Sam3VideoModel
    model: PreTrainedModel = Sam3VideoModel(config)
    return model


def _detector() -> dict[str, Any]:
    text = {
        **_SMALL,
        "model_type": "clip_text_model",
        "vocab_size": 514,
        "projection_dim": 32,
        "num_hidden_layers": 1,
        "max_position_embeddings": 32,
        "hidden_act": "gelu",
        "bos_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": 1,
    }
    return {
        "vision_config": {**_MAPS, "backbone_config": dict(_EYES)},
        "text_config": text,
        "geometry_encoder_config": {**_SMALL, "num_layers": 1},
        "detr_encoder_config": {**_SMALL, "num_layers": 1},
        "detr_decoder_config": {**_SMALL, "num_layers": 1, "num_queries": 10},
        "mask_decoder_config": {"hidden_size": 32, "num_attention_heads": 2},
    }


def _tracker() -> dict[str, Any]:
    return {
        "vision_config": {**_MAPS, "backbone_config": dict(_EYES)},
        "prompt_encoder_config": {"hidden_size": 32, "image_size": SAM_SIDE, "patch_size": 14},
        "mask_decoder_config": {
            "hidden_size": 32,
            "mlp_dim": 32,
            "num_attention_heads": 2,
            "iou_head_hidden_dim": 32,
        },
        "memory_attention_hidden_size": 32,
        "memory_attention_num_layers": 1,
        "memory_attention_feed_forward_hidden_size": 32,
        "memory_encoder_hidden_size": 32,
        "memory_encoder_output_channels": 16,
        "mask_downsampler_embed_dim": 32,
        "memory_fuser_embed_dim": 32,
        "memory_fuser_intermediate_dim": 32,
        "memory_attention_rope_feat_sizes": [4, 4],
        "image_size": SAM_SIDE,
    }


def depth_anything(folder: Path, *, metric: bool = True) -> Path:
    """Write Depth Anything V2, as ``depth-anything/Depth-Anything-V2-*-hf``."""
    backbone = _dinov2(image_size=56, patch_size=14, reshape_hidden_states=False)
    config = DepthAnythingConfig(
        backbone_config={**backbone, "out_indices": [1, 2, 3, 4]},
        reassemble_hidden_size=16,
        neck_hidden_sizes=[8, 8, 16, 16],
        fusion_hidden_size=8,
        head_hidden_size=8,
        depth_estimation_type="metric" if metric else "relative",
        max_depth=80 if metric else None,
    )
    _saved(lambda: DepthAnythingForDepthEstimation(config), folder)
    size = {"height": 518, "width": 518}
    shape = {"keep_aspect_ratio": True, "ensure_multiple_of": 14}
    write_preprocessor(folder, "DPTImageProcessor", size, **shape, **IMAGENET)
    return folder


def depth_pro(folder: Path) -> Path:
    """Write Depth Pro with its estimate of the field of view, as ``apple/DepthPro-hf``."""
    encoder = _dinov2(image_size=32, patch_size=8, use_mask_token=False)
    config = DepthProConfig(
        image_model_config=dict(encoder),
        patch_model_config=dict(encoder),
        fov_model_config=dict(encoder),
        patch_size=32,
        fusion_hidden_size=16,
        intermediate_hook_ids=[3, 1],
        intermediate_feature_dims=[16, 16],
        scaled_images_feature_dims=[16, 16, 16],
        merge_padding_value=1,
        use_fov_model=True,
    )
    _saved(lambda: DepthProForDepthEstimation(config), folder)
    size = {"height": DEPTH_PRO_SIDE, "width": DEPTH_PRO_SIDE}
    write_preprocessor(folder, "DepthProImageProcessor", size, **HALVES)
    return folder


def _dinov2(**fields: Any) -> dict[str, Any]:
    return {
        "model_type": "dinov2",
        "hidden_size": 16,
        "num_attention_heads": 2,
        "num_hidden_layers": 4,
        "mlp_ratio": 2,
        **fields,
    }


def florence2(folder: Path, follows: Mapping[str, str] | None = None) -> Path:
    """Write Florence-2, as ``florence-community/Florence-2-*``.

    Args:
        folder: Made if it is not there.
        follows: Token that is written after a token, whatever the picture; ``<s>`` is the first.
            Without it the random weights decide.
    """
    places = [f"<loc_{i}>" for i in range(1000)]
    words = ["END", "ROAD", "WORK", "AHEAD", "SPEED", "LIMIT"]
    spaced = ["\u0120" + word for word in words]
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", "<image>"]
    ids = byte_vocabulary(*special, *places, *words, *spaced)
    width = 32
    config = Florence2Config(
        text_config={
            "model_type": "bart",
            "vocab_size": len(ids),
            "d_model": width,
            "encoder_layers": 1,
            "decoder_layers": 1,
            "encoder_ffn_dim": width,
            "decoder_ffn_dim": width,
            "encoder_attention_heads": 2,
            "decoder_attention_heads": 2,
            "max_position_embeddings": 512,
        },
        vision_config={
            "depths": [1, 1, 1, 1],
            "embed_dim": [8, 8, 16, 16],
            "num_heads": [2] * 4,
            "num_groups": [2] * 4,
            "window_size": 4,
            "projection_dim": width,
        },
        image_token_id=ids["<image>"],
        tie_word_embeddings=False,
    )
    model = seeded(lambda: Florence2ForConditionalGeneration(config), spread=0.5)
    if follows is None:
        with torch.no_grad():
            # Words rather than bytes and places, which alone would hardly ever make a text.
            model.lm_head.weight[[ids[word] for word in (*words, *spaced)]] *= 4.0
    else:
        _script(model, {ids[last]: ids[after] for last, after in follows.items()})
    model.generation_config.update(num_beams=3, forced_bos_token_id=0, early_stopping=True)
    model.save_pretrained(folder)
    tokenizer = RobertaTokenizer(
        vocab=ids, merges=[], extra_special_tokens={"image_token": "<image>"}
    )
    images = CLIPImageProcessor(
        size={"height": FLORENCE_SIDE, "width": FLORENCE_SIDE},
        do_center_crop=False,
        image_seq_length=(FLORENCE_SIDE // 32) ** 2 + 1,
        **IMAGENET,
    )
    Florence2Processor(images, tokenizer).save_pretrained(folder)
    return folder


def _script(model: Any, follows: Mapping[int, int]) -> None:
    """Have the decoder write a token after a token: by its embedding alone, past all layers."""
    decoder, width = model.model.language_model.decoder, model.config.text_config.d_model
    with torch.no_grad():
        for layer in decoder.layers:
            for part in (layer.self_attn.out_proj, layer.encoder_attn.out_proj, layer.fc2):
                part.weight.zero_()
                part.bias.zero_()
        decoder.embed_positions.weight.zero_()
        embedded = torch.zeros_like(decoder.embed_tokens.weight)
        model.lm_head.weight.zero_()
        for place, (last, after) in enumerate(follows.items()):
            assert place < width, "one direction of the embedding per token"
            embedded[last, place] = 1.0
            model.lm_head.weight[after, place] = 4.0
        decoder.embed_tokens.weight.copy_(embedded)


def internvl(folder: Path) -> Path:
    """Write InternVL 3 or 3.5, as ``OpenGVLab/InternVL3_5-*-HF``; it cuts a picture in tiles."""
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    frame = ["<img>", "</img>", "<IMG_CONTEXT>", "<video>"]
    ids = byte_vocabulary(*special, *frame, "Yes", "No", "\u0120yes")
    config = InternVLConfig(
        text_config={
            **_SMALL,
            "model_type": "qwen2",
            "vocab_size": len(ids),
            "num_hidden_layers": 2,
            # vLLM's attention on a CPU takes heads of 32 and more.
            "num_attention_heads": 1,
            "num_key_value_heads": 1,
            "max_position_embeddings": 4096,
            "eos_token_id": ids["<|im_end|>"],
            "bos_token_id": ids["<|im_start|>"],
            "pad_token_id": ids["<|endoftext|>"],
        },
        vision_config={
            **_SMALL,
            "num_hidden_layers": 1,
            "image_size": [INTERNVL_SIDE] * 2,
            "patch_size": [7, 7],
        },
        image_token_id=ids["<IMG_CONTEXT>"],
        downsample_ratio=0.5,
    )
    _saved(lambda: InternVLForConditionalGeneration(config), folder)
    names = ("start_image_token", "end_image_token", "context_image_token", "video_token")
    tokenizer = Qwen2Tokenizer(
        vocab=ids,
        merges=[],
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        unk_token="<|endoftext|>",
        extra_special_tokens=dict(zip(names, frame, strict=True)),
    )
    images = GotOcr2ImageProcessor(
        size={"height": INTERNVL_SIDE, "width": INTERNVL_SIDE},
        crop_to_patches=True,
        min_patches=1,
        max_patches=4,
        **IMAGENET,
    )
    InternVLProcessor(
        images,
        tokenizer,
        InternVLVideoProcessor(),
        image_seq_length=4,
        chat_template=_CHAT,
    ).save_pretrained(folder)
    return folder


_CHAT = """\
{%- for message in messages -%}
<|im_start|>{{ message.role }}
{% for part in message.content -%}
{%- if part.type == 'image' %}<IMG_CONTEXT>
{% else %}{{ part.text }}{% endif -%}
{%- endfor -%}
<|im_end|>
{% endfor -%}
{%- if add_generation_prompt %}<|im_start|>assistant
{% endif -%}
"""


def _saved(build: Callable[[], PreTrainedModel], folder: Path, spread: float = _SPREAD) -> None:
    seeded(build, spread=spread).save_pretrained(folder)
