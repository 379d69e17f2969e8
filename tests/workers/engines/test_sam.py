"""SAM 3: texts held against pictures, as its own processor and model do it."""

from collections.abc import Hashable
from pathlib import Path
from shutil import copytree
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import AutoConfig, Sam3Model, Sam3Processor

from roadstream.schemas.errors import ConfigError
from roadstream.schemas.records.votes import Box, Evidence
from roadstream.stages.inference import Picture, Pictures, Score
from tests.kits.checkpoints import others
from tests.kits.torch_kit import engine_of, pictures, raws

PROMPTS = ["traffic cone", "road work sign"]
SIZE = (others.SAM_SIDE, others.SAM_SIDE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a checkpoint ``model``, as the hub has it."""
    made = tmp_path_factory.mktemp("sam3")
    others.sam3(made / "model")
    return made


def at_size(size: tuple[int, int] = SIZE, count: int = 3) -> Pictures:
    return Pictures([Picture(one.at(*size)) for one in pictures(count)])


Examples = list[list[list[list[float]]]]


@torch.inference_mode()
def expected(
    folder: Path, batch: Pictures, side: int = others.SAM_SIDE, examples: Examples | None = None
) -> NDArray[np.float64]:
    """Return σ(object)·σ(presence) [N, texts, queries].

    Args:
        folder: The checkpoint.
        batch: The pictures.
        side: Of the network's input.
        examples: Per text and picture the corners of boxes, in pixels.
    """
    config: Any = AutoConfig.from_pretrained(folder)
    config.image_size = side
    model: Any = Sam3Model.from_pretrained(folder, config=config).eval()
    processor = Sam3Processor.from_pretrained(folder)
    likely = []
    for i, prompt in enumerate(PROMPTS):
        shown: Any = {} if examples is None else {"input_boxes": examples[i]}
        inputs = processor(
            images=[one.pixels for one in batch],
            text=[prompt] * len(batch),
            size={"height": side, "width": side},
            return_tensors="pt",
            **shown,
        )
        known = ("pixel_values", "input_ids", "attention_mask", "input_boxes", "input_boxes_labels")
        found = model(**{name: inputs[name] for name in known if name in inputs})
        likely.append(found.pred_logits.sigmoid() * found.presence_logits.sigmoid())
    stacked: NDArray[np.float64] = torch.stack(likely, 1).double().numpy()
    return stacked


def test_the_score_is_that_of_the_likeliest_object_of_any_prompt(folder: Path) -> None:
    engine = engine_of(folder, size=SIZE, prompts=PROMPTS, min_confidence=0.01)
    engine.load()

    found = engine.infer(at_size())

    likely = expected(folder / "model", at_size())
    best = likely.max(axis=(1, 2))
    scores = [one for one in found if isinstance(one, Score)]
    assert [one.raw for one in scores] == pytest.approx(np.log(best / (1 - best)), abs=1e-3)
    assert max(best) - min(best) > 0.01
    for one, row in zip(scores, likely, strict=True):
        strongest = sorted(row.flatten(), reverse=True)[: len(one.boxes)]
        assert [box.confidence for box in one.boxes] == pytest.approx(strongest, abs=1e-4)
        assert {box.label for box in one.boxes} <= set(PROMPTS)
        assert all(0 <= side <= 1 for box in one.boxes for side in (box.x1, box.y1, box.x2, box.y2))
    assert any(one.boxes for one in scores)


def test_of_a_list_of_concepts_it_takes_what_means_roadwork(folder: Path) -> None:
    told = "".join(f"{i} = ['{prompt}']\n" for i, prompt in enumerate(PROMPTS))
    (folder / "own.toml").write_text(f"version = '1'\n[roadwork]\n{told}[other]\nb = ['road']\n")
    listed = engine_of(folder, size=SIZE, concepts="own.toml", min_confidence=0.01)
    listed.load()
    by_hand = engine_of(folder, size=SIZE, prompts=PROMPTS, min_confidence=0.01)
    by_hand.load()

    assert listed.infer(at_size()) == by_hand.infer(at_size())


def test_the_image_model_without_its_tracker(tmp_path: Path) -> None:
    others.sam3(tmp_path / "model", video=False)
    engine = engine_of(tmp_path, size=SIZE, prompts=PROMPTS)
    engine.load()

    found = raws(engine, at_size())

    best = expected(tmp_path / "model", at_size()).max(axis=(1, 2))
    assert found == pytest.approx(np.log(best / (1 - best)), abs=1e-3)


def test_another_input_size_than_that_of_training(folder: Path) -> None:
    side = 2 * others.SAM_SIDE
    engine = engine_of(folder, size=(side, side), prompts=PROMPTS)
    engine.load()

    found = raws(engine, at_size((side, side)))

    best = expected(folder / "model", at_size((side, side)), side).max(axis=(1, 2))
    assert found == pytest.approx(np.log(best / (1 - best)), abs=1e-3)


def test_half_precision_gives_nearly_the_same(folder: Path) -> None:
    whole = engine_of(folder, size=SIZE, prompts=PROMPTS)
    half = engine_of(folder, size=SIZE, prompts=PROMPTS, precision="bfloat16")
    whole.load()
    half.load()

    assert raws(half, at_size()) == pytest.approx(raws(whole, at_size()), abs=0.5)


def test_the_text_tower_and_the_masks_are_dropped(folder: Path) -> None:
    engine = engine_of(folder, size=SIZE, prompts=PROMPTS)
    engine.load()

    parts = {name.partition(".")[0] for name, _ in engine.model.backbone.module.named_parameters()}

    assert "vision_encoder" in parts
    assert not parts & {"text_encoder", "mask_decoder"}


@pytest.mark.parametrize(
    ("settings", "size", "said"),
    [
        ({}, SIZE, "settings.prompts: expected texts that mean roadwork, got nothing"),
        ({"prompts": PROMPTS, "other_prompts": ["road"]}, SIZE, "settings.other_prompts: expected"),
        ({"prompts": PROMPTS}, (84, 56), "width and height to be equal, got 84 × 56"),
        ({"prompts": ["cone " * 20]}, SIZE, "at most 32 tokens each, got"),
        ({"prompts": PROMPTS}, (50, 50), "width and height in steps of 14, got 50 × 50"),
    ],
)
def test_what_does_not_fit_is_said_at_once(
    folder: Path, settings: dict[str, Any], size: tuple[int, int], said: str
) -> None:
    with pytest.raises(ConfigError) as error:
        engine_of(folder, size=size, **settings).load()

    assert said in str(error.value)


def test_a_checkpoint_without_a_tokenizer(folder: Path, tmp_path: Path) -> None:
    copytree(folder / "model", tmp_path / "model")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "model" / name).unlink()

    with pytest.raises(ConfigError, match="a folder with a tokenizer"):
        engine_of(tmp_path, size=SIZE, prompts=PROMPTS).load()


CONE = Box(0.25, 0.5, 0.5, 0.75, 0.9, "Cone")
SIGN = Box(0.0, 0.25, 0.5, 0.5, 0.8, "road work")
TRUCK = Box(0.5, 0.0, 1.0, 0.5, 0.95, "truck")


def shown(*evidence: list[Box]) -> Pictures:
    """Return as many pictures, of which earlier tiers found so much."""
    batch = at_size(count=len(evidence))
    return Pictures(
        [
            Picture(one.pixels, evidence=Evidence(boxes))
            for one, boxes in zip(batch, evidence, strict=True)
        ]
    )


def best_of(likely: NDArray[np.float64]) -> NDArray[np.float64]:
    best = likely.max(axis=(1, 2))
    odds: NDArray[np.float64] = np.log(best / (1 - best))
    return odds


def corners(*boxes: Box) -> list[list[float]]:
    return [[others.SAM_SIDE * side for side in (b.x1, b.y1, b.x2, b.y2)] for b in boxes]


def told(folder: Path, **settings: Any) -> Any:
    engine = engine_of(folder, size=SIZE, prompts=PROMPTS, evidence=["boxes"], **settings)
    engine.load()
    return engine


def test_boxes_of_earlier_tiers_are_examples_of_the_prompt_that_they_fit(folder: Path) -> None:
    found = raws(told(folder), shown([CONE, SIGN, TRUCK], [CONE, SIGN]))

    examples = [[corners(CONE)] * 2, [corners(SIGN)] * 2]
    batch = at_size(count=2)
    assert found == pytest.approx(
        best_of(expected(folder / "model", batch, examples=examples)), abs=1e-3
    )
    assert min(abs(found - best_of(expected(folder / "model", batch)))) > 1e-2


def test_pictures_of_one_batch_have_examples_of_their_own(folder: Path) -> None:
    unnamed = Box(0.1, 0.1, 0.4, 0.9, 0.7)  # an example of whatever is looked for
    engine = told(folder)

    together = raws(engine, shown([CONE, unnamed], [], [SIGN]))

    assert together[2:] == pytest.approx(raws(engine, shown([], [], [SIGN])[2:]), abs=1e-4)
    both = [[corners(CONE, unnamed)], [corners(unnamed)]]
    first = best_of(expected(folder / "model", at_size()[:1], examples=both))
    assert together[:1] == pytest.approx(first, abs=1e-3)


@pytest.mark.parametrize("neighbour", [[], [CONE, SIGN]])
def test_a_picture_without_boxes_is_judged_by_text_alone(
    folder: Path, neighbour: list[Box]
) -> None:
    plain = engine_of(folder, size=SIZE, prompts=PROMPTS)
    plain.load()

    found = raws(told(folder), shown([], neighbour, [TRUCK]))

    assert [found[0], found[2]] == pytest.approx(raws(plain, at_size())[::2], abs=1e-5)


def test_only_so_many_sure_boxes_inside_of_the_picture_are_examples(folder: Path) -> None:
    outside = Box(1.5, 0.2, 1.8, 0.4, 0.99, "cone")
    flat = Box(0.2, 0.3, 0.2, 0.6, 0.98, "cone")
    over = Box(-0.5, 0.5, 0.5, 1.5, 0.97, "cone")
    unsure = Box(0.5, 0.5, 0.9, 0.9, 0.59, "cone")
    engine = told(folder, max_exemplars=1, min_exemplar_confidence=0.6)

    assert raws(engine, shown([outside, flat, over, CONE, unsure])) == pytest.approx(
        raws(engine, shown([Box(0.0, 0.5, 0.5, 1.0, 0.97, "cone")])), abs=1e-5
    )
    assert raws(engine, shown([outside, flat, unsure])) == pytest.approx(
        raws(engine, shown([])), abs=1e-5
    )


def test_a_network_is_shared_by_who_gives_it_the_same_examples(folder: Path) -> None:
    shared: dict[Hashable, Any] = {}
    engines = [
        engine_of(folder, size=SIZE, shared=shared, prompts=PROMPTS, **settings)
        for settings in ({}, {"evidence": ["boxes"]}, {"evidence": ["boxes"], "max_boxes": 2})
    ]
    for engine in engines:
        engine.load()
    plain, first, second = (engine.model.backbone for engine in engines)
    batch = shown([CONE])

    assert first is second
    assert first is not plain
    assert raws(engines[1], batch) == raws(engines[2], batch)
    assert raws(engines[0], batch) != raws(engines[1], batch)


def test_examples_in_half_precision_give_nearly_the_same(folder: Path) -> None:
    whole, half = told(folder), told(folder, precision="bfloat16")
    batch = shown([CONE, SIGN], [SIGN])

    assert raws(half, batch) == pytest.approx(raws(whole, batch), abs=0.5)


def test_only_boxes_can_be_shown_to_it(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"settings\.evidence: expected boxes for .*, got tags"):
        engine_of(folder, size=SIZE, prompts=PROMPTS, evidence=["tags", "boxes"]).load()
