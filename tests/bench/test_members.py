"""The benchmark of members runs them, and its detector is of the size it is to have."""

import numpy as np
import onnxruntime as ort
import pytest

from roadstream.bench.models import members
from roadstream.bench.models.nano_detector import KINDS, SIDE, Detector
from roadstream.schemas.cascade.model import Member
from roadstream.stages.decoding.decode import encode_jpeg
from tests.kits.builders import cascade, tier


def test_the_nano_detector_is_as_large_as_the_usual_one() -> None:
    detector = Detector()
    session = ort.InferenceSession(detector.model(), providers=["CPUExecutionProvider"])

    (found,) = session.run(None, {"images": np.zeros((1, SIDE, SIDE, 3), np.uint8)})

    assert found.shape == (1, 64 + KINDS, 80**2 + 40**2 + 20**2)
    assert detector.weights == pytest.approx(2.6e6, rel=0.1)
    assert detector.multiply_adds == pytest.approx(3.2e9, rel=0.1)


def test_every_member_is_measured_beside_its_decoding() -> None:
    cones = Member(name="cones", engine="cones", width=48, height=27)
    runs = members.planned(cascade(tier("rules", cones)))
    picture = encode_jpeg(np.full((90, 160, 3), 127, np.uint8))

    found = members.measure(runs, [picture], rounds=2)

    assert [*found] == [
        "rules: decode for 48×27",
        "rules/cones: resize to 48×27",
        "rules/cones: cones",
    ]
    assert all(took.runs == 2 and 0 < took.lower_quartile <= took.median for took in found.values())
