"""Training views: windows of pictures at many scales, with objects pasted in, and their boxes."""

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from roadstream.stages.rules.cones import Pixels
from training.augment import colour, disturb, light
from training.corpus import KINDS, LOOKALIKE, Picture
from training.cutouts import Cutout
from training.drawn import draw, draw_lookalike

WIDTH, HEIGHT = 416, 256  # of a view, pixels
# Width that the whole picture has, of which a view is a part; members see 672 and 1312 of it.
LEAST_SPAN, MOST_SPAN = 416, 1400
LEAST_PIXELS = 4.0  # height of a box in the view; smaller ones are neither taught nor denied
ASPECT = 384 / 672  # members see every picture stretched to about this
PASTE_CHANCE, DECOY_CHANCE, DRAWN_SHARE = 0.45, 0.35, 0.45
SEEN_SHARE = 0.4  # of a box that must lie in the window for the box to count
# Metres above the road of the camera, and of the objects: how far down they stand at a size.
CAMERA_HEIGHT = 1.35
HEIGHTS = {
    "cone": 0.7, "drum": 1.0, "barrier": 1.1, "post": 1.1, "work_sign": 1.6, "worker": 1.75,
    "machine": 2.9, LOOKALIKE: 1.5,
}  # fmt: skip
PASTED = {
    "cone": 0.24, "drum": 0.14, "barrier": 0.14, "post": 0.1, "work_sign": 0.14, "worker": 0.12,
    "machine": 0.12,
}  # fmt: skip


class View(NamedTuple):
    """One training view.

    Attributes:
        pixels: uint8 RGB [height, width, 3].
        boxes: float32 [n, 5]: index of the kind (-1: neither taught nor denied), x1, y1, x2, y2 in
            pixels.
        label: Whether roadwork is seen: 1, 0, or -1 where nobody can say.
        complete: Whether what is outside all boxes is known to be empty.
        families: The families whose pixels are in it.
    """

    pixels: Pixels
    boxes: NDArray[np.float32]
    label: int
    complete: bool
    families: frozenset[str]


class Window(NamedTuple):
    """A part of a picture: its corner and size in [0, 1] of the picture."""

    left: float
    top: float
    wide: float
    high: float


def choose_window(picture: Picture, shape: tuple[int, ...], rng: Generator) -> Window:
    """Choose how large the picture is seen, and which part of it; mostly beside or with a box."""
    height, width = shape[:2]
    most = max(LEAST_SPAN * 1.2, min(MOST_SPAN, 2.5 * width))
    span = np.exp(rng.uniform(np.log(LEAST_SPAN), np.log(most)))
    aspect = ASPECT if rng.random() < 0.6 else height / width
    tall = span * aspect * np.exp(rng.normal(0, 0.1))
    wide, high = min(1.0, WIDTH / span), min(1.0, HEIGHT / tall)
    left, top = rng.uniform(0, 1 - wide), np.clip(rng.normal(0.45, 0.25), 0, 1) * (1 - high)
    if picture.boxes and rng.random() < (0.75 if picture.label else 0.4):
        box = picture.boxes[rng.integers(len(picture.boxes))]
        left = (box.x1 + box.x2) / 2 - wide * rng.uniform(0.1, 0.9)
        top = (box.y1 + box.y2) / 2 - high * rng.uniform(0.15, 0.85)
    return Window(float(np.clip(left, 0, 1 - wide)), float(np.clip(top, 0, 1 - high)), wide, high)


def look(image: Pixels, window: Window, rng: Generator) -> Pixels:
    """Cut the window out and stretch it to a view."""
    height, width = image.shape[:2]
    x, y = int(window.left * width), int(window.top * height)
    part = image[
        y : y + max(8, int(window.high * height)), x : x + max(8, int(window.wide * width))
    ]
    shrinks = part.shape[1] > WIDTH
    method = cv2.INTER_AREA if shrinks and rng.random() < 0.8 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(part, (WIDTH, HEIGHT), interpolation=method), np.uint8)


