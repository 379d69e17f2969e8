"""Florence-2 reads what its own generation writes, and its words decide."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Florence2ForConditionalGeneration, Florence2Processor

from roadstream.schemas.errors import ConfigError
from roadstream.schemas.records.votes import Box
from roadstream.stages.inference import Abstained, Picture, Pictures, Score
from roadstream.stages.rules.signs import Region
from roadstream.workers.engines.torch.families.florence import TASK, regions
from tests.kits.checkpoints import others
from tests.kits.torch_kit import engine_of, pictures

SIZE = (others.FLORENCE_SIDE, others.FLORENCE_SIDE)
TOKENS = 24
BLANK = "\u0120"


def at_size(count: int = 3) -> Pictures:
    return Pictures([Picture(one.at(*SIZE)) for one in pictures(count)])


def follows(*tokens: str) -> dict[str, str]:
    """Return a text as what follows what: begun, written, ended."""
    whole = ["<s>", *tokens, "</s>"]
    return dict(pairwise(whole))


def infer(folder: Path, **settings: Any) -> Any:
    engine = engine_of(folder, size=SIZE, max_tokens=TOKENS, **settings)
    engine.load()
    return engine.infer(at_size())


@torch.inference_mode()
def written(folder: Path) -> list[str]:
    """Return what the library itself writes, greedily, region by region."""
    model: Any = Florence2ForConditionalGeneration.from_pretrained(folder).eval()
    processor: Any = Florence2Processor.from_pretrained(folder)
    batch = at_size()
    inputs = processor(
        text=[TASK] * len(batch), images=[one.pixels for one in batch], return_tensors="pt"
    )
    ids = model.generate(**inputs, max_new_tokens=TOKENS, num_beams=1, early_stopping=False)
    texts: list[str] = processor.batch_decode(ids, skip_special_tokens=True)
    return [" ".join(region.text for region in regions(text, 1.0)) for text in texts]


def test_it_reads_what_the_library_writes(tmp_path: Path) -> None:
    others.florence2(tmp_path / "model")

    found = infer(tmp_path)

    expected = written(tmp_path / "model")
    assert len(set(expected)) > 1
    said = [
        one.reason.partition(": ")[2] if isinstance(one, Abstained) else one.text for one in found
    ]
    assert said == [text.strip() for text in expected]


def test_a_sign_of_roadwork_counts_for_it(tmp_path: Path) -> None:
    corners = [f"<loc_{step}>" for step in (100, 101, 501, 102, 502, 302, 103, 303)]
    others.florence2(tmp_path / "model", follows("ROAD", BLANK + "WORK", *corners))

    found = infer(tmp_path)

    for one in found:
        assert isinstance(one, Score)
        assert one.text == "ROAD WORK"
        assert one.raw > 1.0
        [box] = one.boxes
        assert (box.x1, box.y1, box.x2, box.y2) == pytest.approx(
            (0.1001, 0.1011, 0.5025, 0.3033), abs=1e-3
        )
        assert box.label == "ROAD WORK"
        assert 0.5 < box.confidence < 1.0


def test_the_end_of_a_zone_counts_against_it(tmp_path: Path) -> None:
    others.florence2(tmp_path / "model", follows("END", BLANK + "ROAD", BLANK + "WORK"))

    assert [one.raw < -1.0 and one.text for one in infer(tmp_path)] == ["END ROAD WORK"] * 3


def test_signs_of_other_things_give_no_vote(tmp_path: Path) -> None:
    others.florence2(tmp_path / "model", follows("SPEED", BLANK + "LIMIT"))

    found = infer(tmp_path)

    assert found == [Abstained("read, but of no roadwork: SPEED LIMIT", {"signs": "other"})] * 3


def test_nothing_written_is_no_vote(tmp_path: Path) -> None:
    others.florence2(tmp_path / "model", follows())

    assert infer(tmp_path) == [Abstained("no text was read", {"signs": "none"})] * 3


def test_a_member_names_the_texts_that_count(tmp_path: Path) -> None:
    others.florence2(tmp_path / "model", follows("SPEED", BLANK + "LIMIT"))

    found = infer(tmp_path, signs_for=["speed limit"], signs_against=[], sign_odds=2.0)

    assert [one.text for one in found] == ["SPEED LIMIT"] * 3
    assert all(1.0 < one.raw < 2.0 for one in found)


def test_members_with_other_texts_share_what_was_read(tmp_path: Path) -> None:
    others.florence2(tmp_path / "model", follows("SPEED", BLANK + "LIMIT"))
    shared: dict[Any, Any] = {}
    given: dict[str, Any] = {"size": SIZE, "shared": shared, "max_tokens": TOKENS}
    first = engine_of(tmp_path, **given)
    second = engine_of(tmp_path, signs_for=["speed limit"], **given)
    first.load()
    second.load()
    batch = at_size()

    found, others_found = first.infer(batch), second.infer(batch)

    assert first.model.backbone is second.model.backbone
    assert all(isinstance(one, Abstained) for one in found)
    assert all(isinstance(one, Score) for one in others_found)


@pytest.mark.parametrize(
    ("settings", "size", "said"),
    [
        ({"compile": True}, SIZE, "settings.compile: expected false, as text is written"),
        ({}, (128, 64), "width and height of {'height': 64, 'width': 64}, got 128 × 64"),
    ],
)
def test_what_does_not_fit_is_said_at_once(
    tmp_path: Path, settings: dict[str, Any], size: tuple[int, int], said: str
) -> None:
    others.florence2(tmp_path / "model")

    with pytest.raises(ConfigError) as error:
        engine_of(tmp_path, size=size, **settings).load()

    assert said in str(error.value)


def test_regions_are_parted_by_their_places() -> None:
    corners = "<loc_0><loc_0><loc_999><loc_0><loc_999><loc_999><loc_0><loc_999>"

    found = regions(f"</s><s>ROAD CLOSED{corners}{corners}AHEAD{corners}<loc_1>LEFT<loc_2>", 0.5)

    assert found == [
        Region("ROAD CLOSED", Box(0.0, 0.0, 1.0, 1.0, 0.5, "ROAD CLOSED")),
        Region("AHEAD", Box(0.0, 0.0, 1.0, 1.0, 0.5, "AHEAD")),
        Region("LEFT"),
    ]


def test_text_without_places_is_one_region() -> None:
    assert regions("<s>ROAD WORK<loc_3>", 0.5) == [Region("ROAD WORK")]
