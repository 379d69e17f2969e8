"""SAM 3, depth, Florence-2 and small VLMs at work in the stream, from picture files to answers."""

from itertools import pairwise
from pathlib import Path

import pytest

from roadstream.schemas.cascade.loading import load_cascade
from roadstream.schemas.cascade.model import Cascade, Member
from roadstream.schemas.records.answer import Answer
from roadstream.stages.decoding.decode import decode, encode_jpeg
from roadstream.stages.inference import Abstained, Picture, Pictures, Score
from roadstream.workers.engines.options import EngineOptions
from roadstream.workers.engines.registry import build_engine
from tests.kits.checkpoints import others
from tests.kits.checkpoints.qwen3_vl import write_qwen3_vl
from tests.kits.stream_kit import answers_of
from tests.kits.torch_kit import pictures

CASCADE = """
name = "others"
[[tiers]]
name = "look"
max_batch = 4
[[tiers.members]]
name = "sam"
engine = "torch"
model = "sam"
width = 56
height = 56
settings = { prompts = ["traffic cone", "road work sign"], min_confidence = 0.01, device = "cpu" }
[[tiers.members]]
name = "metres"
engine = "torch"
model = "depth-anything"
width = 84
height = 56
settings = { device = "cpu" }
[[tiers.members]]
name = "focal"
engine = "torch"
model = "depth-pro"
width = 128
height = 128
settings = { device = "cpu" }
[[tiers]]
name = "read"
max_batch = 2
[[tiers.members]]
name = "signs"
engine = "torch"
model = "signs"
width = 64
height = 64
settings = { max_tokens = 16, device = "cpu" }
[[tiers.members]]
name = "nothing-said"
engine = "torch"
model = "nothing-said"
width = 64
height = 64
settings = { max_tokens = 16, device = "cpu" }
[[tiers.members]]
name = "qwen"
engine = "torch"
model = "qwen"
width = 96
height = 64
settings = { prompt = "active-roadwork", device = "cpu" }
[[tiers.members]]
name = "internvl"
engine = "torch"
model = "internvl"
width = 56
height = 56
settings = { prompt = "active-roadwork", max_leak = 1.0, device = "cpu" }
"""
COUNT = 6


@pytest.fixture
def cascade(tmp_path: Path) -> Cascade:
    """Write a cascade with a member of each of these families, and load it."""
    others.sam3(tmp_path / "sam")
    others.depth_anything(tmp_path / "depth-anything")
    others.depth_pro(tmp_path / "depth-pro")
    signs = ["<s>", "END", "\u0120ROAD", "\u0120WORK", "</s>"]
    others.florence2(tmp_path / "signs", dict(pairwise(signs)))
    others.florence2(tmp_path / "nothing-said", {"<s>": "</s>"})
    write_qwen3_vl(tmp_path / "qwen")
    others.internvl(tmp_path / "internvl")
    path = tmp_path / "others.toml"
    path.write_text(CASCADE)
    return load_cascade(str(path))


def alone(cascade: Cascade, member: Member, data: bytes) -> tuple[float | None, str]:
    """Return what a member says of a picture alone, outside the stream: its score and its text."""
    [tier] = [tier for tier in cascade.tiers if member in tier.members]
    # As a tier decodes: for its largest member.
    sides = [(one.width, one.height) for one in tier.members]
    width, height = (max(side[i] for side in sides) for i in (0, 1))
    engine = build_engine(cascade, member, EngineOptions())
    engine.load()
    pixels = decode(data, min_width=width, min_height=height)
    [said] = engine.infer(Pictures([Picture(pixels)]))
    engine.close()
    if isinstance(said, Score):
        return said.raw, said.text
    assert isinstance(said, Abstained)
    return None, said.reason


def said_in(answer: Answer) -> dict[str, tuple[float | None, str]]:
    """Return the score and the text of each member's run, as the record has them."""
    return {
        run.member: (raw, text)
        for tier in answer.tiers
        for run, raw, text in zip(tier.runs, tier.raw, tier.texts or (), strict=True)
    }


async def test_every_family_votes_or_says_why_not(cascade: Cascade) -> None:
    files = {f"{i}": encode_jpeg(one.pixels) for i, one in enumerate(pictures(COUNT))}

    answers = await answers_of(cascade, files)

    assert {answer.status for answer in answers.values()} == {"answered"}
    for name, answer in answers.items():
        told = said_in(answer)
        assert len(told) == 7
        for member in (member for tier in cascade.tiers for member in tier.members):
            raw, text = alone(cascade, member, files[name])
            found, said = told[member.name]
            assert found == pytest.approx(raw, abs=1e-3), member.name
            assert said == text, member.name
        raw, text = told["signs"]
        assert (raw or 0.0) < 0
        assert text == "END ROAD WORK"
        assert told["nothing-said"] == (None, "no text was read")
        assert told["metres"][1].startswith("depth alone is no evidence")
        assert "focal length" in told["focal"][1]
        assert {vote.member for vote in answer.votes} == {"sam", "signs", "qwen", "internvl"}
    assert any(vote.boxes for answer in answers.values() for vote in answer.votes)
