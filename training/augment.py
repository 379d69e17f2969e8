"""Random views of a picture: crops that know the boxes, pasted objects, weather, light and lenses.

Sources predict the label in this collection, so views must destroy what tells sources apart:
shape, sharpness, compression, colour balance, black corners, and the mere presence of a city.
All pictures are uint8 RGB [H, W, 3]; `rng` is a NumPy generator, and every view follows from it.
"""

from collections.abc import Callable

import cv2
import numpy as np
from corpus import Box, Pixels
from numpy.random import Generator

Area = tuple[float, float, float, float]  # x1, y1, x2, y2 in [0, 1]
VISIBLE_SHARE = 0.5  # share of a box's area that must lie in a crop for it to count as seen


def visible(boxes: tuple[Box, ...], area: Area) -> bool:
    """Say whether the crop `area` shows at least half of any box."""
    for box in boxes:
        width = min(box.x2, area[2]) - max(box.x1, area[0])
        height = min(box.y2, area[3]) - max(box.y1, area[1])
        size = (box.x2 - box.x1) * (box.y2 - box.y1)
        if width > 0 and height > 0 and width * height >= VISIBLE_SHARE * size:
            return True
    return False


def touched(boxes: tuple[Box, ...], area: Area) -> bool:
    """Say whether the crop `area` shows any part of any box."""
    x1, y1, x2, y2 = area
    return any(box.x1 < x2 and box.x2 > x1 and box.y1 < y2 and box.y2 > y1 for box in boxes)


def random_area(rng: Generator, smallest: float, largest: float) -> Area:
    """Draw a crop with `smallest`..`largest` of the picture's area, sides stretched up to 1.5."""
    share = rng.uniform(smallest, largest)
    stretch = np.exp(rng.uniform(-0.4, 0.4))
    width = min(1.0, np.sqrt(share * stretch))
    height = min(1.0, np.sqrt(share / stretch))
    left, top = rng.uniform(0, 1 - width), rng.uniform(0, 1 - height)
    return (left, top, left + width, top + height)


def crop(image: Pixels, area: Area, size: tuple[int, int], rng: Generator) -> Pixels:
    """Cut `area` out and stretch it to (width, height) with a random interpolation."""
    height, width = image.shape[:2]
    x1, x2 = int(area[0] * width), max(int(area[0] * width) + 1, round(area[2] * width))
    y1, y2 = int(area[1] * height), max(int(area[1] * height) + 1, round(area[3] * height))
    method = rng.choice([cv2.INTER_AREA, cv2.INTER_AREA, cv2.INTER_LINEAR, cv2.INTER_CUBIC])
    return np.asarray(cv2.resize(image[y1:y2, x1:x2], size, interpolation=int(method)), np.uint8)


def turn(image: Pixels, rng: Generator) -> Pixels:
    """Rotate by up to 14 degrees and shear a little; corners are black, grey or mirrored."""
    height, width = image.shape[:2]
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), rng.normal(0, 6), 1.0)
    matrix[0, 1] += rng.normal(0, 0.05)
    border = int(rng.choice([cv2.BORDER_CONSTANT, cv2.BORDER_REFLECT_101]))
    fill = float(rng.choice([0, 0, 114]))
    return np.asarray(
        cv2.warpAffine(image, matrix, (width, height), borderMode=border, borderValue=(fill,) * 3),
        np.uint8,
    )


def light(image: Pixels, rng: Generator) -> Pixels:
    """Change gamma, contrast, brightness and the balance of the three channels."""
    levels = np.linspace(0, 1, 256)
    gamma = np.exp(rng.normal(0, 0.35))
    contrast, brightness = np.exp(rng.normal(0, 0.25)), rng.normal(0, 0.08)
    curve = (levels**gamma - 0.5) * contrast + 0.5 + brightness
    gains = np.exp(rng.normal(0, 0.08, 3))
    table = np.clip(curve[:, None] * gains[None] * 255, 0, 255).astype(np.uint8)
    return np.asarray(cv2.LUT(image, table[None]), np.uint8)


def colour(image: Pixels, rng: Generator) -> Pixels:
    """Change saturation strongly and hue by up to about 8 degrees; sometimes drop all colour."""
    if rng.random() < 0.12:
        return np.asarray(cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), 8), np.uint8)
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV).astype(np.int16)
    hsv[..., 0] = (hsv[..., 0] + int(rng.normal(0, 2))) % 180
    hsv[..., 1] = np.clip(hsv[..., 1] * np.exp(rng.normal(0, 0.3)), 0, 255)
    return np.asarray(cv2.cvtColor(hsv.astype(np.uint8), cv2.COLOR_HSV2RGB), np.uint8)


def blur(image: Pixels, rng: Generator) -> Pixels:
    """Blur by defocus, by motion along the road, or by a low resolution."""
    height, width = image.shape[:2]
    kind = rng.integers(3)
    if kind == 0:
        return np.asarray(cv2.GaussianBlur(image, (0, 0), rng.uniform(0.5, 1.8)), np.uint8)
    if kind == 1:
        length = int(rng.integers(2, 8))
        return np.asarray(cv2.blur(image, (length, 1 + int(rng.integers(2)))), np.uint8)
    factor = rng.uniform(0.4, 0.8)
    small = cv2.resize(image, (int(width * factor), int(height * factor)), interpolation=3)
    return np.asarray(cv2.resize(small, (width, height)), np.uint8)


