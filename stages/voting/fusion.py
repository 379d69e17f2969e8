"""One set of boxes from those of several detectors: weighted boxes fusion.

The method is that of Solovyev, Wang and Gabruseva, "Weighted boxes fusion: Ensembling boxes from
different object detection models" (2021): boxes of one label that overlap by more than ``iou`` form
a cluster, whose place is their mean, weighted by confidence and detector weight, and whose
confidence falls with the number of detectors that did not see it. Where all detectors answered, the
result is that of the authors' package ensemble-boxes 1.0.9. What is otherwise:

- A detector that did not answer is left out, and the weights of the others are what there is. The
  package can only be told that it found nothing, which lowers every confidence.
- A confidence never exceeds 1.
- Boxes of equal weight come in an order of their own, so the order of the detectors says nothing.

A box with a number that is not finite, or without confidence above 0, is left out; a confidence
above 1 is taken for 1. Corners that are swapped are put right, what lies outside the picture is cut
off, and what has no area then is left out.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from itertools import chain, pairwise
from typing import get_args

import numpy as np

from roadstream.schemas.cascade.model import Cascade, Fusion, FusionConfidence, Tier
from roadstream.schemas.errors import ConfigError, EngineError
from roadstream.schemas.records.votes import Box
from roadstream.stages.inference import Finding, Score
from roadstream.stages.voting.fusion_arrays import Detections, Fused, Rules

# The compiled loop knows them by their position.
CONFIDENCES: tuple[str, ...] = get_args(FusionConfidence)

Found = Sequence[Sequence[Box] | None]
"""Per detector its boxes of one image, or ``None`` if it did not answer."""


class BoxFusion:
    """Fuses the boxes that several detectors found in a picture. Safe to share between threads.

    Args:
        settings: How; which detectors take part is the caller's business.
        weights: Weight of each detector, above 0.

    Raises:
        ValueError: There is no detector, or a weight is not above 0.
    """

    def __init__(self, settings: Fusion, weights: Sequence[float]) -> None:
        if not weights or not all(0.0 < weight < np.inf for weight in weights):
            raise ValueError(f"expected weights above 0, got {list(weights)}")
        confidence = CONFIDENCES.index(settings.confidence)
        array = np.array(weights, np.float64)
        self._rules = Rules(array, array.argsort(), settings.iou, settings.skip, confidence)
        self._labels = settings.labels

    def fuse(self, images: Sequence[Found]) -> list[list[Box]]:
        """Return each image's fused boxes, the most confident first.

        Args:
            images: Per image and detector the boxes, or ``None`` where it did not answer.
        """
        if not images:
            return []
        found, names = _packed(images, self._labels)
        fused = self.fuse_arrays(found)
        columns = zip(
            fused.boxes.tolist(), fused.scores.tolist(), fused.labels.tolist(), strict=True
        )
        made = [
            Box(x1, y1, x2, y2, score, names[label]) for (x1, y1, x2, y2), score, label in columns
        ]
        return [made[begin:end] for begin, end in pairwise(fused.offsets.tolist())]

    def fuse_arrays(self, found: Detections) -> Fused:
        """Return each image's fused boxes; ``settings.labels`` is not looked at.

        Raises:
            ValueError: The arrays do not fit together, or name a detector that there is not.
        """
        found = Detections(
            np.ascontiguousarray(found.boxes, np.float64),
            np.ascontiguousarray(found.scores, np.float64),
            np.ascontiguousarray(found.labels, np.int64),
            np.ascontiguousarray(found.detectors, np.int64),
            np.ascontiguousarray(found.offsets, np.int64),
            np.ascontiguousarray(found.looked, np.bool_),
        )
        _check(found, self._rules.weights.size)
        return _compiled()(found, self._rules)


def _packed(images: Sequence[Found], spelling: Mapping[str, str]) -> tuple[Detections, list[str]]:
    """Return the boxes as arrays, and the labels by number; the order of images changes neither."""
    parts = [boxes or () for image in images for boxes in image]
    boxes = list(chain.from_iterable(parts))
    labels = [box.label for box in boxes]
    known = {label: spelling.get(label, label) for label in set(labels)}
    names = sorted(set(known.values()))
    numbers = {label: names.index(name) for label, name in known.items()}
    looked = np.array([[boxes is not None for boxes in image] for image in images], np.bool_)
    counts = np.fromiter(map(len, parts), np.int64, len(parts)).reshape(looked.shape)
    size = len(boxes)
    sides = np.empty((size, 4))
    # From one list per column: half the time of an array made from tuples.
    sides[:, 0] = np.fromiter([box.x1 for box in boxes], np.float64, size)
    sides[:, 1] = np.fromiter([box.y1 for box in boxes], np.float64, size)
    sides[:, 2] = np.fromiter([box.x2 for box in boxes], np.float64, size)
    sides[:, 3] = np.fromiter([box.y2 for box in boxes], np.float64, size)
    found = Detections(
        sides,
        np.fromiter([box.confidence for box in boxes], np.float64, size),
        np.fromiter(map(numbers.__getitem__, labels), np.int64, size),
        np.tile(np.arange(len(images[0])), len(images)).repeat(counts.ravel()),
        np.append(0, counts.sum(axis=1).cumsum()),
        looked,
    )
    return found, names


def _check(found: Detections, detectors: int) -> None:
    """Check what the compiled loop takes for granted: it reads memory without looking."""
    size, images = found.scores.size, found.offsets.size - 1
    shapes: list[tuple[int, ...]] = [found.boxes.shape, found.labels.shape]
    shapes += [found.detectors.shape, found.looked.shape]
    if shapes != [(size, 4), (size,), (size,), (images, detectors)]:
        raise ValueError(f"expected arrays of {size} boxes and {images} images, got {shapes}")
    if found.offsets[0] != 0 or found.offsets[-1] != size or (np.diff(found.offsets) < 0).any():
        raise ValueError(f"expected offsets that rise from 0 to {size}, got {found.offsets}")
    if size and not 0 <= found.detectors.min() <= found.detectors.max() < detectors:
        raise ValueError(f"expected detectors from 0 to {detectors - 1}, got others")


def load_fusion(where: str) -> None:
    """Load the compiled loop, or compile it: seconds the first time on a machine; blocks.

    Args:
        where: What in the settings asks for fusion, for the error.

    Raises:
        ConfigError: numba is not installed, or does not run here.
    """
    try:
        _compiled()
    except ImportError as error:
        expected = "numba to be installed (pip install 'roadstream[fusion]')"
        raise ConfigError(where, expected, str(error)) from error


@cache
def _compiled() -> Callable[[Detections, Rules], Fused]:
    from roadstream.stages.voting import fusion_kernel

    fuse: Callable[[Detections, Rules], Fused] = fusion_kernel.fuse
    none, rules = np.empty(0, np.int64), Rules(np.ones(1), np.zeros(1, np.int64), 0.5, 0.0, 0)
    looked, offsets = np.empty((0, 1), np.bool_), np.zeros(1, np.int64)
    nothing = Detections(np.empty((0, 4)), np.empty(0), none, none, offsets, looked)
    try:
        fuse(nothing, rules)
    except Exception:  # kept machine code that no longer loads: cut off, or of renamed modules
        fusion_kernel.forget_compiled()
        fuse(nothing, rules)
    return fuse


class TierFusion:
    """Fuses the boxes of those members of a tier that its ``fusion`` names.

    A member without a score, for whatever reason, is one that did not look; one with a score and no
    box looked and saw nothing.

    Args:
        tier: The tier, with ``fusion``.
    """

    def __init__(self, tier: Tier) -> None:
        assert tier.fusion is not None
        chosen = tier.fused
        self._seats = [seat for seat, member in enumerate(tier.members) if member in chosen]
        self._fusion = BoxFusion(tier.fusion, [member.weight for member in chosen])

    def fuse(self, columns: Sequence[Sequence[Finding | EngineError]]) -> list[list[Box] | None]:
        """Return the fused boxes per image; ``None`` where no detector looked.

        Args:
            columns: Per member of the tier its finding for each image.
        """
        seen = [
            [one.boxes if isinstance(one, Score) else None for one in columns[seat]]
            for seat in self._seats
        ]
        images = list(zip(*seen, strict=True))
        fused = self._fusion.fuse(images)
        return [
            boxes if any(part is not None for part in image) else None
            for image, boxes in zip(images, fused, strict=True)
        ]


def fusion_of(tier: Tier) -> TierFusion | None:
    """Return the fusion of a tier; ``None`` if it asks for none."""
    return None if tier.fusion is None else TierFusion(tier)


def load_fusions(cascade: Cascade, tiers: Sequence[str]) -> None:
    """Load what fuses boxes, if one of these tiers asks for it; blocks.

    Raises:
        ConfigError: It cannot be loaded.
    """
    for index, tier in enumerate(cascade.tiers):
        if tier.fusion is not None and tier.name in tiers:
            load_fusion(f"{cascade.name}: tiers[{index}].fusion")
