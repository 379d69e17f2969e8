"""One set of boxes from those of several detectors: weighted boxes fusion.

The method is that of Solovyev, Wang and Gabruseva, "Weighted boxes fusion: Ensembling boxes from
different object detection models" (2021): boxes of one label that overlap by more than ``iou`` form
a cluster, whose place is their mean, weighted by confidence and detector weight, and whose
confidence falls with the number of detectors that did not see it. Where all detectors answered, the
result is that of the authors' package ensemble-boxes 1.0.9. What is otherwise:

- ``geometric`` is a way to make confidences that the package does not know.
- On request a detector counts once in a cluster, with its most confident box.
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
from itertools import pairwise
from typing import NamedTuple, get_args

import numpy as np
from msgspec.msgpack import encode
from numpy.typing import NDArray

from roadstream.schemas.cascade.model import Cascade, Fusion, FusionConfidence, Tier
from roadstream.schemas.cascade.rules import Adapt
from roadstream.schemas.errors import ConfigError, EngineError
from roadstream.schemas.records.votes import Box
from roadstream.stages.inference import Finding, Score
from roadstream.stages.voting.fusion_arrays import Adaptation, Detections, Fused, Read, Reals, Rules
from roadstream.stages.voting.route import TagRule

# The compiled loop knows them by their position.
CONFIDENCES: tuple[str, ...] = get_args(FusionConfidence)

MOST_WEIGHT = 1e100  # of which sums are finite

Found = Sequence[Sequence[Box] | None]
"""Per detector its boxes of one image, or ``None`` if it did not answer."""


class BoxFusion:
    """Fuses the boxes that several detectors found in a picture. Safe to share between threads.

    Args:
        settings: How; which detectors take part is the caller's business.
        weights: Weight of each detector, above 0 and up to ``MOST_WEIGHT``.

    Raises:
        ValueError: There is no detector, or a weight is not above 0.
    """

    def __init__(self, settings: Fusion, weights: Sequence[float]) -> None:
        if not weights or not all(0.0 < weight <= MOST_WEIGHT for weight in weights):
            raise ValueError(f"expected weights above 0, got {list(weights)}")
        array = np.array(weights, np.float64)
        self._rules = Rules(
            array,
            array.argsort(),
            settings.iou,
            settings.skip,
            CONFIDENCES.index(settings.confidence),
            settings.own_duplicates == "merge",
        )
        self._spelling = settings.labels

    def fuse(
        self, images: Sequence[Found], adapt: Sequence[Adaptation] | None = None
    ) -> list[list[Box]]:
        """Return each image's fused boxes, the most confident first.

        Args:
            images: Per image and detector the boxes, or ``None`` where it did not answer.
            adapt: Per image what is otherwise for it; ``None`` if nothing is.

        Raises:
            ValueError: An image has more or fewer detectors than there are weights, a label is not
                UTF-8, or the adaptations are not one for each image.
        """
        found, labels = _arrays(images, self._rules.weights.size)
        known = sorted({self._spelling.get(label, label) for label in labels})
        numbers = [known.index(self._spelling.get(label, label)) for label in labels]
        found = found._replace(labels=np.array(numbers, np.int64)[found.labels])
        fused = _compiled().fuse(found, self._rules, _adapted(adapt, len(images)))
        columns = [*fused.boxes.T.tolist(), fused.scores.tolist()]
        made = list(map(Box, *columns, map(known.__getitem__, fused.labels.tolist())))
        return [made[begin:end] for begin, end in pairwise(fused.offsets.tolist())]

    def fuse_arrays(self, found: Detections, adapt: Sequence[Adaptation] | None = None) -> Fused:
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
        adapted = _adapted(adapt, len(found.offsets) - 1)
        return _compiled().fuse(found, self._rules, adapted)


def _arrays(images: Sequence[Found], detectors: int) -> tuple[Detections, list[str]]:
    """Return the boxes as arrays, and their labels by number."""
    read = _compiled().read
    encoded = _encoded(images)
    found = read(np.frombuffer(encoded, np.uint8), detectors)
    if not found.plain:
        encoded = encode([_plain(image, detectors) for image in images])
        found = read(np.frombuffer(encoded, np.uint8), detectors)
    return found.found, [encoded[begin:end].decode() for begin, end in found.labels.tolist()]


def _encoded(images: Sequence[Found]) -> bytes:
    """Return the boxes as msgpack; that of nothing if they are in no types that it knows."""
    try:
        return encode(images)
    except (TypeError, OverflowError):
        return encode(None)


def _plain(image: Found, detectors: int) -> list[list[Box] | None]:
    """Return the boxes in the types that their fields name: numpy's, and whole numbers, are not."""
    if len(image) != detectors:
        raise ValueError(f"expected boxes of {detectors} detectors, got those of {len(image)}")
    return [None if boxes is None else list(map(_plain_box, boxes)) for boxes in image]


