"""Detectors that are told in words, or by example, what to find: as their own library does it."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import (
    AutoImageProcessor,
    AutoModelForZeroShotObjectDetection,
    AutoTokenizer,
    GroundingDinoProcessor,
    Owlv2ForObjectDetection,
    Owlv2Processor,
)
from transformers.models.grounding_dino.modeling_grounding_dino import (
    generate_masks_with_special_tokens_and_transfer_map as library_masks,
)

from roadstream.schemas.errors import ConfigError
from roadstream.schemas.records.votes import Box
from roadstream.stages.decoding.decode import decode, encode_jpeg
from roadstream.stages.inference import Picture, Pictures, Score
from roadstream.workers.engines.torch.families.grounding import Grounder, Phrases
from tests.kits.checkpoints import detectors
from tests.kits.checkpoints.detectors import SIDE
from tests.kits.torch_kit import engine_of, pictures, raws

PROMPTS = ["traffic cone", "Road work sign"]
TEXT = "traffic cone. road work sign."
GROUNDERS = ["grounding_dino", "mm_grounding_dino"]
SIZE = (96, 64)
LEAST = 1e-4


def at_size(size: tuple[int, int] = SIZE, count: int = 3) -> Pictures:
    """Return pictures that have the member's size already, so that nothing is resized."""
    return Pictures([Picture(one.at(*size)) for one in pictures(count)])


def processed(folder: Path, batch: Pictures) -> Tensor:
    """Return pixels as the checkpoint's own image processor prepares them."""
    processor: Any = AutoImageProcessor.from_pretrained(folder)
    resize = {} if "Owl" in type(processor).__name__ else {"do_resize": False}
    found: Tensor = processor(
        images=[one.pixels for one in batch], return_tensors="pt", **resize
    ).pixel_values
    return found


def numbers(box: Box) -> list[float]:
    return [box.x1, box.y1, box.x2, box.y2, box.confidence]


def in_order(found: dict[str, Any], across: float = 1.0, down: float = 1.0) -> list[list[float]]:
    """Return corners and score of what the library found in the picture, strongest first."""
    share = torch.tensor([across, down, across, down])
    told = [
        [*(box / share).clamp(0, 1).tolist(), float(score)]
        for box, score in zip(found["boxes"], found["scores"], strict=True)
    ]
    return sorted(
        (one for one in told if one[0] < one[2] and one[1] < one[3]), key=lambda one: -one[4]
    )


def assert_same(mine: object, theirs: list[list[float]]) -> None:
    assert isinstance(mine, Score)
    assert len(mine.boxes) == len(theirs) >= 4
    for box, expected in zip(mine.boxes, theirs, strict=True):
        assert numbers(box) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("name", GROUNDERS)
@torch.inference_mode()
def test_the_network_without_its_text_encoder_is_that_of_the_library(
    tmp_path: Path, name: str
) -> None:
    folder = getattr(detectors, name)(tmp_path / "model")
    model: Any = AutoModelForZeroShotObjectDetection.from_pretrained(folder).eval()
    tokens = AutoTokenizer.from_pretrained(folder)(TEXT, return_tensors="pt")["input_ids"]
    pixels = processed(folder, at_size())
    expected = model(pixel_values=pixels, input_ids=tokens.expand(len(pixels), -1))

    # With the library's own masks and positions.
    seen, positions = library_masks(tokens)
    logits, boxes = Grounder(model, tokens, seen, positions).eval()(pixels)

    assert torch.allclose(boxes, expected.pred_boxes, atol=1e-5)
    assert torch.allclose(logits, expected.logits[..., : tokens.shape[1]], atol=1e-4)
    assert not hasattr(model.model, "text_backbone")


def test_tokens_see_their_own_text_and_are_counted_in_it() -> None:
    start, end, mark, question = 101, 102, 1012, 1029
    found = Phrases.of([start, 7, 8, mark, 9, question, end], {mark, question})

    # As IDEA-Research/GroundingDINO counts: marks come after their text's words.
    assert found.positions == [0, 0, 1, 2, 0, 1, 0]
    assert found.spans == [(1, 3), (4, 5)]
    blocks = [0, 1, 1, 1, 2, 2, 3]
    assert found.seen == [[a == b for b in blocks] for a in blocks]