def compress(image: Pixels, rng: Generator) -> Pixels:
    """Pass through JPEG at quality 15 to 85."""
    done, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(15, 86))])
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8) if done else image


def grain(image: Pixels, rng: Generator) -> Pixels:
    """Add sensor noise of up to 15 levels."""
    noise = rng.integers(-127, 128, image.shape, dtype=np.int16)
    level = int(rng.uniform(1, 12) * 6)
    return np.asarray(np.clip(image + noise * level // 256, 0, 255), np.uint8)


def fog(image: Pixels, rng: Generator) -> Pixels:
    """Blend towards a grey veil that is thickest at a random horizon."""
    height = image.shape[0]
    rows = np.linspace(0, 1, height)[:, None, None]
    depth = 1 - np.abs(rows - rng.uniform(0.3, 0.55)) * rng.uniform(0.6, 1.4)
    veil = np.clip(depth, 0, 1) * rng.uniform(0.3, 0.75)
    shade = rng.uniform(140, 235)
    return np.asarray(image * (1 - veil) + shade * veil, np.uint8)


def rain(image: Pixels, rng: Generator) -> Pixels:
    """Draw slanted streaks and soft drops on the windscreen, and take some contrast away."""
    height, width = image.shape[:2]
    layer = np.zeros((height, width), np.uint8)
    slant, length = rng.normal(0, 0.3), rng.uniform(0.02, 0.08) * height
    for _ in range(int(rng.integers(40, 160))):
        x, y = rng.uniform(0, width), rng.uniform(0, height)
        end = (int(x + slant * length), int(y + length))
        cv2.line(layer, (int(x), int(y)), end, int(rng.integers(60, 200)), 1)
    for _ in range(int(rng.integers(0, 10))):
        spot = (int(rng.uniform(0, width)), int(rng.uniform(0, height)))
        cv2.circle(layer, spot, int(rng.integers(2, 9)), int(rng.integers(40, 120)), -1)
    veil = cv2.GaussianBlur(layer, (0, 0), 1.0)[..., None].astype(np.float32) * 0.5
    dull = (image.astype(np.float32) - 110) * rng.uniform(0.6, 0.9) + rng.uniform(80, 115)
    return np.asarray(np.clip(dull + veil, 0, 255), np.uint8)


def night(image: Pixels, rng: Generator) -> Pixels:
    """Darken to night: dim and tinted, lit by headlights below the middle, bright spots stay."""
    height, width = image.shape[:2]
    part = image.astype(np.float32) / 255
    rows = np.linspace(0, 1, height, dtype=np.float32)[:, None]
    columns = np.linspace(-1, 1, width, dtype=np.float32)[None]
    beam = np.exp(-((rows - 0.72) ** 2) / 0.06 - columns**2 / 0.5) * rng.uniform(0.1, 0.6)
    gain = rng.uniform(0.2, 0.5) + beam
    tint = np.array([[1.1, 0.95, 0.7], [0.8, 0.95, 1.2], [1, 1, 1]], np.float32)[rng.integers(3)]
    dark = part ** rng.uniform(1.2, 1.9) * gain[..., None] * tint
    return np.asarray(np.clip(np.maximum(dark, (part > 0.97) * 0.8) * 255, 0, 255), np.uint8)


def cover(image: Pixels, rng: Generator) -> Pixels:
    """Cover edges and spots: bonnet or dashboard, black bars, a text strip, grey patches."""
    image = image.copy()
    height, width = image.shape[:2]
    kind = rng.integers(4)
    if kind == 0:
        top = int(height * rng.uniform(0.86, 0.97))
        image[top:] = rng.integers(5, 70)
    elif kind == 1:
        bar = int((height if rng.random() < 0.5 else width) * rng.uniform(0.02, 0.1))
        target = image if rng.random() < 0.5 else image.transpose(1, 0, 2)
        target[:bar] = 0
        target[-bar:] = 0
    elif kind == 2:
        text = "".join(rng.choice(list("0123456789:/ KMHNW."), 24))
        place = (int(width * rng.uniform(0, 0.4)), int(height * rng.choice([0.06, 0.97])))
        cv2.putText(image, text, place, 0, width / 1000, (240, 240, 240), 1)
    else:
        for _ in range(int(rng.integers(1, 5))):
            x, y = int(rng.uniform(0, width)), int(rng.uniform(0, height))
            size = (height + width) // 2
            side = int(size * rng.uniform(0.03, 0.12))
            image[y : y + side, x : x + side] = rng.integers(0, 256, 3)
    return image


# (chance, change), applied in this order to every training view.
CHANGES: tuple[tuple[float, Callable[[Pixels, Generator], Pixels]], ...] = (
    (0.35, turn),
    (0.8, light),
    (0.6, colour),
    (0.08, fog),
    (0.14, night),
    (0.10, rain),
    (0.30, blur),
    (0.25, grain),
    (0.20, cover),
    (0.45, compress),
)


def disturb(image: Pixels, rng: Generator) -> Pixels:
    """Flip half of the pictures and apply each change of `CHANGES` with its chance."""
    if rng.random() < 0.5:
        image = np.ascontiguousarray(image[:, ::-1])
    for chance, change in CHANGES:
        if rng.random() < chance:
            image = change(image, rng)
    return np.ascontiguousarray(image)
