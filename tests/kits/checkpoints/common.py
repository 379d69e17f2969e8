"""What the fixtures of tiny checkpoints share: seeded weights, files in their format, tokenizers.

A fixture writes a folder as a hub has it: ``config.json``, ``preprocessor_config.json``, the
tokenizer's files and ``model.safetensors``. Its weights are random, from a fixed seed.
"""

import json
import string
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

M = TypeVar("M", bound=nn.Module)

IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
CLIP = {
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}
HALVES = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}


def seeded(build: Callable[[], M], seed: int = 0, spread: float | None = None) -> M:
    """Return the module that ``build`` makes, in eval mode, with weights drawn from ``seed``.

    Args:
        build: Makes the module.
        seed: Of the generator; the caller's own is left as it was.
        spread: Standard deviation that matrices and kernels get anew. What libraries initialise
            with (0.02 or less) makes tiny models nearly blind: all pictures score alike.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = build()
        if spread is not None:
            with torch.no_grad():
                for parameter in module.parameters():
                    if parameter.ndim > 1:
                        parameter.normal_(0.0, spread)
    module.eval()
    return module


def write_json(path: Path, value: object) -> None:
    """Write a JSON file as the hub's are."""
    path.write_text(json.dumps(value, indent=2) + "\n")


def write_preprocessor(folder: Path, kind: str, size: Mapping[str, int], **fields: Any) -> None:
    """Write ``preprocessor_config.json`` of an image processor.

    Args:
        folder: Of the checkpoint.
        kind: ``image_processor_type``.
        size: Its ``size``.
        fields: The rest, such as mean and std.
    """
    settings = {
        "image_processor_type": kind,
        "do_resize": True,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "size": dict(size),
    }
    write_json(folder / "preprocessor_config.json", {**settings, **fields})


def byte_symbols() -> list[str]:
    """Return the 256 symbols that byte-level BPE (GPT-2 and its heirs) writes bytes as."""
    keep = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [byte for byte in range(256) if byte not in keep]
    return [chr(byte) for byte in keep] + [chr(256 + i) for i in range(len(rest))]


def byte_vocabulary(*special: str, endings: str = "") -> dict[str, int]:
    """Return a byte-level BPE vocabulary without merges: every text is spelt, none is unknown.

    Args:
        special: Tokens that come first, in order.
        endings: Also have each symbol with this ending; CLIP's tokenizer wants ``</w>``.
    """
    symbols = byte_symbols()
    tokens = [*special, *symbols, *([symbol + endings for symbol in symbols] if endings else [])]
    return {token: i for i, token in enumerate(tokens)}


def piece_vocabulary(*special: str) -> dict[str, int]:
    """Return a sentence-piece vocabulary of single characters with byte fallback (Gemma, Llama)."""
    pieces = ["\u2581", *string.ascii_letters, *string.digits, *string.punctuation]
    fallback = [f"<0x{byte:02X}>" for byte in range(256)]
    return {token: i for i, token in enumerate([*special, *fallback, *pieces])}


def word_vocabulary(*words: str) -> dict[str, int]:
    """Return a WordPiece vocabulary (BERT): these words, and single characters for the others."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = [*string.ascii_lowercase, *string.digits, *string.punctuation]
    tokens = [*special, *letters, *(f"##{letter}" for letter in letters), *words]
    return {token: i for i, token in enumerate(dict.fromkeys(tokens))}
