"""SAM 3 behind a detector, by the real command: what one tier found is an example to the next."""

from pathlib import Path

import numpy as np
import pytest

from roadstream.schemas.cascade.loading import load_cascade
from roadstream.schemas.errors import ConfigError
from roadstream.schemas.records.votes import Box, Evidence
from roadstream.sinks.files.readers import read_answers
from roadstream.stages.decoding.decode import decode, encode_jpeg
from roadstream.stages.inference import Picture, Pictures
from roadstream.workers.engines.options import EngineOptions
from roadstream.workers.engines.torch.engine import TorchEngine
from tests.kits.checkpoints import detectors, others
from tests.kits.command import here
from tests.kits.torch_kit import engine_of, pictures, raws

CASCADE = """
name = "exemplars"
[[tiers]]
name = "find"
[[tiers.members]]
name = "detector"
engine = "torch"
model = "detector"
width = 64
height = 64
settings = { roadwork = ["traffic cone"], min_confidence = 0.01, max_boxes = 4, device = "cpu" }
[[tiers]]
name = "confirm"
[[tiers.members]]
name = "sam"
engine = "torch"
model = "sam"
width = 56
height = 56
settings = { evidence = ["boxes"], prompts = ["cone", "sign"], device = "cpu" }
"""
COUNT = 4
pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with a cascade, its checkpoints and pictures."""
    detectors.d_fine(tmp_path / "detector")
    others.sam3(tmp_path / "sam")
    (tmp_path / "drive").mkdir()
    for i, one in enumerate(pictures(COUNT)):
        (tmp_path / f"drive/{i}.jpg").write_bytes(encode_jpeg(one.pixels))
    (tmp_path / "c.toml").write_text(CASCADE)
    return tmp_path


def test_the_detectors_boxes_are_examples_to_sam(folder: Path) -> None:
    done = here("score", "drive", "--cascade", "c.toml", "--out", "a.jsonl", folder=folder)

    assert done.returncode == 0, done.stderr
    cascade = load_cascade(str(folder / "c.toml"))
    sam = TorchEngine(cascade, cascade.tiers[1].members[0], EngineOptions())
    sam.load()
    plain, told = [], []
    answers = list(read_answers(folder / "a.jsonl"))
    for answer in answers:
        votes = {vote["member"]: vote for vote in answer["votes"]}
        found = [Box(**box) for box in votes["detector"]["boxes"]]
        pixels = decode((folder / answer["uri"]).read_bytes(), min_width=56, min_height=56)
        alone = Picture(pixels, evidence=Evidence(found))
        told.append(votes["sam"]["raw"] or 0.0)
        assert raws(sam, Pictures([alone])) == pytest.approx([told[-1]], abs=1e-3)
        plain += raws(sam, Pictures([Picture(pixels)]))
    assert len(answers) == COUNT
    assert np.abs(np.subtract(plain, told)).max() > 0.05


def test_a_family_that_can_do_nothing_with_them_is_refused(tmp_path: Path) -> None:
    detectors.d_fine(tmp_path / "model")

    with pytest.raises(ConfigError, match=r"settings\.evidence: expected none .*, got boxes"):
        engine_of(tmp_path, roadwork=["car"], evidence=["boxes"]).load()
