"""Members for tests that run a real vLLM on a tiny Qwen3-VL, and what transformers says of it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from msgspec import convert
from msgspec.structs import replace
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from roadstream.schemas.cascade.model import Cascade, Member
from roadstream.schemas.settings.prompts import Prompt, load_prompt
from roadstream.schemas.settings.vllm import VllmSettings
from roadstream.stages.inference import Picture, Pictures, Pixels, Score
from tests.kits.builders import cascade, tier

SIZE = (160, 96)
"""Width and height: fifteen visual tokens."""
SMALL: dict[str, Any] = {
    "dtype": "float32",
    "enforce_eager": True,
    "kv_cache_memory_bytes": 64 << 20,
    "max_model_len": 4096,
    "max_num_batched_tokens": 4096,
    "limit_mm_per_prompt": {"image": {"count": 3, "width": 160, "height": 96}, "video": 0},
}
"""An engine that starts fast, the same for every member so that they share it."""


def vllm_member(name: str, model: Path, **settings: Any) -> Member:
    """Return a member that asks the checkpoint in ``model``."""
    width, height = SIZE
    return Member(
        name=name,
        engine="vllm",
        model=str(model),
        width=width,
        height=height,
        settings=convert(SMALL | settings, VllmSettings),
    )


def asked_by(*members: Member) -> Cascade:
    """Return a cascade of one tier."""
    return replace(cascade(tier("one", *members)), folder="/")


def pixels(count: int) -> list[Pixels]:
    """Return pictures of ``SIZE`` that differ: noise, each brighter than the last."""
    width, height = SIZE
    noise = np.random.default_rng(0).integers(0, 255, (count, height, width, 3), np.uint8)
    levels = np.linspace(0.1, 1.0, count)
    return [(one * level).astype(np.uint8) for one, level in zip(noise, levels, strict=True)]


def pictures(count: int) -> Pictures:
    """Return a batch of them."""
    return Pictures([Picture(one) for one in pixels(count)])


def raws(found: Sequence[object]) -> list[float]:
    """Return raw scores; everything must be one."""
    assert all(isinstance(one, Score) for one in found), found
    return [one.raw for one in found if isinstance(one, Score)]


class Reference:
    """The same model asked the same by transformers.

    Args:
        model: Folder of the checkpoint.
    """

    def __init__(self, model: Path) -> None:
        self._processor: Any = AutoProcessor.from_pretrained(model)
        self._model: Any = AutoModelForImageTextToText.from_pretrained(
            model, dtype=torch.float32
        ).eval()
        vocabulary = self._processor.tokenizer.get_vocab()
        self._sides = [
            [
                number
                for token, number in vocabulary.items()
                if token.strip("\u0120").lower() == word
            ]
            for word in ("yes", "no")
        ]

    def raw(
        self, *shown: Pixels, prompt: Prompt | None = None, said: str = "", **template: Any
    ) -> float:
        """Return log p(yes) − log p(no) of the token after the prompt and what was ``said``."""
        asked = prompt or load_prompt("active-roadwork", "/", "here")
        images = [{"type": "image", "image": Image.fromarray(one)} for one in shown]
        text = {"type": "text", "text": asked.question(len(shown))}
        chat = [
            {"role": "system", "content": [{"type": "text", "text": asked.system}]},
            {"role": "user", "content": [text, *images]},
        ]
        begun = self._processor.apply_chat_template(chat, add_generation_prompt=True, **template)
        inputs = self._processor(
            text=[begun + said], images=[one["image"] for one in images], return_tensors="pt"
        )
        with torch.inference_mode():
            logprobs = self._model(**inputs.to(torch.float32)).logits[0, -1].log_softmax(-1)
        yes, no = (logprobs[numbers].logsumexp(0) for numbers in self._sides)
        return float(yes - no)