def boxes_in(picture: Picture, window: Window) -> NDArray[np.float32]:
    """Return the picture's boxes within the window, see `View.boxes`; those cut off are -1."""
    found = []
    for box in picture.boxes:
        x1, x2 = ((x - window.left) / window.wide for x in (box.x1, box.x2))
        y1, y2 = ((y - window.top) / window.high for y in (box.y1, box.y2))
        size = (x2 - x1) * (y2 - y1)
        x1, x2, y1, y2 = (float(np.clip(v, 0, 1)) for v in (x1, x2, y1, y2))
        if x2 <= x1 or y2 <= y1 or box.kind == LOOKALIKE:
            continue
        known = box.kind in KINDS and (x2 - x1) * (y2 - y1) > SEEN_SHARE * size
        large = (y2 - y1) * HEIGHT >= LEAST_PIXELS
        kind = KINDS.index(box.kind) if known and large else -1
        corners = (x1 * WIDTH, y1 * HEIGHT, x2 * WIDTH, y2 * HEIGHT)
        found.append((kind, *corners))
    return np.array(found, np.float32).reshape(-1, 5)


def paste(
    canvas: Pixels, piece: Pixels, kind: str, window: Window, rng: Generator, high: float
) -> NDArray[np.float32] | None:
    """Paste RGBA `piece`, `high` pixels tall, where such an object would stand.

    Returns:
        x1, y1, x2, y2 in pixels; None if that place is outside of the view.
    """
    height, width = canvas.shape[:2]
    slim = piece.shape[1] / piece.shape[0] * np.exp(rng.normal(0, 0.12))
    tall = max(5, int(min(high, width / slim)))
    wide = max(3, min(width, int(tall * slim)))
    horizon = (rng.normal(0.47, 0.05) - window.top) / window.high * height
    stands = tall * CAMERA_HEIGHT / HEIGHTS[kind] * np.exp(rng.normal(0, 0.25))
    bottom = int(np.clip(horizon + stands, tall, height + 0.3 * tall))
    left, top = int(rng.uniform(-0.3 * wide, width - 0.7 * wide)), bottom - tall
    x1, y1, x2, y2 = max(0, left), max(0, top), min(width, left + wide), min(height, bottom)
    if x2 - x1 < 3 or y2 - y1 < 4:
        return None
    shrinks = tall < piece.shape[0]
    small = cv2.resize(
        piece, (wide, tall), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    )[y1 - top : y2 - top, x1 - left : x2 - left]
    alpha = small[..., 3:].astype(np.float32) / 255
    spot = canvas[y1:y2, x1:x2]
    spot[:] = spot * (1 - alpha) + small[..., :3] * alpha
    return np.array([x1, y1, x2, y2], np.float32)


def fit_in(piece: Pixels, canvas: Pixels, rng: Generator) -> Pixels:
    """Give an object other light and colours, nearer to the picture's; sometimes hardly any."""
    rgb = np.ascontiguousarray(piece[..., :3])
    if rng.random() < 0.5:
        rgb = colour(rgb, rng)
    if rng.random() < 0.5:
        rgb = light(rgb, rng)
    if rng.random() < 0.7:
        share = rng.uniform(0.2, 0.8)
        gain = np.clip((canvas.mean() + 20) / (rgb.mean() + 20), 0.3, 1.6)
        rgb = np.clip(rgb * (1 - share + share * gain), 0, 255).astype(np.uint8)
    if rng.random() < 0.5:
        rgb, piece = rgb[:, ::-1], piece[:, ::-1]
    return np.dstack([rgb, piece[..., 3]])


