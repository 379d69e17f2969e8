"""The fusion benchmark compares what it says it compares."""

import numpy as np
import pytest

from roadstream.bench.parts import fusion
from roadstream.bench.parts.fusion_scenes import SCENES, detections, fuse_in_numpy
from roadstream.schemas.records.votes import Box

pytestmark = pytest.mark.usefixtures("compiled_fusion")


@pytest.mark.parametrize("scene", SCENES)
def test_the_product_gives_what_the_package_gives(scene: str) -> None:
    largest = fusion.difference(scene, detectors=4, boxes=6, images=20)

    assert set(largest) == set(fusion.CONFIDENCES)
    assert max(largest.values()) < 1e-6


@pytest.mark.parametrize("scene", SCENES)
def test_all_contenders_do_the_same_work(scene: str) -> None:
    found = detections(scene, images=9, detectors=4, boxes=6, seed=3)
    product = fusion.fusion(4)

    areas, scores = fuse_in_numpy(found, np.array(fusion.weights(4)), fusion.IOU)

    for image, boxes in enumerate(product.fuse(fusion.records(found))):
        assert sum(box.confidence for box in boxes) == pytest.approx(scores[image])
        assert sum(map(area, boxes)) == pytest.approx(areas[image])
    whole = product.fuse_arrays(found)
    part = product.fuse_arrays(fusion.part(found, 2, 5))
    np.testing.assert_array_equal(part.scores, whole.scores[whole.offsets[2] : whole.offsets[5]])


def area(box: Box) -> float:
    return (box.x2 - box.x1) * (box.y2 - box.y1)


@pytest.mark.parametrize("contender", fusion.IMAGES)
def test_every_contender_runs(contender: str) -> None:
    fusion.work(fusion.Case(contender, "agreeing", 3, 4), images=3)()
