"""Boxes drawn into a picture, so that a model can be asked about them. Pure."""

from collections.abc import Sequence
from math import ceil, floor

import cv2
import numpy as np

from roadstream.schemas.records.votes import Box
from roadstream.stages.inference import Pixels

# Magenta: next to nothing beside a road has it, neither signs nor cones nor vests.
COLOUR = (255, 0, 255)
_DIGITS = (255, 255, 255)
_FONT = cv2.FONT_HERSHEY_SIMPLEX
# Shares of the shorter side, in pixels at least.
_LINE, _DIGIT, _THINNEST, _SMALLEST_DIGIT = 1 / 160, 1 / 32, 1, 8


def drawn(pixels: Pixels, boxes: Sequence[Box]) -> Pixels:
    """Return a copy with boxes outlined and numbered from 1; the picture itself without boxes.

    A line runs along the outside of its box, or along the picture's edge: it covers nothing of what
    is in the box. Of boxes that overlap the first lies on top.

    Args:
        pixels: uint8 RGB [h, w, 3].
        boxes: Within the picture.
    """
    if not boxes:
        return pixels
    shown = np.ascontiguousarray(pixels).copy()
    for number, box in reversed(list(enumerate(boxes, 1))):
        left, top = _outline(shown, box, line_width(pixels))
        _number(shown, str(number), left, top)
    return shown


def line_width(pixels: Pixels) -> int:
    """Return how wide lines in a picture are, in pixels."""
    return max(_THINNEST, round(min(len(pixels), len(pixels[0])) * _LINE))


def _outline(shown: Pixels, box: Box, line: int) -> tuple[int, int]:
    """Draw a box; return its upper left corner."""
    height, width = shown.shape[:2]
    left, top = (max(0, floor(at) - line) for at in (box.x1 * width, box.y1 * height))
    right = min(width, ceil(box.x2 * width) + line)
    bottom = min(height, ceil(box.y2 * height) + line)
    shown[top : top + line, left:right] = COLOUR
    shown[bottom - line : bottom, left:right] = COLOUR
    shown[top:bottom, left : left + line] = COLOUR
    shown[top:bottom, right - line : right] = COLOUR
    return left, top


def _number(shown: Pixels, number: str, left: int, top: int) -> None:
    """Write a number on a tab above a corner, or below it where there is no room above."""
    height, width = shown.shape[:2]
    tall = max(_SMALLEST_DIGIT, round(min(height, width) * _DIGIT))
    stroke = max(1, tall // 8)
    scale = cv2.getFontScaleFromHeight(_FONT, tall, stroke)
    (wide, high), _ = cv2.getTextSize(number, _FONT, scale, stroke)
    wide, high = wide + 2 * stroke, high + 2 * stroke
    if wide > width or high > height:
        return
    left = min(left, width - wide)
    top = top - high if top >= high else min(top, height - high)
    shown[top : top + high, left : left + wide] = COLOUR
    at = (left + stroke, top + high - stroke)
    cv2.putText(shown, number, at, _FONT, scale, _DIGITS, stroke, cv2.LINE_AA)
