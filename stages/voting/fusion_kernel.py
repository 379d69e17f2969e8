"""The inner loop of box fusion, in machine code."""

from typing import NamedTuple

import numpy as np

from roadstream.stages.voting.fusion_arrays import Detections, Flags, Fused, Reals, Rules, Wholes
from roadstream.stages.voting.machine_code import compiled

# Less confidence than this is none: sums of it would lose their digits.
_NOTHING = 1e-100
# Positions in ``CONFIDENCES``; else: aware of absent models.
_AVG, _MAX, _BOX_AND_MODEL, _GEOMETRIC = 0, 1, 2, 4
# Where a count begins that is given to others: numba compiles those for a literal 0, and again.
_ZERO = np.int64(0)


class _Rows(NamedTuple):
    """Boxes of one image: sides x1, y1, x2, y2 [n, 4], and per box what it weighs."""

    sides: Reals
    area: Reals
    key: Reals
    weight: Reals
    log: Reals
    label: Wholes
    detector: Wholes


class _Clusters(NamedTuple):
    """Clusters of one image: their rows, as they look, and the sums that they are made of."""

    rows: _Rows
    sums: Reals
    scores: Reals
    weights: Reals
    logs: Reals
    highest: Reals
    sizes: Wholes
    seen: Flags


def _make_rows(size: int) -> _Rows:
    return _Rows(
        np.empty((size, 4)),
        np.empty(size),
        np.empty(size),
        np.empty(size),
        np.empty(size),
        np.empty(size, np.int64),
        np.empty(size, np.int64),
    )


make_rows = compiled(_make_rows)


def _make_clusters(size: int, detectors: int) -> _Clusters:
    return _Clusters(
        make_rows(size),
        np.empty((size, 4)),
        np.empty(size),
        np.empty(size),
        np.empty(size),
        np.empty(size),
        np.empty(size, np.int64),
        np.empty((size, detectors), np.bool_),
    )


make_clusters = compiled(_make_clusters)


def _gather(found: Detections, rules: Rules, image: int, skip: float, rows: _Rows) -> int:
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
        if not np.isfinite(score) or score < skip or key < _NOTHING:
            continue
        left, right = max(0.0, min(x1, x2)), min(1.0, max(x1, x2))
        top, bottom = max(0.0, min(y1, y2)), min(1.0, max(y1, y2))
        area = (right - left) * (bottom - top)
        if right <= left or area <= 0.0:
            continue
        rows.sides[count, 0], rows.sides[count, 1] = left, top
        rows.sides[count, 2], rows.sides[count, 3] = right, bottom
        rows.area[count] = area
        rows.weight[count] = rules.weights[detector]
        rows.key[count] = key
        if rules.confidence == _GEOMETRIC:
            rows.log[count] = rules.weights[detector] * np.log(min(1.0, score))
        rows.label[count], rows.detector[count] = found.labels[row], detector
        count += 1
    return count


gather = compiled(_gather)


def _precedes(rows: _Rows, a: int, b: int) -> bool:
    """Tell whether ``a`` comes first: by key, downwards, then by place, label and weight."""
    if rows.key[a] != rows.key[b]:
        return bool(rows.key[a] > rows.key[b])
    for side in range(4):
        if rows.sides[a, side] != rows.sides[b, side]:
            return bool(rows.sides[a, side] < rows.sides[b, side])
    if rows.label[a] != rows.label[b]:
        return bool(rows.label[a] < rows.label[b])
    return bool(rows.weight[a] < rows.weight[b])


precedes = compiled(_precedes)


def _in_order(rows: _Rows, count: int) -> Wholes:
    """Return the rows in an order that does not depend on how they came.

    They are thrown into as many bins as there are rows, by key, and then put in order by insertion.
    """
    low, high = np.inf, 0.0
    for row in range(count):
        low, high = min(low, rows.key[row]), max(high, rows.key[row])
    scale = (count - 1) / (high - low) if high > low else 0.0
    order, bins = np.empty(count, np.int64), np.zeros(count + 1, np.int64)
    for row in range(count):
        bins[int((high - rows.key[row]) * scale) + 1] += 1
    for i in range(count):
        bins[i + 1] += bins[i]
    for row in range(count):
        i = int((high - rows.key[row]) * scale)
        order[bins[i]] = row
        bins[i] += 1
    for i in range(1, count):
        row, j = order[i], i
        while j > 0 and precedes(rows, row, order[j - 1]):
            order[j] = order[j - 1]
            j -= 1
        order[j] = row
    return order


in_order = compiled(_in_order)


def _match(rows: _Rows, row: int, clusters: _Clusters, span: tuple[int, int], iou: float) -> int:
    """Return the cluster of a span that the box overlaps most, by more than ``iou``, or -1."""
    best, found = iou, np.int64(-1)
    x1, y1, x2, y2 = rows.sides[row, 0], rows.sides[row, 1], rows.sides[row, 2], rows.sides[row, 3]
    area, sides, areas = rows.area[row], clusters.rows.sides, clusters.rows.area
    # What overlaps by more than ``iou`` shares at least that much of the box; less for rounding.
    least = iou * area * (1.0 - 1e-9)
    # Without a branch up to where few get; and unsigned, as numba looks whether others are below 0.
    for c in range(np.uint64(span[0]), np.uint64(span[1])):
        width = min(sides[c, 2], x2) - max(sides[c, 0], x1)
        height = min(sides[c, 3], y2) - max(sides[c, 1], y1)
        inter = max(width, 0.0) * max(height, 0.0)
        if inter > least:
            overlap = inter / (areas[c] + area - inter)
            if overlap > best:
                best, found = overlap, np.int64(c)
    return int(found)