def _plain_box(box: Box) -> Box:
    x1, y1, x2, y2 = float(box.x1), float(box.y1), float(box.x2), float(box.y2)
    return Box(x1, y1, x2, y2, float(box.confidence), str(box.label))


_AS_IT_IS = np.empty((0, 2))


def _adapted(adapt: Sequence[Adaptation] | None, images: int) -> Reals:
    """Return the adaptations as the compiled loop takes them."""
    if adapt is None:
        return _AS_IT_IS
    adapted = np.array(adapt, np.float64).reshape(-1, 2)
    if len(adapted) != images or not ((adapted >= 0.0) & (adapted < np.inf)).all():
        raise ValueError(f"expected {images} adaptations by finite numbers from 0, got {adapt}")
    return adapted


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


class _Compiled(NamedTuple):
    read: Callable[[NDArray[np.uint8], int], Read]
    fuse: Callable[[Detections, Rules, Reals], Fused]


@cache
def _compiled() -> _Compiled:
    from roadstream.stages.voting import fusion_kernel, fusion_reader, machine_code

    loops = _Compiled(fusion_reader.read, fusion_kernel.fuse)
    nothing = np.frombuffer(encode([]), np.uint8)
    rules = Rules(np.ones(1), np.zeros(1, np.int64), 0.5, 0.0, 0, False)
    try:
        loops.fuse(loops.read(nothing, 1).found, rules, _AS_IT_IS)
    except Exception:  # kept machine code that no longer loads: cut off, or of renamed modules
        machine_code.forget(fusion_reader.read)
        machine_code.forget(fusion_kernel.fuse)
        loops.fuse(loops.read(nothing, 1).found, rules, _AS_IT_IS)
    return loops


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

    def fuse(
        self,
        columns: Sequence[Sequence[Finding | EngineError]],
        adapt: Sequence[Adaptation] | None = None,
    ) -> list[list[Box] | None]:
        """Return the fused boxes per image; ``None`` where no detector looked.

        Args:
            columns: Per member of the tier its finding for each image.
            adapt: Per image what is otherwise for it; ``None`` if nothing is.
        """
        seen = [
            [one.boxes if isinstance(one, Score) else None for one in columns[seat]]
            for seat in self._seats
        ]
        images = list(zip(*seen, strict=True))
        fused = self._fusion.fuse(images, adapt)
        return [
            boxes if any(part is not None for part in image) else None
            for image, boxes in zip(images, fused, strict=True)
        ]


class BoxRules:
    """The rules of a cascade that change how boxes are fused.

    Args:
        cascade: The cascade.
    """

    def __init__(self, cascade: Cascade) -> None:
        enabled = [rule for rule in cascade.rules if isinstance(rule, Adapt) and rule.enabled]
        self._rules = [(TagRule(rule), rule) for rule in enabled if rule.boxes]

    def __bool__(self) -> bool:
        """Return whether there are any."""
        return bool(self._rules)

    def adaptation(self, tags: Mapping[str, str]) -> Adaptation:
        """Return what is otherwise where an image has these tags: factors multiply."""
        factor, margin = 1.0, 1.0
        for asked, rule in self._rules:
            if asked.holds(tags):
                factor *= rule.box_confidence
                margin *= 1.0 + rule.box_margin
        return Adaptation(factor, margin - 1.0)


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