@pytest.mark.parametrize("name", GROUNDERS)
@torch.inference_mode()
def test_grounded_scores_and_boxes_are_those_of_the_library(tmp_path: Path, name: str) -> None:
    folder = getattr(detectors, name)(tmp_path / "model")
    engine = engine_of(tmp_path, size=SIZE, prompts=PROMPTS, min_confidence=LEAST, max_boxes=100)
    engine.load()
    batch = at_size()

    found = engine.infer(batch)

    module: Any = engine.model.backbone.module
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokens = tokenizer(TEXT, return_tensors="pt")["input_ids"]
    # The last bit of a pixel changes these log-odds by up to 2e-3, depending on the processor's
    # kernels: their own error against double precision is 8e-4. So both see the very same pixels.
    own = engine.model.family.normalised(torch.from_numpy(np.stack([b.pixels for b in batch])))
    assert torch.allclose(own, processed(folder, batch), rtol=0, atol=1e-6)
    logits, boxes = module(own)
    # Of marks and the tokenizer's own tokens the library's score does not tell what was found.
    logits[..., torch.isin(tokens[0], torch.tensor([101, 102, 1012]))] = -torch.inf
    outputs = SimpleNamespace(logits=logits, pred_boxes=boxes, input_ids=tokens.expand(3, -1))
    processor = GroundingDinoProcessor(AutoImageProcessor.from_pretrained(folder), tokenizer)
    told = processor.post_process_grounded_object_detection(outputs, threshold=LEAST)
    for mine, theirs in zip(found, told, strict=True):
        assert_same(mine, in_order(theirs))
        assert isinstance(mine, Score)
        assert {box.label for box in mine.boxes} <= set(PROMPTS)
    assert raws(engine, batch) == pytest.approx(logits.amax((1, 2)).tolist(), abs=1e-4)
    assert max(raws(engine, batch)) - min(raws(engine, batch)) > 0.05


@pytest.mark.parametrize("name", [*GROUNDERS, "owlv2"])
def test_a_picture_scores_alone_as_it_does_in_a_batch(tmp_path: Path, name: str) -> None:
    getattr(detectors, name)(tmp_path / "model")
    engine = engine_of(tmp_path, size=SIZE, prompts=PROMPTS)
    engine.load()
    batch = at_size()

    alone = [raws(engine, batch[i : i + 1])[0] for i in range(len(batch))]

    assert alone == pytest.approx(raws(engine, batch), abs=1e-3)


@pytest.mark.parametrize("name", ["grounding_dino", "owlv2"])
def test_texts_may_come_from_a_list_of_concepts(tmp_path: Path, name: str) -> None:
    getattr(detectors, name)(tmp_path / "model")
    (tmp_path / "own.toml").write_text(
        f'version = "1"\n[roadwork]\na = ["{PROMPTS[0]}"]\n[other]\nb = ["{PROMPTS[1]}"]\n'
    )
    listed = engine_of(tmp_path, size=SIZE, concepts="own.toml", min_confidence=LEAST)
    listed.load()
    told = engine_of(
        tmp_path, size=SIZE, prompts=PROMPTS[:1], other_prompts=PROMPTS[1:], min_confidence=LEAST
    )
    told.load()

    assert listed.infer(at_size()) == told.infer(at_size())
    assert listed.version == "own@1"
    tagger = engine_of(tmp_path, size=SIZE, prompts=PROMPTS, concepts="weather")
    with pytest.raises(ConfigError, match=r"settings\.tags: .*gives none, got weather, light"):
        tagger.load()


@pytest.mark.parametrize("name", [*GROUNDERS, "owlv2"])
def test_what_suits_another_text_better_counts_less_and_is_not_told(
    tmp_path: Path, name: str
) -> None:
    getattr(detectors, name)(tmp_path / "model")
    engine = engine_of(
        tmp_path, size=SIZE, prompts=PROMPTS[:1], other_prompts=PROMPTS[1:], min_confidence=LEAST
    )
    engine.load()
    swapped = engine_of(
        tmp_path, size=SIZE, prompts=PROMPTS[1:], other_prompts=PROMPTS[:1], min_confidence=LEAST
    )
    swapped.load()
    batch = at_size()

    for mine, other in zip(engine.infer(batch), swapped.infer(batch), strict=True):
        assert isinstance(mine, Score)
        assert isinstance(other, Score)
        assert {box.label for box in mine.boxes} <= {PROMPTS[0]}
        assert {box.label for box in other.boxes} <= {PROMPTS[1]}
        assert mine.boxes or other.boxes
        assert mine.raw != other.raw


@pytest.mark.parametrize("name", [*GROUNDERS, "owlv2"])
def test_half_precision_gives_scores_of_the_same_size(tmp_path: Path, name: str) -> None:
    getattr(detectors, name)(tmp_path / "model")
    full, half = (
        engine_of(tmp_path, size=SIZE, prompts=PROMPTS, precision=precision)
        for precision in ("float32", "bfloat16")
    )
    full.load()
    half.load()

    # Rounding changes the order of places, which queries depend on: in a random network, a lot.
    assert raws(half, at_size()) == pytest.approx(raws(full, at_size()), rel=0.5, abs=0.1)


