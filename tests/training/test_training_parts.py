"""Parts of training whose faults no figure would show: targets, geometry, boxes, verdicts."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray

from tests.training.roads import WHOLE
from training.corpus import KINDS, Box, Picture
from training.export import fold_pads
from training.features import Stored, Views
from training.fit import make_targets
from training.members import SIGHTS, Looker, Sight
from training.network import Eyes, Found, Neck, Trunk
from training.platt import Reals
from training.verdict import LEAST, cross_fitted, fit_verdict, parts_of
from training.views import HEIGHT, WIDTH, Window, boxes_in, paste

CONE, WORKER = KINDS.index("cone"), KINDS.index("worker")


def views_of(*boxes: tuple[float, ...], complete: bool = True, label: int = 1) -> Views:
    """One view of 128 x 64 pixels."""
    levels = Stored(*(np.zeros((1, 64 // s, 128 // s, 1), np.float16) for s in (8, 16, 32)))
    rows = np.array(boxes, np.float32).reshape(-1, 5)
    return Views(levels, [rows], np.array([label], np.int8), np.array([complete]), [frozenset()])


def test_a_box_is_a_peak_of_its_kind_with_distances_to_its_sides() -> None:
    targets = make_targets(views_of((CONE, 40, 16, 56, 48)), [0])

    peak = (targets.heat[0] == 1).nonzero().tolist()
    assert peak == [[CONE, 3, 5]]
    left, top, right, bottom = targets.sides[0, :, 3, 5].tolist()
    assert (left, top, right, bottom) == (4.0, 12.0, 12.0, 20.0)
    assert targets.inside[0, 3, 5] == 1.0
    assert targets.cells[0, 1:3, 2:4].eq(1).all()
    assert targets.cells[0, :, 5:].eq(0).all()
    assert targets.care.eq(1).all()


def test_what_is_neither_taught_nor_denied_is_left_out_but_for_what_stands_before_it() -> None:
    targets = make_targets(views_of((-1, 0, 0, 128, 64), (CONE, 40, 16, 56, 48)), [0])

    assert targets.care[0, 0, 7, 15] == 0
    assert targets.care[0, 0, 3, 5] == 1
    assert targets.cells[0, 0, 7] == -1
    assert targets.cells[0, 1, 2] == 1


def test_a_view_that_may_hold_more_teaches_its_boxes_alone() -> None:
    targets = make_targets(views_of((CONE, 40, 16, 56, 48), complete=False), [0])

    assert targets.care[0, 0, 3, 5] == 1
    assert targets.care[0, 0, 0, 15] == 0
    assert targets.cells[0, 0, 7] == -1


def picture(*boxes: Box) -> Picture:
    return Picture("positives/a__b.jpg", 1, "g", "r", "l", (), boxes)


def test_boxes_follow_the_window_and_those_cut_off_are_not_taught() -> None:
    window = Window(0.5, 0.5, 0.25, 0.5)
    inside, cut = Box("cone", 0.5, 0.75, 0.625, 1.0), Box("worker", 0.7, 0.6, 0.95, 0.9)
    outside, other = Box("drum", 0.0, 0.0, 0.4, 0.4), Box("other", 0.5, 0.5, 0.6, 0.6)

    found = boxes_in(picture(inside, cut, outside, other), window)

    width, height = WIDTH, HEIGHT
    assert found[:, 0].tolist() == [CONE, -1, -1]
    assert found[0, 1:].tolist() == [0, height / 2, width / 2, height]
    assert found[1, 3] == width


def test_what_is_pasted_changes_its_box_alone_and_larger_things_stand_lower() -> None:
    piece = np.full((60, 30, 4), 255, np.uint8)
    bottoms = []
    for high in (12.0, 60.0):
        canvas = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
        place = paste(canvas, piece, "cone", WHOLE, np.random.default_rng(3), high)
        assert place is not None
        x1, y1, x2, y2 = place.astype(int)
        assert (canvas[y1:y2, x1:x2] == 255).all()
        assert canvas.astype(bool).any(2).sum() == (x2 - x1) * (y2 - y1)
        bottoms.append(y2)
    assert bottoms[0] < bottoms[1]


@pytest.mark.parametrize("sight", [each for each in SIGHTS if each.finds], ids=lambda s: s.name)
def test_places_are_boxes_of_the_whole_picture_also_in_a_band(sight: Sight) -> None:
    top, bottom = sight.rows
    high, wide = (bottom - top) // 8, sight.width // 8
    heat = torch.full((1, len(KINDS), high, wide), -9.0)
    heat[0, WORKER, 10, 20], heat[0, WORKER, 10, 21] = 4.0, 3.0
    heat[0, CONE, 30, 40] = 2.0
    sides = torch.tensor([8.0, 16.0, 24.0, 32.0])[None, :, None, None].expand(1, 4, high, wide)
    found = Found(heat, sides, torch.zeros(1, high // 2, wide // 2))
    looker = Looker(Eyes(Trunk(), Neck()), sight, torch.ones(len(KINDS) + 1), 0.0)

    boxes, scores, kinds = looker.places(found)

    size = torch.tensor([sight.width, sight.height] * 2)
    assert kinds[0, :2].tolist() == [WORKER, CONE]
    assert scores[0, :2].tolist() == pytest.approx(torch.sigmoid(torch.tensor([4.0, 2.0])).tolist())
    pixels = (boxes[0, :2] * size).tolist()
    assert pixels[0] == pytest.approx([156, top + 68, 188, top + 116], abs=0.01)
    assert pixels[1] == pytest.approx([316, top + 228, 348, top + 276], abs=0.01)


def evidence_of(count: int = 200) -> tuple[Reals, Reals]:
    """What tells, what lies, and noise."""
    rng = np.random.default_rng(5)
    labels = (rng.random(count) < 0.5).astype(np.float64)
    told, lied = 3 * labels + rng.normal(0, 1, count), -3 * labels + rng.normal(0, 1, count)
    return np.stack([told, lied, rng.normal(0, 1, count)], 1), labels


def test_what_tells_weighs_more_and_nothing_weighs_less_than_the_least() -> None:
    evidence, labels = evidence_of()

    verdict = fit_verdict(evidence, labels, np.ones(len(labels)))

    assert (verdict.weights >= LEAST).all()
    assert verdict.weights[0] > 3 * verdict.weights[1] == pytest.approx(3 * LEAST)


def test_scenes_are_never_judged_by_weights_fitted_on_them() -> None:
    evidence, labels = evidence_of()
    groups = [f"scene{row // 10}" for row in range(len(labels))]
    parts = parts_of(groups)
    part = parts == parts[0]
    before = cross_fitted(evidence, labels, np.ones(len(labels)), parts)

    after = cross_fitted(evidence, np.where(part, 1 - labels, labels), np.ones(len(labels)), parts)

    assert all(len(set(parts[row : row + 10])) == 1 for row in range(0, len(parts), 10))
    assert (after[part] == before[part]).all()
    assert not (after[~part] == before[~part]).any()


def test_convolutions_that_pad_by_themselves_say_the_same(tmp_path: Path) -> None:
    weight = np.random.default_rng(1).normal(size=(2, 3, 3, 3)).astype(np.float32)
    model = _padded(weight)
    pictures = np.random.default_rng(2).normal(size=(1, 3, 8, 8)).astype(np.float32)
    before = _run(model, pictures)

    fold_pads(model)

    assert [node.op_type for node in model.graph.node] == ["Conv"]
    np.testing.assert_allclose(_run(model, pictures), before, rtol=1e-5)


def _padded(weight: NDArray[np.float32]) -> onnx.ModelProto:
    """A convolution of stride 2 after a pad of one row below and one column to the right."""
    pads = np.array([0, 0, 0, 0, 0, 0, 1, 1], np.int64)
    nodes = [
        onnx.helper.make_node("Pad", ["x", "pads"], ["padded"]),
        onnx.helper.make_node("Conv", ["padded", "weight"], ["y"], strides=[2, 2]),
    ]
    kinds = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
        for name, shape in (("x", [1, 3, 8, 8]), ("y", [1, 2, 4, 4]))
    ]
    known = [
        onnx.numpy_helper.from_array(pads, "pads"),
        onnx.numpy_helper.from_array(weight, "weight"),
    ]
    graph = onnx.helper.make_graph(nodes, "padded", kinds[:1], kinds[1:], known)
    return onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9
    )


def _run(model: onnx.ModelProto, pictures: NDArray[np.float32]) -> NDArray[np.float32]:
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return np.asarray(session.run(None, {"x": pictures})[0])
