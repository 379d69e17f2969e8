"""Torch members at work in the stream: from picture files to answers, through two tiers."""

from pathlib import Path

import pytest
from msgspec.structs import replace

from roadstream.schemas.cascade.loading import load_cascade
from roadstream.schemas.records.answer import Answer
from roadstream.stages.decoding.decode import decode, encode_jpeg
from roadstream.stages.inference import Picture, Pictures, Score
from roadstream.workers.engines.options import EngineOptions
from roadstream.workers.engines.registry import build_engine
from tests.kits.checkpoints import backbones
from tests.kits.stream_kit import answers_of
from tests.kits.torch_kit import pictures

CASCADE = """
name = "torch"
[[tiers]]
name = "look"
max_batch = 4
[[tiers.members]]
name = "dino"
engine = "torch"
model = "dino"
width = 96
height = 64
settings = { head = "one.safetensors", device = "cpu" }
[[tiers.members]]
name = "dino-blocks"
engine = "torch"
model = "dino"
width = 96
height = 64
settings = { head = "two.safetensors", layers = [1, 2], device = "cpu", precision = "float32" }
[[tiers.members]]
name = "convnext"
engine = "torch"
model = "convnext"
width = 64
height = 64
settings = { head = "one.safetensors", device = "cpu", precision = "bfloat16" }
[[tiers.routes]]
min_confidence = 0.5
to = "exit"
[[tiers]]
name = "think"
max_batch = 2
[[tiers.members]]
name = "siglip"
engine = "torch"
model = "siglip"
width = 64
height = 64
settings = { prompts = ["road work"], other_prompts = ["a road"], device = "cpu" }
[[tiers.members]]
name = "vit"
engine = "torch"
model = "vit"
width = 64
height = 64
settings = { roadwork = ["cones", "barrier"], device = "cpu" }
[[tiers.members]]
name = "timm"
engine = "torch"
model = "timm"
width = 96
height = 64
settings = { roadwork = ["cones"], device = "cpu", buckets = [2] }
"""
COUNT = 12


@pytest.fixture
def cascade_file(tmp_path: Path) -> Path:
    """Write a cascade with a member of each family that votes on whole pictures."""
    backbones.dinov3_vit(tmp_path / "dino")
    backbones.dinov3_convnext(tmp_path / "convnext")
    backbones.siglip2(tmp_path / "siglip")
    backbones.classifier(tmp_path / "vit")
    backbones.timm_model(tmp_path / "timm", "test_convnext", backbones.CLASSES)
    for name, width in (("one", 32), ("two", 64)):
        shapes = {"linear.weight": [1, width], "linear.bias": [1]}
        backbones.head(tmp_path / f"{name}.safetensors", shapes)
    path = tmp_path / "torch.toml"
    path.write_text(CASCADE)
    return path


def expected_raws(path: Path, member: str, files: dict[str, bytes]) -> dict[str, float]:
    """Return what a member gives for each picture alone, outside the stream."""
    cascade = load_cascade(str(path))
    tier, found = next((t, m) for t in cascade.tiers for m in t.members if m.name == member)
    engine = build_engine(cascade, found, EngineOptions())
    engine.load()
    # As a tier decodes: for its largest member.
    width, height = max(m.width for m in tier.members), max(m.height for m in tier.members)
    raws: dict[str, float] = {}
    for name, data in files.items():
        pixels = decode(data, min_width=width, min_height=height)
        (score,) = engine.infer(Pictures([Picture(pixels)]))
        assert isinstance(score, Score)
        raws[name] = score.raw
    engine.close()
    return raws


def raw_votes(answer: Answer) -> dict[str, float | None]:
    return {vote.member: vote.raw for vote in answer.votes}


async def test_a_cascade_of_torch_members_answers_every_picture(cascade_file: Path) -> None:
    files = {f"{i}": encode_jpeg(one.pixels) for i, one in enumerate(pictures(COUNT))}
    cascade = load_cascade(str(cascade_file))

    answers = await answers_of(cascade, {**files, "broken": b"no picture"})

    broken = answers.pop("broken")
    assert (broken.status, (broken.error or "").partition(":")[0]) == ("failed", "not_an_image")
    assert {answer.status for answer in answers.values()} == {"answered"}
    assert {answer.exit_tier for answer in answers.values()} == {"look", "think"}
    for tier in cascade.tiers:
        for member in tier.members:
            expected = expected_raws(cascade_file, member.name, files)
            for name, answer in answers.items():
                if (raw := raw_votes(answer).get(member.name)) is not None:
                    assert raw == pytest.approx(expected[name], abs=1e-3), member.name
    thought = [answer for answer in answers.values() if answer.exit_tier == "think"]
    assert all(len(raw_votes(answer)) == 6 for answer in thought)


def test_another_head_makes_another_cascade(cascade_file: Path) -> None:
    before = load_cascade(str(cascade_file))
    backbones.head(
        cascade_file.parent / "one.safetensors",
        {"linear.weight": [1, 32], "linear.bias": [1]},
        seed=1,
    )

    after = load_cascade(str(cascade_file))

    assert after.hash != before.hash
    assert replace(after, hash=before.hash, snapshot=before.snapshot) == before
