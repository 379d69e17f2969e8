"""Convert what Pillow has loaded to 8-bit RGB on a white page, in little memory."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from PIL import Image

from roadstream.stages.decoding.footprint import BAND

Pixels = npt.NDArray[np.uint8]

_STEP = 8  # rows of a band are a multiple of every scale


def to_rgb(image: Image.Image, scale: int) -> Pixels:
    """Convert a loaded picture of any mode.

    What is transparent shows a white page behind it. Grey of more than 8 bits is scaled to 0 to 255
    from the range that its type and values suggest.

    Args:
        image: The picture.
        scale: 1, 2, 4 or 8, which width and height are divided by.

    Returns:
        RGB uint8 [⌈H/scale⌉, ⌈W/scale⌉, 3].
    """
    width, height = image.size
    if image.mode == "RGB" and "transparency" not in image.info and scale > 1:
        return np.asarray(image.reduce(scale), np.uint8)
    if width * height <= BAND:
        return _scaled(_flat(image, _white(image)), scale)
    pixels = np.empty((-(-height // scale), -(-width // scale), 3), np.uint8)
    white = _white(image)
    for top, band in _bands(image):
        rows = _scaled(_flat(band, white), scale)
        pixels[top // scale : top // scale + len(rows)] = rows
    return pixels


def _scaled(image: Image.Image, scale: int) -> Pixels:
    return np.asarray(image.reduce(scale) if scale > 1 else image, np.uint8)


def _bands(image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    """Cut a large picture, to convert it in little memory: first row and picture of each band."""
    width, height = image.size
    rows = max(BAND // width // _STEP, 1) * _STEP
    if rows >= height:
        yield 0, image
        return
    for top in range(0, height, rows):
        yield top, image.crop((0, top, width, min(top + rows, height)))


def _flat(image: Image.Image, white: float) -> Image.Image:
    """Convert to RGB; what is transparent shows the white page behind it.

    Args:
        image: Of any mode.
        white: The value that is white, of grey pictures of more than 8 bits.
    """
    if image.mode.startswith(("I", "F")):
        return Image.fromarray(_eight_bits(image, white)).convert("RGB")
    if image.mode in {"LA", "La", "PA", "RGBA", "RGBa"} or "transparency" in image.info:
        layer = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
        page = Image.new("RGB", image.size, "white")
        page.paste(layer, mask=layer)
        return page
    return image if image.mode == "RGB" else image.convert("RGB")


def _white(image: Image.Image) -> float:
    """Return the value that is white, of a grey picture with more than 8 bits; 255 of others."""
    if image.mode.startswith("I;16"):
        return 65535.0
    if image.mode not in {"I", "F"}:
        return 255.0
    top = max(float(_finite(band).max(initial=0.0)) for _, band in _bands(image))
    if image.mode == "F" and top <= 1.0:
        return 1.0
    return max(top, 65535.0 if top > 255 else 255.0)


def _finite(image: Image.Image) -> npt.NDArray[np.float32]:
    return np.nan_to_num(np.asarray(image, np.float32), posinf=0.0, neginf=0.0)


def _eight_bits(image: Image.Image, white: float) -> Pixels:
    """Scale a grey picture of more than 8 bits to 0 to 255; one grey of it may be transparent."""
    scaled = (_finite(image) * (255.0 / white)).clip(0, 255).astype(np.uint8)
    if (clear := image.info.get("transparency")) is not None:
        scaled[np.asarray(image) == clear] = 255
    return scaled