class ViewMaker:
    """Makes views of pictures.

    Args:
        pictures: The pictures.
        images: Their pixels.
        cutouts: Objects to paste; a view of one family may get those of every other.
    """

    def __init__(
        self,
        pictures: Sequence[Picture],
        images: Sequence[Pixels],
        cutouts: Sequence[Cutout],
    ) -> None:
        self._pictures, self._images = pictures, images
        self._cutouts: dict[str, dict[str, list[Cutout]]] = {}
        for one in cutouts:
            self._cutouts.setdefault(one.kind, {}).setdefault(one.family, []).append(one)

    def __call__(self, index: int, rng: Generator) -> View:
        """Make one view of a picture."""
        picture, image = self._pictures[index], self._images[index]
        window = choose_window(picture, image.shape, rng)
        canvas, boxes = look(image, window, rng), boxes_in(picture, window)
        families = {picture.family}
        complete = bool(picture.label == 0 or picture.boxes)
        if rng.random() < DECOY_CHANCE:
            self._decoys(canvas, window, families, rng)
        if picture.label >= 0 and rng.random() < PASTE_CHANCE:
            added = self._objects(canvas, window, families, rng)
            boxes = np.concatenate([boxes, added])
        label = int((boxes[:, 0] >= 0).any())
        if not label and (len(boxes) or not complete or picture.label < 0):
            label = -1  # parts of objects, or what nobody has said
        if rng.random() < 0.5:
            canvas = np.ascontiguousarray(canvas[:, ::-1])
            boxes[:, [1, 3]] = WIDTH - boxes[:, [3, 1]]
        return View(disturb(canvas, rng), boxes, label, complete, frozenset(families))

    def _objects(
        self, canvas: Pixels, window: Window, families: set[str], rng: Generator
    ) -> NDArray[np.float32]:
        """Paste one to five objects, often alike; return their boxes as in `View.boxes`."""
        base = self._size(rng)
        kind, added = "", []
        for _ in range(int(rng.integers(1, 6))):
            if not kind or rng.random() < 0.4:
                kind = str(rng.choice(list(PASTED), p=list(PASTED.values())))
                piece = self._piece(kind, families, rng)
            size = base * (HEIGHTS[kind] / 0.9) ** 0.6 * np.exp(rng.normal(0, 0.3))
            high = float(np.clip(size, 1.5 * LEAST_PIXELS, 200))
            place = paste(canvas, fit_in(piece, canvas, rng), kind, window, rng, high)
            if place is not None:
                added.append((KINDS.index(kind), *place))
        return np.array(added, np.float32).reshape(-1, 5)

    def _decoys(self, canvas: Pixels, window: Window, families: set[str], rng: Generator) -> None:
        """Paste one to three things that are no roadwork."""
        for _ in range(int(rng.integers(1, 4))):
            piece = self._piece(LOOKALIKE, families, rng)
            high = self._size(rng)
            paste(canvas, fit_in(piece, canvas, rng), LOOKALIKE, window, rng, high)

    def _size(self, rng: Generator) -> float:
        """Draw the height of what is pasted, in pixels: small objects as often as large ones."""
        return float(np.exp(rng.uniform(np.log(1.7 * LEAST_PIXELS), np.log(0.43 * HEIGHT))))

    def _piece(self, kind: str, families: set[str], rng: Generator) -> Pixels:
        """Return an object of this kind, drawn or cut out of a picture of any family."""
        found = self._cutouts.get(kind, {})
        if not found or rng.random() < DRAWN_SHARE:
            return draw_lookalike(rng) if kind == LOOKALIKE else draw(kind, rng)
        counts = np.sqrt([len(pieces) for pieces in found.values()])
        family = list(found)[int(rng.choice(len(found), p=counts / counts.sum()))]
        families.add(family)
        return found[family][rng.integers(len(found[family]))].pixels


def sampling_weights(pictures: Sequence[Picture]) -> NDArray[np.float64]:
    """Weigh pictures so that scenes count by the root of their size, families likewise.

    Returns:
        Chances float64 [len(pictures)] that sum to 1: 45 % roadwork, 45 % ordinary, 10 % ambiguous.
    """
    weights = np.zeros(len(pictures))
    share = {1: 0.45, 0: 0.45, -1: 0.1}
    for label, part in share.items():
        rows = [i for i, picture in enumerate(pictures) if picture.label == label]
        if not rows:
            continue
        scenes: dict[tuple[str, str], list[int]] = {}
        for row in rows:
            scenes.setdefault((pictures[row].family, pictures[row].group), []).append(row)
        sizes: dict[str, float] = {}
        for (family, _), scene in scenes.items():
            sizes[family] = sizes.get(family, 0.0) + len(scene) ** 0.5
        for (family, _), scene in scenes.items():
            weights[scene] = sizes[family] ** -0.4 * len(scene) ** -0.5
        weights[rows] *= part / weights[rows].sum()
    return np.asarray(weights / weights.sum())
