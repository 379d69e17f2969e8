"""Boxes from what a model says of places: a detector's outputs, or evidence per place."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from roadstream.schemas.errors import ConfigError, EngineError
from roadstream.schemas.records.votes import Box

Reals = NDArray[np.float32]
MAX_BOXES = 8
# A place is drawn if its evidence is at least this, and at least half of the strongest place's:
# of 40 test pictures each, 39 with roadwork have such a place for a classifier at 512×352, and 16
# without.
HEAT_FLOOR = 8.0
# Two boxes of one kind that overlap by more than this are one: the usual limit of detectors.
SAME = 0.5
DETECTOR_OUTPUTS = ("boxes", "scores", "kinds")
_TYPES = ["tensor(float)", "tensor(float)", "tensor(int64)"]
_EXPECTED = "outputs boxes float32 [N, K, 4], scores float32 [N, K] and kinds int64 [N, K]"


class Detector(NamedTuple):
    """How a detector's outputs become boxes.

    Attributes:
        kinds: Names of what it finds, by number.
        threshold: Boxes of a lower score are left out.
    """

    kinds: Sequence[str]
    threshold: float

    def boxes(self, corners: Reals, scores: Reals, kinds: NDArray[np.int64]) -> list[Box]:
        """Return one picture's boxes, strongest first, cut off at the picture's edges.

        Of boxes of one kind that overlap, the strongest stays; at most ``MAX_BOXES`` in all.

        Args:
            corners: x1, y1, x2, y2 in widths and heights of the picture: float32 [K, 4].
            scores: In [0, 1]: float32 [K].
            kinds: Positions in ``self.kinds``: int64 [K].

        Raises:
            EngineError: A number is not finite, or a kind has no name.
        """
        found = ~(scores < self.threshold)  # with those that are no numbers
        corners, scores, kinds = corners[found], scores[found], kinds[found]
        if not (np.isfinite(corners).all() and np.isfinite(scores).all()):
            raise EngineError(f"expected finite boxes and scores, got {corners}, {scores}")
        if not ((kinds >= 0) & (kinds < len(self.kinds))).all():
            raise EngineError(f"expected kinds from 0 to {len(self.kinds) - 1}, got {kinds}")
        corners = corners.clip(0.0, 1.0)
        sides = np.hstack([corners[:, :2], corners[:, 2:] - corners[:, :2]])
        kept = cv2.dnn.NMSBoxesBatched(
            sides.tolist(), scores.tolist(), kinds.tolist(), score_threshold=0.0, nms_threshold=SAME
        )
        boxes = []
        for i in kept:
            x1, y1, x2, y2 = corners[i].tolist()
            if x1 < x2 and y1 < y2:
                boxes.append(Box(x1, y1, x2, y2, float(scores[i]), self.kinds[kinds[i]]))
        return boxes[:MAX_BOXES]


def kinds_of(outputs: Mapping[str, Any], properties: Mapping[str, str], where: str) -> list[str]:
    """Check a detector's outputs and return the names of its kinds.

    Args:
        outputs: What onnxruntime tells of each output, by name: ``type`` and ``shape``.
        properties: The model's metadata; ``kinds`` has the names, separated by commas.
        where: Names the model in errors.

    Raises:
        ConfigError: An output is missing or has another type or shape, or the kinds have no names.
    """
    found = [outputs[name] for name in DETECTOR_OUTPUTS if name in outputs]
    if [output.type for output in found] != _TYPES or not fit([output.shape for output in found]):
        told = ", ".join(f"{o.name} {o.type} {o.shape}" for o in found)
        raise ConfigError(where, _EXPECTED, told)
    names = [name.strip() for name in properties.get("kinds", "").split(",")]
    if not all(names):
        expected = "a metadata property kinds with a name for each kind, separated by commas"
        raise ConfigError(where, expected, repr(properties.get("kinds")))
    return names


def fit(shapes: Sequence[Sequence[int | str | None]]) -> bool:
    """Tell whether shapes can be [N, K, 4], [N, K] and [N, K]; a side that is no number can be any.

    A model can still return other shapes than it tells.
    """
    if [len(shape) for shape in shapes] != [3, 2, 2]:
        return False
    places = {shape[1] for shape in shapes if isinstance(shape[1], int)}
    return len(places) < 2 and (shapes[0][2] == 4 or not isinstance(shapes[0][2], int))


def from_heat(heat: Reals) -> list[Box]:
    """Return the places of evidence as boxes, strongest first.

    A box's confidence is σ of what its places add to the picture's log-odds.

    Args:
        heat: float32 [h, w]; a place adds its evidence, divided by h·w, to the log-odds.
    """
    hot = (heat >= max(HEAT_FLOOR, float(heat.max()) / 2)).astype(np.uint8)
    rows, columns = heat.shape
    count, labels, stats, _ = cv2.connectedComponentsWithStats(hot, connectivity=8)
    found = []
    for i in range(1, count):
        x, y, w, h = (int(v) for v in stats[i][:4])
        evidence = float(heat[labels == i].sum()) / heat.size
        confidence = 1.0 / (1.0 + math.exp(-evidence))
        corners = (x / columns, y / rows, (x + w) / columns, (y + h) / rows)
        found.append(Box(*corners, confidence, "evidence"))
    return sorted(found, key=lambda box: -box.confidence)[:MAX_BOXES]