@pytest.mark.parametrize(
    ("name", "settings", "problem"),
    [
        ("grounding_dino", {}, "prompts: expected texts that mean roadwork, got nothing"),
        ("grounding_dino", {"prompts": ["a. b"]}, r"prompts: expected texts without .* got 'a. b'"),
        ("grounding_dino", {"prompts": ["cones"] * 12}, "prompts: expected at most 32 tokens, got"),
        ("owlv2", {}, "prompts: expected texts that mean roadwork, or examples, got nothing"),
        ("owlv2", {"prompts": ["a" * 30]}, "prompts: expected at most 24 tokens, got 32 in"),
        ("owlv2", {"examples": ["no.jpg"]}, "examples: expected pictures, got no.jpg: .*No such"),
    ],
)
def test_prompts_that_do_not_fit_are_refused(
    tmp_path: Path, name: str, settings: dict[str, Any], problem: str
) -> None:
    getattr(detectors, name)(tmp_path / "model")

    with pytest.raises(ConfigError, match=problem):
        engine_of(tmp_path, size=SIZE, **settings).load()


def test_a_folder_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    folder = detectors.grounding_dino(tmp_path / "model")
    for file in folder.glob("tokenizer*"):
        file.unlink()

    with pytest.raises(ConfigError, match="a folder with a tokenizer"):
        engine_of(tmp_path, size=SIZE, prompts=PROMPTS).load()


# The size of training, one that leaves a strip black, and a larger one.
@pytest.mark.parametrize("size", [(SIDE, SIDE), (SIDE, 48), (40, 96)])
@torch.inference_mode()
def test_owl_scores_and_boxes_are_those_of_the_library(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    folder = detectors.owlv2(tmp_path / "model")
    engine = engine_of(tmp_path, size=size, prompts=PROMPTS, min_confidence=LEAST, max_boxes=100)
    engine.load()
    batch = at_size(size)

    found = engine.infer(batch)

    model: Any = Owlv2ForObjectDetection.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    images: Any = AutoImageProcessor.from_pretrained(folder)
    processor = Owlv2Processor(images, tokenizer)
    side = max(size)
    inputs = processor(
        text=[PROMPTS] * len(batch),
        images=[one.pixels for one in batch],
        size={"height": side, "width": side},
        return_tensors="pt",
    )
    outputs = model(**inputs, interpolate_pos_encoding=True)
    told = processor.post_process_grounded_object_detection(
        outputs,
        threshold=LEAST,
        target_sizes=[size[::-1]] * len(batch),
        text_labels=[PROMPTS] * len(batch),
    )
    for mine, theirs in zip(found, told, strict=True):
        assert_same(mine, in_order(theirs, *size))
    assert raws(engine, batch) == pytest.approx(outputs.logits.amax((1, 2)).tolist(), abs=1e-4)


@torch.inference_mode()
def test_owl_finds_what_looks_like_an_example(tmp_path: Path) -> None:
    folder = detectors.owlv2(tmp_path / "model")
    (shown,) = at_size((SIDE, 40), 1)
    example = tmp_path / "barrel.jpg"
    example.write_bytes(encode_jpeg(shown.pixels, 100))
    engine = engine_of(tmp_path, size=(SIDE, SIDE), examples=["barrel.jpg"], min_confidence=LEAST)
    engine.load()
    batch = at_size((SIDE, SIDE), 2)

    found = engine.infer(batch)

    model: Any = Owlv2ForObjectDetection.from_pretrained(folder).eval()
    pixels = decode(example.read_bytes(), min_width=SIDE, min_height=SIDE)
    query = processed(folder, Pictures([Picture(pixels)]))
    outputs = model.image_guided_detection(
        pixel_values=processed(folder, batch), query_pixel_values=query.expand(2, -1, -1, -1)
    )
    assert raws(engine, batch) == pytest.approx(outputs.logits.amax((1, 2)).tolist(), abs=1e-4)
    assert all(isinstance(one, Score) and one.boxes[0].label == "barrel" for one in found)


def test_members_with_other_texts_share_the_image_tower(tmp_path: Path) -> None:
    detectors.owlv2(tmp_path / "model")
    shared: dict[Any, Any] = {}
    cones, signs = (engine_of(tmp_path, shared=shared, prompts=[one]) for one in PROMPTS)
    cones.load()
    signs.load()
    both = engine_of(tmp_path, prompts=PROMPTS)
    both.load()
    batch = at_size()

    found = [raws(cones, batch), raws(signs, batch)]

    assert cones.model.backbone is signs.model.backbone
    assert not any("text" in name for name, _ in cones.model.backbone.module.named_parameters())
    best = [float(np.max(pair)) for pair in zip(*found, strict=True)]
    assert raws(both, batch) == pytest.approx(best, abs=1e-4)