match = compiled(_match)


def _begin(clusters: _Clusters, c: int, rows: _Rows, row: int) -> None:
    """Make a cluster of one box."""
    for side in range(4):
        clusters.rows.sides[c, side] = rows.sides[row, side]
        clusters.sums[c, side] = rows.key[row] * rows.sides[row, side]
    clusters.rows.area[c], clusters.rows.label[c] = rows.area[row], rows.label[row]
    clusters.scores[c] = clusters.highest[c] = rows.key[row]
    clusters.weights[c], clusters.sizes[c] = rows.weight[row], 1
    clusters.logs[c] = rows.log[row]
    clusters.seen[c] = False
    clusters.seen[c, rows.detector[row]] = True


begin = compiled(_begin)


def _join(clusters: _Clusters, c: int, rows: _Rows, row: int) -> None:
    """Add a box to a cluster, which becomes the mean of its boxes, weighted by their keys."""
    sides = clusters.rows.sides
    clusters.scores[c] += rows.key[row]
    for side in range(4):
        clusters.sums[c, side] += rows.key[row] * rows.sides[row, side]
        sides[c, side] = min(1.0, clusters.sums[c, side] / clusters.scores[c])
    clusters.rows.area[c] = (sides[c, 2] - sides[c, 0]) * (sides[c, 3] - sides[c, 1])
    clusters.highest[c] = max(clusters.highest[c], rows.key[row])
    clusters.weights[c] += rows.weight[row]
    clusters.logs[c] += rows.log[row]
    clusters.sizes[c] += 1
    clusters.seen[c, rows.detector[row]] = True


join = compiled(_join)


def _cluster(rows: _Rows, order: Wholes, clusters: _Clusters, rules: Rules) -> int:
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
            c = match(rows, row, clusters, (start, count), rules.iou)
            if c < 0:
                begin(clusters, count, rows, row)
                count += 1
            elif not (rules.merge and clusters.seen[c, rows.detector[row]]):
                join(clusters, c, rows, row)
    return int(count)


cluster = compiled(_cluster)


def _present(rules: Rules, looked: Flags) -> tuple[int, float, float]:
    """Return how many detectors looked, the sum of their weights and the largest of them."""
    count, total, heaviest = 0, 0.0, 0.0
    for detector in rules.lightest_first:
        if looked[detector]:
            count += 1
            total += rules.weights[detector]
            heaviest = max(heaviest, rules.weights[detector])
    return count, total, heaviest


present = compiled(_present)


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
    if rules.confidence == _GEOMETRIC:
        return min(1.0, float(np.exp(clusters.logs[c] / weight) * agreeing / total))
    if rules.confidence == _BOX_AND_MODEL:
        return min(1.0, float(score / weight * agreeing / total))
    return min(1.0, float(score / (weight + total - agreeing)))


confidence = compiled(_confidence)


def _write(clusters: _Clusters, c: int, margin: float, fused: Fused, row: int) -> None:
    """Write a cluster to a row of the result, grown by a share of its width and height."""
    sides = clusters.rows.sides
    for axis in range(2):
        low, high = sides[c, axis], sides[c, axis + 2]
        if margin > 0.0:
            grown = margin * (high - low) / 2.0
            low, high = max(0.0, low - grown), min(1.0, high + grown)
        fused.boxes[row, axis], fused.boxes[row, axis + 2] = low, high
    fused.scores[row], fused.labels[row] = clusters.rows.key[c], clusters.rows.label[c]


write = compiled(_write)


def _fuse(found: Detections, rules: Rules, adapted: Reals) -> Fused:
    """Fuse every image's boxes; see ``BoxFusion``.

    Args:
        found: The boxes.
        rules: How.
        adapted: Per image its ``Adaptation``: float64 [N, 2]; [0, 2] if there is none.
    """
    images, size = found.offsets.size - 1, found.scores.size
    largest = _ZERO
    for image in range(images):
        largest = max(largest, found.offsets[image + 1] - found.offsets[image])
    rows, clusters = make_rows(largest), make_clusters(largest, rules.weights.size)
    labels, offsets = np.empty(size, np.int64), np.zeros(images + 1, np.int64)
    fused = Fused(np.empty((size, 4)), np.empty(size), labels, offsets)
    filled = 0
    for image in range(images):
        factor = adapted[image, 0] if adapted.size else 1.0
        margin = adapted[image, 1] if adapted.size else 0.0
        order = in_order(rows, gather(found, rules, image, rules.skip * factor, rows))
        count = cluster(rows, order, clusters, rules)
        there = present(rules, found.looked[image])
        for c in range(count):
            clusters.rows.key[c] = confidence(clusters, c, rules, there)
            clusters.rows.weight[c] = 0.0
        for c in in_order(clusters.rows, count):
            write(clusters, c, margin, fused, filled)
            filled += 1
        offsets[image + 1] = filled
    return Fused(fused.boxes[:filled], fused.scores[:filled], labels[:filled], offsets)


fuse = compiled(_fuse)
