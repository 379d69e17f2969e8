"""Detections for the fusion benchmark, and weighted boxes fusion in plain numpy for comparison."""

import numpy as np

from roadstream.stages.voting.fusion_arrays import Detections, Reals

LABELS = 3
SCENES = ("agreeing", "scattered")


def detections(scene: str, images: int, detectors: int, boxes: int, seed: int) -> Detections:
    """Return what detectors find in pictures, ``boxes`` each.

    Args:
        scene: ``agreeing``: all see the same objects, each a little beside them. ``scattered``: all
            see others, so that hardly two boxes are one: the most work there can be.
        images: Pictures.
        detectors: Detectors; all of them answer.
        boxes: Boxes of each detector in each picture.
        seed: Of the random numbers.
    """
    rng = np.random.default_rng(seed)
    shape = (images, detectors if scene == "scattered" else 1, boxes, 2)
    middle, size = rng.uniform(0.1, 0.9, shape), rng.uniform(0.03, 0.2, shape)
    labels = rng.integers(0, LABELS, shape[:3])
    whole = (images, detectors, boxes, 2)
    half = size * np.exp(rng.normal(0, 0.05, whole)) / 2
    shifted = middle + rng.normal(0, 0.05, whole) * size
    count = images * detectors * boxes
    return Detections(
        np.concatenate([shifted - half, shifted + half], axis=3).clip(0, 1).reshape(count, 4),
        rng.uniform(0.05, 1.0, count),
        np.broadcast_to(labels, whole[:3]).flatten(),
        np.tile(np.arange(detectors).repeat(boxes), images),
        np.arange(images + 1) * detectors * boxes,
        np.ones((images, detectors), np.bool_),
    )


def fuse_in_numpy(found: Detections, weights: Reals, iou: float) -> tuple[Reals, Reals]:
    """Fuse all images at once, one box of each per step; return sums of areas and confidences.

    For images of equally many good boxes, all detectors present, confidence ``avg``. The loop over
    boxes cannot go: where a box belongs depends on the boxes before it.

    Returns:
        Per image the sum of the fused boxes' areas and of their confidences, float64 [N].
    """
    images = found.offsets.size - 1
    size = found.scores.size // images
    key = (found.scores * weights[found.detectors]).reshape(images, size)
    rows, order = np.arange(images), np.argsort(-key, axis=1)
    key = np.take_along_axis(key, order, 1)
    labels = np.take_along_axis(found.labels.reshape(images, size), order, 1)
    boxes = np.take_along_axis(found.boxes.reshape(images, size, 4), order[:, :, None], 1)
    sides, sums = np.zeros((4, images, size)), np.zeros((4, images, size))
    area, score = np.zeros((images, size)), np.zeros((images, size))
    members, label = np.zeros((images, size), np.int64), np.full((images, size), -1)
    count = np.zeros(images, np.int64)
    for j in range(size):
        x1, y1, x2, y2 = boxes[:, j].T[:, :, None]
        used = slice(0, max(1, int(count.max())))
        left, top, right, bottom = sides[:, :, used]
        shared = np.maximum(np.minimum(right, x2) - np.maximum(left, x1), 0)
        shared *= np.maximum(np.minimum(bottom, y2) - np.maximum(top, y1), 0)
        overlap = shared / (area[:, used] + (x2 - x1) * (y2 - y1) - shared)
        overlap[label[:, used] != labels[:, j, None]] = -1
        best = overlap.argmax(axis=1)
        hit = overlap[rows, best] > iou
        at = (rows, np.where(hit, best, count))
        count += ~hit
        score[at] += key[:, j]
        members[at] += 1
        label[at] = labels[:, j]
        for side in range(4):
            sums[side][at] += key[:, j] * boxes[:, j, side]
            sides[side][at] = sums[side][at] / score[at]
        area[at] = (sides[2][at] - sides[0][at]) * (sides[3][at] - sides[1][at])
    agreed = np.minimum(members, weights.size) / np.maximum(members, 1)
    return area.sum(axis=1), (score * agreed).sum(axis=1) / weights.sum()
