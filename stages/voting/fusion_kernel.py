"""The inner loop of box fusion, in machine code; the only module that knows numba.

Its first call compiles, or loads what an earlier process compiled: seconds the first time, a
fraction of one after. So it is imported where a cascade asks for fusion, and never on an event
loop. Compiled code runs without the interpreter's lock.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numba
import numpy as np

from roadstream.stages.voting.fusion_arrays import Detections, Flags, Fused, Reals, Rules, Wholes

# Less confidence than this is none: sums of it would lose their digits.
_NOTHING = 1e-100
# Positions in ``CONFIDENCES``; else: aware of absent models.
_AVG, _MAX, _BOX_AND_MODEL = 0, 1, 2
# Where a count begins that is given to others: numba compiles those for a literal 0, and again.
_ZERO = np.int64(0)


def _compiled(function: Callable[..., Any]) -> Any:
    """Compile on first call, and keep the machine code on disk if there is a place for it."""
    try:
        return numba.njit(cache=True, nogil=True, error_model="numpy")(function)
    except RuntimeError:  # neither this folder nor the user's cache can be written
        return numba.njit(nogil=True, error_model="numpy")(function)


class _Rows(NamedTuple):
    """Boxes of one image: sides x1, y1, x2, y2 [4, n], and per box what it weighs."""

    sides: Reals
    area: Reals
    key: Reals
    weight: Reals
    label: Wholes
    detector: Wholes


class _Clusters(NamedTuple):
    """Clusters of one image: their rows, as they look, and the sums that they are made of."""

    rows: _Rows
    sums: Reals
    scores: Reals
    weights: Reals
    highest: Reals
    sizes: Wholes
    seen: Flags
    inter: Reals


def _make_rows(size: int) -> _Rows:
    return _Rows(
        np.empty((4, size)),
        np.empty(size),
        np.empty(size),
        np.empty(size),
        np.empty(size, np.int64),
        np.empty(size, np.int64),
    )


make_rows = _compiled(_make_rows)


def _make_clusters(size: int, detectors: int) -> _Clusters:
    return _Clusters(
        make_rows(size),
        np.empty((4, size)),
        np.empty(size),
        np.empty(size),
        np.empty(size),
        np.empty(size, np.int64),
        np.empty((size, detectors), np.bool_),
        np.empty(size),
    )


make_clusters = _compiled(_make_clusters)


def _gather(found: Detections, rules: Rules, image: int, rows: _Rows) -> int:
    """Copy the boxes of an image that can be used, brought into the picture; return how many."""
    count = 0
    for row in range(found.offsets[image], found.offsets[image + 1]):
        detector, score = found.detectors[row], found.scores[row]
        x1, y1 = found.boxes[row, 0], found.boxes[row, 1]
        x2, y2 = found.boxes[row, 2], found.boxes[row, 3]
        finite = np.isfinite(x1) and np.isfinite(y1) and np.isfinite(x2) and np.isfinite(y2)
        if not finite or not found.looked[image, detector]:
            continue
        key = min(1.0, score) * rules.weights[detector]
        if not np.isfinite(score) or score < rules.skip or key < _NOTHING:
            continue
        left, right = max(0.0, min(x1, x2)), min(1.0, max(x1, x2))
        top, bottom = max(0.0, min(y1, y2)), min(1.0, max(y1, y2))
        area = (right - left) * (bottom - top)
        if right <= left or area <= 0.0:
            continue
        rows.sides[0, count], rows.sides[1, count] = left, top
        rows.sides[2, count], rows.sides[3, count] = right, bottom
        rows.area[count] = area
        rows.weight[count] = rules.weights[detector]
        rows.key[count] = key
        rows.label[count], rows.detector[count] = found.labels[row], detector
        count += 1
    return count


gather = _compiled(_gather)


def _precedes(rows: _Rows, a: int, b: int) -> bool:
    """Tell whether ``a`` comes first: by key, downwards, then by place, label and weight."""
    if rows.key[a] != rows.key[b]:
        return bool(rows.key[a] > rows.key[b])
    for side in range(4):
        if rows.sides[side, a] != rows.sides[side, b]:
            return bool(rows.sides[side, a] < rows.sides[side, b])
    if rows.label[a] != rows.label[b]:
        return bool(rows.label[a] < rows.label[b])
    return bool(rows.weight[a] < rows.weight[b])


precedes = _compiled(_precedes)


def _in_order(rows: _Rows, count: int) -> Wholes:
    """Return the rows in an order that does not depend on how they came."""
    order = np.argsort(-rows.key[:count])
    for i in range(1, count):  # in order already, but for equal keys
        row, j = order[i], i
        while j > 0 and precedes(rows, row, order[j - 1]):
            order[j] = order[j - 1]
            j -= 1
        order[j] = row
    return order


in_order = _compiled(_in_order)


def _match(rows: _Rows, row: int, clusters: _Clusters, span: tuple[int, int], iou: float) -> int:
    """Return the cluster of a span that the box overlaps most, by more than ``iou``, or -1."""
    best, found = iou, -1
    x1, y1, x2, y2 = rows.sides[0, row], rows.sides[1, row], rows.sides[2, row], rows.sides[3, row]
    area, sides, inter = rows.area[row], clusters.rows.sides, clusters.inter
    left, top, right, bottom = sides[0], sides[1], sides[2], sides[3]
    # Without branches and divisions, so that the compiler takes several clusters at once.
    for c in range(span[0], span[1]):
        width = min(right[c], x2) - max(left[c], x1)
        height = min(bottom[c], y2) - max(top[c], y1)
        inter[c] = max(width, 0.0) * max(height, 0.0)
    # What overlaps by more than ``iou`` shares at least that much of the box; less for rounding.
    least = iou * area * (1.0 - 1e-9)
    for c in range(span[0], span[1]):
        if inter[c] > least:
            overlap = inter[c] / (clusters.rows.area[c] + area - inter[c])
            if overlap > best:
                best, found = overlap, c
    return found


match = _compiled(_match)


def _begin(clusters: _Clusters, c: int, rows: _Rows, row: int) -> None:
    """Make a cluster of one box."""
    for side in range(4):
        clusters.rows.sides[side, c] = rows.sides[side, row]
        clusters.sums[side, c] = rows.key[row] * rows.sides[side, row]
    clusters.rows.area[c], clusters.rows.label[c] = rows.area[row], rows.label[row]
    clusters.scores[c] = clusters.highest[c] = rows.key[row]
    clusters.weights[c], clusters.sizes[c] = rows.weight[row], 1
    clusters.seen[c] = False
    clusters.seen[c, rows.detector[row]] = True


begin = _compiled(_begin)


def _join(clusters: _Clusters, c: int, rows: _Rows, row: int) -> None:
    """Add a box to a cluster, which becomes the mean of its boxes, weighted by their keys."""
    sides = clusters.rows.sides
    clusters.scores[c] += rows.key[row]
    for side in range(4):
        clusters.sums[side, c] += rows.key[row] * rows.sides[side, row]
        sides[side, c] = min(1.0, clusters.sums[side, c] / clusters.scores[c])
    clusters.rows.area[c] = (sides[2, c] - sides[0, c]) * (sides[3, c] - sides[1, c])
    clusters.highest[c] = max(clusters.highest[c], rows.key[row])
    clusters.weights[c] += rows.weight[row]
    clusters.sizes[c] += 1
    clusters.seen[c, rows.detector[row]] = True


join = _compiled(_join)


def _cluster(rows: _Rows, order: Wholes, clusters: _Clusters, iou: float) -> int:
    """Put every box into a cluster, label by label; return how many clusters there are."""
    count, size = _ZERO, order.size
    taken = np.zeros(size, np.bool_)
    for i in range(size):
        if taken[i]:
            continue
        # Clusters of one label lie together: boxes are compared with no others.
        start, label = count, rows.label[order[i]]
        for j in range(i, size):
            row = order[j]
            if rows.label[row] != label:
                continue
            taken[j] = True
            c = match(rows, row, clusters, (start, count), iou)
            if c >= 0:
                join(clusters, c, rows, row)
            else:
                begin(clusters, count, rows, row)
                count += 1
    return int(count)


cluster = _compiled(_cluster)


def _present(rules: Rules, looked: Flags) -> tuple[int, float, float]:
    """Return how many detectors looked, the sum of their weights and the largest of them."""
    count, total, heaviest = 0, 0.0, 0.0
    for detector in rules.lightest_first:
        if looked[detector]:
            count += 1
            total += rules.weights[detector]
            heaviest = max(heaviest, rules.weights[detector])
    return count, total, heaviest


present = _compiled(_present)


def _confidence(
    clusters: _Clusters, c: int, rules: Rules, there: tuple[int, float, float]
) -> float:
    """Return a cluster's confidence; of the detectors, only those that looked count."""
    count, total, heaviest = there
    score, weight, size = clusters.scores[c], clusters.weights[c], clusters.sizes[c]
    if rules.confidence == _AVG:
        return min(1.0, float(score / size * min(count, size) / total))
    if rules.confidence == _MAX:
        return min(1.0, float(clusters.highest[c] / heaviest))
    agreeing = 0.0
    for detector in rules.lightest_first:
        agreeing += rules.weights[detector] * clusters.seen[c, detector]
    if rules.confidence == _BOX_AND_MODEL:
        return min(1.0, float(score / weight * agreeing / total))
    return min(1.0, float(score / (weight + total - agreeing)))


