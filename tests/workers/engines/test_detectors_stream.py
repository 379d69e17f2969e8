"""Detectors at work in the stream, from picture files to answers with boxes."""

from pathlib import Path

import pytest

from roadstream.schemas.cascade.loading import load_cascade
from roadstream.schemas.cascade.model import Cascade
from roadstream.stages.decoding.decode import decode, encode_jpeg
from roadstream.stages.inference import Picture, Pictures, Score
from roadstream.workers.engines.options import EngineOptions
from roadstream.workers.engines.registry import build_engine
from tests.kits.checkpoints import detectors
from tests.kits.stream_kit import answers_of
from tests.kits.torch_kit import pictures

CLOSED = ["d_fine", "deimv2", "rf_detr", "rt_detr_v2", "yolos"]
TOLD = ["grounding_dino", "mm_grounding_dino", "owlv2"]
MEMBER = """
[[tiers.members]]
name = "{name}"
engine = "torch"
model = "{name}"
width = 64
height = 64
settings = {{ {settings}, min_confidence = 0.01, max_boxes = 5, device = "cpu" }}
"""
COUNT = 4


@pytest.fixture
def cascade(tmp_path: Path) -> Cascade:
    """Write a cascade with a member of each architecture, and load it."""
    tiers = {
        "classes": (CLOSED, 'roadwork = ["traffic cone", "machinery vehicle"]'),
        "texts": (TOLD, 'prompts = ["traffic cone", "road work sign"]'),
    }
    lines = ['name = "detectors"\n']
    for tier, (names, settings) in tiers.items():
        lines.append(f'[[tiers]]\nname = "{tier}"\nmax_batch = 3\n')
        for name in names:
            getattr(detectors, name)(tmp_path / name)
            lines.append(MEMBER.format(name=name, settings=settings))
    path = tmp_path / "detectors.toml"
    path.write_text("".join(lines))
    return load_cascade(str(path))


async def test_every_detector_votes_with_score_and_boxes(cascade: Cascade) -> None:
    files = {f"{i}": encode_jpeg(one.pixels) for i, one in enumerate(pictures(COUNT))}

    answers = await answers_of(cascade, files)

    assert {answer.status for answer in answers.values()} == {"answered"}
    for member in (member for tier in cascade.tiers for member in tier.members):
        engine = build_engine(cascade, member, EngineOptions())
        engine.load()
        for name, data in files.items():
            (vote,) = [one for one in answers[name].votes if one.member == member.name]
            pixels = decode(data, min_width=member.width, min_height=member.height)
            (alone,) = engine.infer(Pictures([Picture(pixels)]))
            assert isinstance(alone, Score)
            assert vote.raw == pytest.approx(alone.raw, abs=1e-3), member.name
            assert [box.label for box in vote.boxes] == [box.label for box in alone.boxes]
            for box in vote.boxes:
                assert all(0 <= side <= 1 for side in (box.x1, box.y1, box.x2, box.y2))
        engine.close()
        assert any(
            one.boxes
            for answer in answers.values()
            for one in answer.votes
            if one.member == member.name
        ), member.name
