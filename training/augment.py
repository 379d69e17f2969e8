"""Random changes of light, weather, lenses and files, for training views.

Sources predict the label in this collection, so views must destroy what tells sources apart:
sharpness, compression, colour balance, black bars, captions; and colour itself, so that objects
are known by their shape. All pictures are uint8 RGB [H, W, 3]; `rng` is a NumPy generator, and
every change follows from it.
"""

from collections.abc import Callable

import cv2
import numpy as np
from numpy.random import Generator

from roadstream.stages.rules.cones import Pixels


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
    if rng.random() < 0.15:
        return np.asarray(
            cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB), np.uint8
        )
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


def tint(image: Pixels, rng: Generator) -> Pixels:
    """Lay one colour over everything, as dirty glass, tinted windscreens and cheap sensors do."""
    colour = np.array(
        [[60, 190, 210], [70, 110, 220], [210, 170, 90], [150, 150, 150], [190, 120, 190]]
    )[rng.integers(5)]
    share = rng.uniform(0.12, 0.45)
    grey = image.mean(2, keepdims=True)
    toned = grey * 0.5 + image * 0.5
    return np.asarray(np.clip(toned * (1 - share) + colour * share, 0, 255), np.uint8)


def smear(image: Pixels, rng: Generator) -> Pixels:
    """Let stray light of a low sun or dirt on the glass spread from one side."""
    height, width = image.shape[:2]
    x0, y0 = rng.uniform(-0.2, 1.2), rng.uniform(-0.3, 0.8)
    columns, rows = np.linspace(0, 1, width)[None], np.linspace(0, 1, height)[:, None]
    veil = np.exp(-((columns - x0) ** 2 + (rows - y0) ** 2) / rng.uniform(0.05, 0.5))
    veil = (veil * rng.uniform(0.2, 0.75))[..., None]
    glow = np.array([255, rng.uniform(215, 250), rng.uniform(160, 240)])
    return np.asarray(image * (1 - veil) + glow * veil, np.uint8)


def dusk(image: Pixels, rng: Generator) -> Pixels:
    """Take light and colour away: blue shadows, a hint of red, strong noise reduction."""
    grey = image.mean(2, keepdims=True)
    toned = grey + (image - grey) * rng.uniform(0.25, 0.7)
    cast = np.array([rng.uniform(0.75, 1.0), rng.uniform(0.8, 0.95), rng.uniform(0.95, 1.2)])
    return np.asarray(np.clip(toned * cast * rng.uniform(0.3, 0.65), 0, 255), np.uint8)


# (chance, change): the first list before the weather, of which there is at most one, then the rest.
Change = Callable[[Pixels, Generator], Pixels]
LIGHT: tuple[tuple[float, Change], ...] = ((0.7, light), (0.55, colour))
WEATHER: tuple[tuple[float, Change], ...] = (
    (0.10, fog), (0.10, tint), (0.08, smear), (0.07, dusk), (0.09, night), (0.06, rain),
)  # fmt: skip
CAMERA: tuple[tuple[float, Change], ...] = (
    (0.30, blur), (0.25, grain), (0.10, cover), (0.45, compress),
)  # fmt: skip


def disturb(image: Pixels, rng: Generator) -> Pixels:
    """Change light, weather and camera, each by its chance; no change moves anything."""
    image = each(LIGHT, image, rng)
    draw = rng.random()
    for chance, change in WEATHER:
        if 0 <= draw < chance:
            image = change(image, rng)
        draw -= chance
    return np.ascontiguousarray(each(CAMERA, image, rng))


def each(changes: tuple[tuple[float, Change], ...], image: Pixels, rng: Generator) -> Pixels:
    """Make each of some changes by its chance."""
    for chance, change in changes:
        if rng.random() < chance:
            image = change(image, rng)
    return image