confidence = _compiled(_confidence)


def _fuse(found: Detections, rules: Rules) -> Fused:
    """Fuse every image's boxes; see ``BoxFusion``."""
    images, size = found.offsets.size - 1, found.scores.size
    largest = _ZERO
    for image in range(images):
        largest = max(largest, found.offsets[image + 1] - found.offsets[image])
    rows, clusters = make_rows(largest), make_clusters(largest, rules.weights.size)
    boxes, scores, labels = np.empty((size, 4)), np.empty(size), np.empty(size, np.int64)
    offsets = np.zeros(images + 1, np.int64)
    filled = 0
    for image in range(images):
        order = in_order(rows, gather(found, rules, image, rows))
        count = cluster(rows, order, clusters, rules.iou)
        there = present(rules, found.looked[image])
        for c in range(count):
            clusters.rows.key[c] = confidence(clusters, c, rules, there)
            clusters.rows.weight[c] = 0.0
        for c in in_order(clusters.rows, count):
            for side in range(4):
                boxes[filled, side] = clusters.rows.sides[side, c]
            scores[filled], labels[filled] = clusters.rows.key[c], clusters.rows.label[c]
            filled += 1
        offsets[image + 1] = filled
    return Fused(boxes[:filled], scores[:filled], labels[:filled], offsets)


fuse = _compiled(_fuse)


def forget_compiled() -> None:
    """Delete the machine code that earlier processes kept."""
    folder = fuse.stats.cache_path
    for file in Path(folder).glob("fusion_kernel.*.nb?") if folder else ():
        file.unlink(missing_ok=True)
