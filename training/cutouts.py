"""Objects cut out of boxed pictures along their outline, to be pasted onto other roads."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import msgspec
import numpy as np
from numpy.typing import NDArray

from roadstream.stages.rules.cones import Pixels
from training.corpus import KINDS, LOOKALIKE, Box, Picture

LEAST_SIDE = 14  # pixels; smaller pieces have no outline to find
MARGIN = 0.25  # of the box, on each side: what the outline is told from
LEAST_FILL, MOST_FILL = 0.25, 0.97  # share of the box that an outline found by colour may fill
RIGID = ("barrier",)  # several boards and what is between them: no outline is to be found
MOST_SIDE = 170


@dataclass(frozen=True)
class Cutout:
    """One object: uint8 RGBA [h, w, 4], tight; and where it comes from."""

    kind: str
    family: str
    pixels: Pixels


def around(box: Box, height: int, width: int) -> tuple[int, int, int, int]:
    """Return the box with a margin, in pixels: left, top, right, bottom."""
    dx, dy = (box.x2 - box.x1) * MARGIN, (box.y2 - box.y1) * MARGIN
    left, right = max(0, int((box.x1 - dx) * width)), min(width, int((box.x2 + dx) * width) + 1)
    top, bottom = max(0, int((box.y1 - dy) * height)), min(height, int((box.y2 + dy) * height) + 1)
    return left, top, right, bottom


def outline(patch: Pixels, inner: tuple[int, int, int, int]) -> NDArray[np.uint8] | None:
    """Find the object in a patch by GrabCut; `inner` is its box (x, y, w, h) within the patch.

    Returns:
        0 or 255 per pixel, uint8 [H, W]; None if what it finds cannot be an object.
    """
    mask = np.zeros(patch.shape[:2], np.uint8)
    models = np.zeros((1, 65)), np.zeros((1, 65))
    try:
        cv2.grabCut(patch, mask, inner, *models, 2, cv2.GC_INIT_WITH_RECT)
    except cv2.error:  # a patch of one colour
        return None
    found = np.where((mask == cv2.GC_FGD) | (mask == cv2.GC_PR_FGD), 255, 0).astype(np.uint8)
    cv2.morphologyEx(found, cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8), found)
    x, y, w, h = inner
    fill = float(found[y : y + h, x : x + w].mean()) / 255
    return found if LEAST_FILL <= fill <= MOST_FILL else None


def cut(image: Pixels, box: Box) -> Pixels | None:
    """Cut one object out: uint8 RGBA [h, w, 4], at most `MOST_SIDE` high; None if it is too small.

    Barriers and objects without a clear outline keep their box as their outline.
    """
    height, width = image.shape[:2]
    wide, high = (box.x2 - box.x1) * width, (box.y2 - box.y1) * height
    if min(wide, high) < LEAST_SIDE or high < 18:
        return None
    left, top, right, bottom = around(box, height, width)
    patch = np.ascontiguousarray(image[top:bottom, left:right])
    if (most := max(patch.shape[:2])) > MOST_SIDE:
        scale = MOST_SIDE / most
        smaller = cv2.resize(patch, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        patch = np.asarray(smaller, np.uint8)
    down, across = patch.shape[0] / (bottom - top), patch.shape[1] / (right - left)
    x, y = int((box.x1 * width - left) * across), int((box.y1 * height - top) * down)
    w, h = max(4, int(wide * across)), max(4, int(high * down))
    w, h = min(w, patch.shape[1] - x), min(h, patch.shape[0] - y)
    mask = None if box.kind in RIGID or min(w, h) < 8 else outline(patch, (x, y, w, h))
    if mask is None:
        mask = np.zeros(patch.shape[:2], np.uint8)
        mask[y + 1 : y + h - 1, x + 1 : x + w - 1] = 255
    soft = np.asarray(cv2.GaussianBlur(mask, (0, 0), 0.8), np.uint8)
    return np.dstack([patch, soft])[y : y + h, x : x + w]


def cut_all(pictures: Sequence[Picture], images: Sequence[Pixels]) -> list[Cutout]:
    """Cut every boxed object and lookalike out."""
    found = []
    for picture, image in zip(pictures, images, strict=True):
        for box in picture.boxes:
            if box.kind not in (*KINDS, LOOKALIKE):
                continue
            pixels = cut(image, box)
            if pixels is not None:
                found.append(Cutout(box.kind, picture.family, pixels))
    return found


def save_cutouts(path: Path, cutouts: Sequence[Cutout]) -> None:
    """Write cut-outs for `load_cutouts`."""
    rows = [(c.kind, c.family, c.pixels.shape, c.pixels.tobytes()) for c in cutouts]
    partial = path.with_suffix(".partial")
    partial.write_bytes(msgspec.msgpack.encode(rows))
    partial.rename(path)


def load_cutouts(path: Path) -> list[Cutout]:
    """Read cut-outs."""
    rows = msgspec.msgpack.decode(
        path.read_bytes(), type=list[tuple[str, str, tuple[int, int, int], bytes]]
    )
    return [
        Cutout(kind, family, np.frombuffer(pixels, np.uint8).reshape(shape))
        for kind, family, shape, pixels in rows
    ]
