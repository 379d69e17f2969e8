"""Tiny random checkpoints of detectors, in their real formats."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import transformers
from transformers import PreTrainedConfig, PreTrainedModel

from tests.kits.checkpoints.common import (
    CLIP,
    IMAGENET,
    byte_vocabulary,
    seeded,
    write_preprocessor,
)

LABELS = ["barrier", "traffic cone", "car", "machinery vehicle"]
SIDE = 64
SPREAD = 0.25
_SMALL: dict[str, Any] = {
    "d_model": 32,
    "encoder_hidden_dim": 32,
    "encoder_ffn_dim": 32,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "decoder_layers": 2,
    "decoder_ffn_dim": 32,
    "decoder_in_channels": [32, 32, 32],
    "hidden_expansion": 0.5,
    "num_queries": 84,
    "num_denoising": 0,
}
_FINE: dict[str, Any] = {
    "encoder_in_channels": [16, 16, 16],
    "depth_mult": 0.34,
    "decoder_n_points": [2, 2, 2],
    "lqe_hidden_dim": 8,
    "top_prob_values": 2,
    "max_num_bins": 8,
}


def d_fine(folder: Path, **given: Any) -> Path:
    """Write a D-FINE, as ``ustc-community/dfine-*``."""
    config = transformers.DFineConfig(**_classes(_hgnet(), {**_SMALL, **_FINE, **given}))
    return _stretched(lambda: transformers.DFineForObjectDetection(config), folder)


def deimv2(folder: Path) -> Path:
    """Write a DEIMv2, as ``Intellindust/DEIMv2_HGNetv2_*_COCO``."""
    config = transformers.Deimv2Config(**_classes(_hgnet(), {**_SMALL, **_FINE}))
    return _stretched(lambda: transformers.Deimv2ForObjectDetection(config), folder)


def rt_detr(folder: Path) -> Path:
    """Write an RT-DETR, as ``PekingU/rtdetr_*``."""
    config = transformers.RTDetrConfig(**_classes(_resnet(), _RT))
    return _stretched(lambda: transformers.RTDetrForObjectDetection(config), folder)


def rt_detr_v2(folder: Path, **given: Any) -> Path:
    """Write an RT-DETR v2, as ``PekingU/rtdetr_v2_*``."""
    config = transformers.RTDetrV2Config(**_classes(_resnet(), {**_RT, **given}))
    return _stretched(lambda: transformers.RTDetrV2ForObjectDetection(config), folder)


_RT: dict[str, Any] = {**_SMALL, "encoder_in_channels": [8, 16, 16], "decoder_n_points": 2}


def rf_detr(folder: Path) -> Path:
    """Write an RF-DETR, as ``Roboflow/rf-detr-*``: square, cut into windows."""
    backbone = transformers.RfDetrDinov2Config(
        hidden_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        mlp_ratio=2,
        image_size=SIDE,
        patch_size=8,
        num_windows=2,
        out_features=["stage1", "stage3"],
    )
    small = {
        "d_model": 32,
        "decoder_layers": 2,
        "decoder_ffn_dim": 32,
        "decoder_self_attention_heads": 2,
        "decoder_cross_attention_heads": 2,
        "decoder_n_points": 2,
        "num_queries": 64,
        "group_detr": 2,
        "c2f_num_blocks": 1,
    }
    config = transformers.RfDetrConfig(**_classes(backbone, small))
    size = {"height": SIDE, "width": SIDE}
    return _saved(
        lambda: transformers.RfDetrForObjectDetection(config),
        folder,
        "RfDetrImageProcessor",
        size,
        IMAGENET,
    )


def yolos(folder: Path) -> Path:
    """Write a YOLOS, as ``hustvl/yolos-*``."""
    config = transformers.YolosConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=[SIDE, SIDE + 32],
        num_detection_tokens=12,
        id2label=dict(enumerate(LABELS)),
    )
    return _saved(
        lambda: transformers.YolosForObjectDetection(config),
        folder,
        "YolosImageProcessor",
        {"shortest_edge": SIDE, "longest_edge": SIDE + 32},
        IMAGENET,
    )


def _classes(backbone: PreTrainedConfig, rest: Mapping[str, Any]) -> dict[str, Any]:
    return {"backbone_config": backbone, "id2label": dict(enumerate(LABELS)), **rest}


def _hgnet() -> PreTrainedConfig:
    return transformers.HGNetV2Config(
        embedding_size=16,
        depths=[1, 1, 1, 1],
        hidden_sizes=[16, 16, 16, 16],
        stem_channels=[3, 8, 8],
        stage_in_channels=[8, 16, 16, 16],
        stage_mid_channels=[8, 8, 8, 8],
        stage_out_channels=[16, 16, 16, 16],
        stage_num_blocks=[1, 1, 1, 1],
        stage_numb_of_layers=[2, 2, 2, 2],
        out_indices=[2, 3, 4],
    )


def _resnet() -> PreTrainedConfig:
    return transformers.RTDetrResNetConfig(
        embedding_size=8,
        hidden_sizes=[8, 8, 16, 16],
        depths=[1, 1, 1, 1],
        layer_type="basic",
        out_features=["stage2", "stage3", "stage4"],
    )


def grounding_dino(folder: Path) -> Path:
    """Write a Grounding DINO, as ``IDEA-Research/grounding-dino-*``."""
    config = transformers.GroundingDinoConfig(**_grounded())
    return _grounder(lambda: transformers.GroundingDinoForObjectDetection(config), folder)


def mm_grounding_dino(folder: Path) -> Path:
    """Write an MM Grounding DINO, as ``openmmlab-community/mm_grounding_dino_*``."""
    config = transformers.MMGroundingDinoConfig(**_grounded())
    return _grounder(lambda: transformers.MMGroundingDinoForObjectDetection(config), folder)


def _grounded() -> dict[str, Any]:
    return {
        "backbone_config": transformers.SwinConfig(
            embed_dim=8,
            depths=[1, 1, 1],
            num_heads=[1, 2, 2],
            window_size=4,
            image_size=SIDE,
            out_indices=[1, 2, 3],
        ),
        "text_config": transformers.BertConfig(
            vocab_size=len(_bert_vocabulary()),
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=32,
            max_position_embeddings=64,
        ),
        "d_model": 32,
        "encoder_layers": 2,
        "encoder_ffn_dim": 32,
        "encoder_attention_heads": 4,
        "decoder_layers": 2,
        "decoder_ffn_dim": 32,
        "decoder_attention_heads": 4,
        "encoder_n_points": 2,
        "decoder_n_points": 2,
        "num_queries": 40,
        "max_text_len": 32,
    }


def _grounder(build: Callable[[], PreTrainedModel], folder: Path) -> Path:
    size = {"shortest_edge": SIDE, "longest_edge": SIDE + 32}
    _saved(build, folder, "GroundingDinoImageProcessor", size, IMAGENET)
    transformers.BertTokenizer(vocab=_bert_vocabulary()).save_pretrained(folder)
    return folder


def _bert_vocabulary() -> dict[str, int]:
    """Return BERT's vocabulary as far as marks go: transformers knows those by their numbers."""
    tokens = [f"[unused{i}]" for i in range(1030)]
    tokens[0] = "[PAD]"
    tokens[100:104] = ["[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = [chr(ord("a") + i) for i in range(26)]
    words = ["traffic", "cone", "road", "work", "sign", *letters, *(f"##{one}" for one in letters)]
    tokens[200 : 200 + len(words)] = words
    tokens[1012], tokens[1029] = ".", "?"
    return {token: i for i, token in enumerate(tokens)}


def owlv2(folder: Path) -> Path:
    """Write an OWLv2, as ``google/owlv2-*``."""
    vocabulary = byte_vocabulary("!!", endings="</w>")
    for token in ("<|startoftext|>", "<|endoftext|>"):
        vocabulary[token] = len(vocabulary)
    text = {
        "vocab_size": len(vocabulary),
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "bos_token_id": vocabulary["<|startoftext|>"],
        "eos_token_id": vocabulary["<|endoftext|>"],
        "max_position_embeddings": 24,
    }
    vision = {
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": SIDE,
        "patch_size": 16,
    }
    config = transformers.Owlv2Config(text_config=text, vision_config=vision, projection_dim=32)
    _saved(
        lambda: transformers.Owlv2ForObjectDetection(config),
        folder,
        "Owlv2ImageProcessor",
        {"height": SIDE, "width": SIDE},
        {**CLIP, "do_pad": True},
    )
    tokenizer = transformers.CLIPTokenizer(
        vocab=vocabulary, merges=[], pad_token="!", model_max_length=24
    )
    tokenizer.save_pretrained(folder)
    return folder


def _stretched(build: Callable[[], PreTrainedModel], folder: Path) -> Path:
    size = {"height": SIDE, "width": SIDE}
    return _saved(build, folder, "RTDetrImageProcessor", size, {"do_normalize": False})


def _saved(
    build: Callable[[], PreTrainedModel],
    folder: Path,
    processor: str,
    size: Mapping[str, int],
    fields: Mapping[str, Any],
) -> Path:
    seeded(build, spread=SPREAD).save_pretrained(folder)
    write_preprocessor(folder, processor, size, **fields)
    return folder
