"""Small vision-language models in transformers: YES or NO by the next token's probabilities."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

from roadstream.schemas.errors import ConfigError
from roadstream.schemas.settings.prompts import load_prompt
from roadstream.stages.inference import Abstained, Picture, Pictures
from roadstream.workers.engines.torch.families.vlm import messages
from tests.kits.checkpoints import others
from tests.kits.checkpoints.qwen3_vl import write_qwen3_vl
from tests.kits.torch_kit import engine_of, pictures, raws

PROMPT = "active-roadwork"
SIZE = (96, 64)
Write = Callable[[Path], Path]
WRITERS: dict[str, Write] = {"qwen3-vl": write_qwen3_vl, "internvl": others.internvl}


def at_size(count: int = 3) -> Pictures:
    return Pictures([Picture(one.at(*SIZE)) for one in pictures(count)])


@torch.inference_mode()
def expected(folder: Path, batch: Pictures) -> list[float]:
    """Return log p(yes) − log p(no) as the library itself gives it, one picture at a time."""
    model: Any = AutoModelForImageTextToText.from_pretrained(folder).eval()
    processor: Any = AutoProcessor.from_pretrained(folder)
    vocabulary = processor.tokenizer.get_vocab()
    sides = [
        [number for token, number in vocabulary.items() if token.strip("\u0120").lower() == word]
        for word in ("yes", "no")
    ]
    asked = messages(load_prompt(PROMPT, "", "here"))
    text = processor.apply_chat_template(asked, add_generation_prompt=True)
    odds = []
    for one in batch:
        inputs = processor(text=[text], images=[one.pixels], return_tensors="pt")
        logits = model(**inputs).logits[0, -1]
        yes, no = (logits[numbers].logsumexp(0) for numbers in sides)
        odds.append(float(yes - no))
    return odds


@pytest.mark.parametrize("kind", WRITERS)
def test_the_score_is_that_of_the_library(tmp_path: Path, kind: str) -> None:
    WRITERS[kind](tmp_path / "model")
    engine = engine_of(tmp_path, size=SIZE, prompt=PROMPT, max_leak=1.0)
    engine.load()

    found = raws(engine, at_size())

    assert found == pytest.approx(expected(tmp_path / "model", at_size()), abs=1e-3)
    assert max(found) - min(found) > 0.01


def test_it_abstains_where_the_answer_is_neither(tmp_path: Path) -> None:
    write_qwen3_vl(tmp_path / "model")
    engine = engine_of(
        tmp_path, size=SIZE, prompt=PROMPT, max_leak=0.2, template={"mode": "mumble"}
    )
    engine.load()

    found = engine.infer(at_size())

    assert all(isinstance(one, Abstained) and "neither yes nor no" in one.reason for one in found)


def test_it_answers_within_the_leak_that_is_let_pass(tmp_path: Path) -> None:
    write_qwen3_vl(tmp_path / "model")
    engine = engine_of(tmp_path, size=SIZE, prompt=PROMPT, max_leak=0.2)
    engine.load()

    assert len(raws(engine, at_size())) == 3


def test_half_precision_gives_nearly_the_same(tmp_path: Path) -> None:
    write_qwen3_vl(tmp_path / "model")
    whole = engine_of(tmp_path, size=SIZE, prompt=PROMPT)
    half = engine_of(tmp_path, size=SIZE, prompt=PROMPT, precision="bfloat16")
    whole.load()
    half.load()

    assert raws(half, at_size()) == pytest.approx(raws(whole, at_size()), abs=0.5)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "settings.prompt: expected a prompt, such as active-roadwork, got nothing"),
        ({"prompt": "no-such"}, "settings.prompt: expected a prompt file or one of"),
        ({"prompt": PROMPT, "compile": True}, "settings.compile: expected false, as its shapes"),
    ],
)
def test_what_does_not_fit_is_said_at_once(
    tmp_path: Path, settings: dict[str, Any], said: str
) -> None:
    write_qwen3_vl(tmp_path / "model")

    with pytest.raises(ConfigError) as error:
        engine_of(tmp_path, size=SIZE, **settings).load()

    assert said in str(error.value)


def test_a_checkpoint_without_a_chat_template(tmp_path: Path) -> None:
    folder = others.internvl(tmp_path / "model")
    (folder / "chat_template.jinja").unlink()

    with pytest.raises(ConfigError, match="a processor with a chat template"):
        engine_of(tmp_path, size=SIZE, prompt=PROMPT).load()
