"""Turn a picture file's bytes into upright RGB pixels, at the size that is needed, or say why not.

JPEG goes to libjpeg-turbo at a power-of-two scale, everything else to Pillow; the format is told by
content. All functions are thread-safe, and the heavy parts release the interpreter lock.
"""

import ctypes
import logging
import struct
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from io import BytesIO

import cv2
import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import Image, UnidentifiedImageError, _imaging
from PIL.GifImagePlugin import GifImageFile

from schemas.errors import ImageError
from stages import jpeg, png
from streams.sources.sniff import DECODABLE, PICTURES, describe, sniff

Pixels = npt.NDArray[np.uint8]

# Sizes are checked here, from the header, with other limits than Pillow's; its warning stays quiet.
Image.MAX_IMAGE_PIXELS = None


def _hush_libtiff() -> None:
    """Stop libtiff from writing to standard error; what it finds wrong is raised all the same."""
    for name in ("TIFFSetErrorHandler", "TIFFSetWarningHandler"):
        try:
            set_handler = getattr(ctypes.CDLL(_imaging.__file__), name)
        except (OSError, AttributeError):  # Pillow built without it, or with it hidden inside
            continue
        set_handler.argtypes, set_handler.restype = [ctypes.c_void_p], ctypes.c_void_p
        set_handler(None)


_hush_libtiff()
logging.getLogger("PIL").addHandler(logging.NullHandler())

_PILLOW_NAMES = {"jpeg2000": "JPEG2000"}
# Formats whose Pillow readers warn about odd metadata; catching warnings takes a lock.
_TALKATIVE = frozenset({"tiff", "avif"})
# Chromium takes the alpha of AVIF for video levels, 16 to 235.
_VIDEO_LEVELS = [min(max(round((alpha - 16) * 255 / 219), 0), 255) for alpha in range(256)]
# Fields of a BMP's header: compression, size, and the usual masks of red, green, blue and alpha.
_BITFIELDS, _WITH_MASKS = struct.pack("<I", 3), struct.pack("<I", 56)
_BGRA_MASKS = struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
_warnings_lock = threading.Lock()
_BAND = 1 << 22  # pixels that are converted at once


@dataclass(frozen=True, slots=True)
class DecodeLimits:
    """What a picture may cost.

    Attributes:
        max_bytes: Largest file.
        max_pixels: Most pixels to be decoded; checked from the header, before decoding.
        max_jpeg_pixels: Most pixels that a JPEG's header may tell when it is decoded at a reduced
            scale (progressive JPEGs need memory for all, so `max_pixels` holds for them).
    """

    max_bytes: int = 64 << 20
    max_pixels: int = 100_000_000
    max_jpeg_pixels: int = 200_000_000


DEFAULT = DecodeLimits()


def decode(
    data: bytes, *, min_width: int, min_height: int, limits: DecodeLimits = DEFAULT
) -> Pixels:
    """Decode a picture at the smallest of the scales 1, 1/2, 1/4, 1/8 that is large enough.

    The result is what Chromium shows on a white page, but for colour profiles: what is transparent
    becomes white, orientations count where browsers apply them, and of an animation the first frame
    is taken. Grey, palette, CMYK and 16-bit pictures become 8-bit RGB. Faults that do not touch
    the pixels, as of metadata, are passed over.

    Args:
        data: The whole file.
        min_width: Width that is needed, of the upright picture. A smaller picture is not enlarged.
        min_height: Height that is needed, likewise.
        limits: What a picture may cost.

    Returns:
        RGB uint8 [H, W, 3], C-contiguous, upright, values 0 to 255.

    Raises:
        ImageError: ``empty``, ``not_an_image``, ``truncated``, ``damaged``, ``unsupported``,
            ``too_large`` or ``too_many_pixels``; nothing else, whatever the bytes are.
    """
    if not data:
        raise ImageError("empty", "the file has no bytes")
    if len(data) > limits.max_bytes:
        raise ImageError(
            "too_large", f"{len(data):,} bytes; at most {limits.max_bytes:,} are allowed"
        )
    kind = sniff(data)
    if kind not in DECODABLE:
        raise _refusal(kind)
    if kind == "jpeg":
        return _decode_jpeg(data, (min_width, min_height), limits)
    if kind == "png":
        return _decode_png(data, (min_width, min_height), limits)
    return _decode_other(data, kind, (min_width, min_height), limits)


def resize(image: Pixels, width: int, height: int) -> Pixels:
    """Stretch a picture to exactly ``width`` × ``height``, smoothly and without aliasing.

    Args:
        image: uint8 [H, W, 3].
        width: Wanted width in pixels, at least 1.
        height: Wanted height in pixels, at least 1.

    Returns:
        uint8 [height, width, 3], C-contiguous; the very input where it has that size already.
    """
    # Linear interpolation looks at two neighbours, so it is right down to half size: halve first.
    while image.shape[0] > 2 * height or image.shape[1] > 2 * width:
        rows, columns = image.shape[:2]
        half = (
            (columns + 1) // 2 if columns > 2 * width else columns,
            (rows + 1) // 2 if rows > 2 * height else rows,
        )
        image = np.asarray(cv2.resize(image, half, interpolation=cv2.INTER_LINEAR), np.uint8)
    if image.shape[:2] != (height, width):
        size = (width, height)
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_LINEAR), np.uint8)
    return np.ascontiguousarray(image)


def encode_jpeg(image: Pixels, quality: int = 92) -> bytes:
    """Encode RGB uint8 [H, W, 3] as JPEG with 4:2:0 colour, ``quality`` 1 to 100."""
    encoded: bytes = simplejpeg.encode_jpeg(
        np.ascontiguousarray(image), quality=quality, colorspace="RGB", colorsubsampling="420"
    )
    return encoded


def _refusal(kind: str) -> ImageError:
    if kind in PICTURES:
        return ImageError(
            "unsupported", f"{PICTURES[kind]} pictures are not decoded; convert it to JPEG or PNG"
        )
    return ImageError("not_an_image", f"expected a picture, the file is {describe(kind)}")


def _decode_jpeg(data: bytes, wanted: tuple[int, int], limits: DecodeLimits) -> Pixels:
    header = jpeg.read_header(data)
    turned = header.orientation >= 5
    upright = (header.height, header.width) if turned else (header.width, header.height)
    scale = _scale(upright, wanted)
    stored = header.width * header.height
    allowed = limits.max_pixels if header.progressive else limits.max_jpeg_pixels
    if stored > allowed or stored // scale**2 > limits.max_pixels:
        raise _too_many(header.width, header.height, limits)
    return _turn(jpeg.decode_scaled(data, header, scale), header.orientation)


def _decode_png(data: bytes, wanted: tuple[int, int], limits: DecodeLimits) -> Pixels:
    picture = png.read(data)
    _check_size(picture.size, limits)
    # Where the chunks' checksums are right, browsers pass over a wrong one of the zlib stream; and
    # Pillow sees that rows are missing only without it, but not where it miscounts them.
    if not picture.checked or (picture.interlaced and picture.depth < 8):
        return _png_pixels(picture, picture.file(), wanted)
    try:
        return _png_pixels(picture, picture.file(checksum=False), wanted)
    except ImageError:
        if not picture.ends_oddly():
            raise
    return _png_pixels(picture, picture.file(), wanted)


def _png_pixels(picture: png.Png, file: bytes, wanted: tuple[int, int]) -> Pixels:
    orientation = jpeg.exif_orientation(picture.exif)
    with _opened(file, "png") as image:
        whole: Image.Image = image
        if image.size != picture.size:
            whole = Image.new("RGBA", picture.size)
            whole.paste(image.convert("RGBA"), picture.frame[:2])
        elif picture.depth == 16 and picture.colour == png.RGB and picture.transparency:
            whole = _keyed(picture.file(), picture.transparency)
        return _turn(_pixels(whole, wanted, orientation), orientation)


def _decode_other(data: bytes, kind: str, wanted: tuple[int, int], limits: DecodeLimits) -> Pixels:
    _check_webp_canvas(data, kind, limits)
    if kind == "bmp":
        data = _with_alpha(data)
    with _opened(data, kind, limits) as image:
        # Pillow has turned TIFF, and tells AVIF's own rotation here; browsers turn no other format.
        orientation = image.getexif().get(0x0112, 1) if kind == "avif" else 1
        if kind == "avif" and image.mode == "RGBA":
            image.putalpha(image.getchannel("A").point(_VIDEO_LEVELS))
        whole = _on_screen(image) if isinstance(image, GifImageFile) else image
        return _turn(_pixels(whole, wanted, orientation), orientation)


def _with_alpha(data: bytes) -> bytes:
    """Have Pillow look at the alpha mask of a 32-bit BMP where Chromium does."""
    size, _, _, _, bits, compression = struct.unpack_from("<IiiHHI", data.ljust(70, b"\0"), 14)
    if bits == 32 and size >= 108 and compression == 0 and data[54:70] == _BGRA_MASKS:
        return data[:30] + _BITFIELDS + data[34:]
    if bits == 32 and size == 40 and compression == 6:
        return data[:14] + _WITH_MASKS + data[18:30] + _BITFIELDS + data[34:]
    return data


def _on_screen(image: GifImageFile) -> Image.Image:
    """Return a GIF's first frame on its screen, which is transparent around it."""
    frame = image.dispose_extent
    if frame in {None, (0, 0, *image.size)}:
        return image
    screen = Image.new("RGBA", image.size)
    screen.paste(image.crop(frame).convert("RGBA"), frame)
    return screen


@contextmanager
def _opened(data: bytes, kind: str, limits: DecodeLimits | None = None) -> Iterator[Image.Image]:
    """Open and load a picture by the one Pillow reader that its content asks for."""
    name = _PILLOW_NAMES.get(kind, kind.upper())
    with _faults(kind), Image.open(BytesIO(data), formats=[name]) as image:
        if limits is not None:
            _check_size(image.size, limits)
        image.load()
        yield image


@contextmanager
def _faults(kind: str) -> Iterator[None]:
    """Silence Pillow's warnings, and turn what it raises into a fault of the picture."""
    try:
        with _quiet() if kind in _TALKATIVE else nullcontext():
            yield
    except ImageError:
        raise
    except Exception as error:  # Pillow's readers raise a dozen types on damaged files
        raise _pillow_fault(error, kind) from None


def _pixels(image: Image.Image, wanted: tuple[int, int], orientation: int) -> Pixels:
    """Convert a loaded picture to RGB at the scale that is wanted."""
    width, height = image.size
    scale = _scale((height, width) if orientation >= 5 else image.size, wanted)
    pixels = np.empty((-(-height // scale), -(-width // scale), 3), np.uint8)
    full = _full_scale(image)
    for top, band in _bands(image):
        flat = _flat(band, full)
        rows = np.asarray(flat.reduce(scale) if scale > 1 else flat)
        pixels[top // scale : top // scale + len(rows)] = rows
    return pixels


def _bands(image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    """Cut a large picture, to convert it in little memory: first row and picture of each band."""
    width, height = image.size
    rows = max(_BAND // width // jpeg.SCALES[0], 1) * jpeg.SCALES[0]
    if rows >= height:
        yield 0, image
        return
    for top in range(0, height, rows):
        yield top, image.crop((0, top, width, min(top + rows, height)))


def _flat(image: Image.Image, full: float) -> Image.Image:
    """Convert to RGB; what is transparent shows the white page behind it.

    Args:
        image: Of any mode.
        full: The value that is white, of pictures with more than 8 bits.
    """
    if image.mode.startswith(("I", "F")):
        return Image.fromarray(_eight_bits(image, full)).convert("RGB")
    if image.mode in {"LA", "La", "PA", "RGBA", "RGBa"} or "transparency" in image.info:
        layer = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
        page = Image.new("RGB", image.size, "white")
        page.paste(layer, mask=layer)
        return page
    return image if image.mode == "RGB" else image.convert("RGB")


def _full_scale(image: Image.Image) -> float:
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


def _eight_bits(image: Image.Image, full: float) -> Pixels:
    """Scale a grey picture of more than 8 bits to 0 to 255; one grey of it may be transparent."""
    scaled = (_finite(image) * (255.0 / full)).clip(0, 255).astype(np.uint8)
    if (clear := image.info.get("transparency")) is not None:
        scaled[np.asarray(image) == clear] = 255
    return scaled


def _keyed(file: bytes, colour: bytes) -> Image.Image:
    """Decode RGB of 16 bits with one transparent colour, which 8 bits cannot tell from others."""
    flags = cv2.IMREAD_ANYDEPTH | cv2.IMREAD_COLOR_RGB
    pixels = np.asarray(cv2.imdecode(np.frombuffer(file, np.uint8), flags), np.uint16)
    clear = (pixels == np.frombuffer(colour, ">u2")).all(axis=-1)
    shown = (pixels >> 8).astype(np.uint8)
    shown[clear] = 255
    return Image.fromarray(shown)


def _scale(upright: tuple[int, int], wanted: tuple[int, int]) -> int:
    """Pick the largest divisor of 8, 4, 2, 1 that leaves at least the wanted size."""
    for scale in jpeg.SCALES:
        if all(-(-have // scale) >= want for have, want in zip(upright, wanted, strict=True)):
            return scale
    return 1


def _turn(image: Pixels, orientation: int) -> Pixels:
    """Apply an EXIF orientation (1 to 8) and make the result C-contiguous."""
    if orientation >= 5:
        image = image.transpose(1, 0, 2)
    if orientation in {3, 4, 7, 8}:
        image = image[::-1]
    if orientation in {2, 3, 6, 7}:
        image = image[:, ::-1]
    return np.ascontiguousarray(image)


def _check_size(size: tuple[int, int], limits: DecodeLimits) -> None:
    if size[0] * size[1] > limits.max_pixels:
        raise _too_many(*size, limits)


def _too_many(width: int, height: int, limits: DecodeLimits) -> ImageError:
    return ImageError(
        "too_many_pixels",
        f"{width:,}×{height:,} pixels; at most {limits.max_pixels / 1e6:,.0f} million are allowed",
    )


def _check_webp_canvas(data: bytes, kind: str, limits: DecodeLimits) -> None:
    """Check an extended WebP's canvas here, as its reader allocates it on opening."""
    if kind != "webp":
        return
    if int.from_bytes(data[4:8], "little") + 8 > len(data):
        raise ImageError("truncated", f"WebP breaks off after {len(data):,} bytes")
    if data[12:16] == b"VP8X":
        width = int.from_bytes(data[24:27], "little") + 1
        height = int.from_bytes(data[27:30], "little") + 1
        _check_size((width, height), limits)


@contextmanager
def _quiet() -> Iterator[None]:
    with _warnings_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _pillow_fault(error: Exception, kind: str) -> ImageError:
    """Turn what a Pillow reader raised into a fault."""
    words = " ".join(str(error).split())[:200]
    name = kind.upper()
    if isinstance(error, MemoryError):
        return ImageError("too_many_pixels", f"{name} needs more memory than there is")
    if isinstance(error, UnidentifiedImageError):
        return ImageError("damaged", f"{name} has a damaged header")
    if isinstance(error, EOFError) or any(w in words.lower() for w in ("truncated", "end of")):
        return ImageError("truncated", f"{name} breaks off ({words})")
    if "unsupported" in words.lower() or "unknown" in words.lower():
        return ImageError("unsupported", f"{name} of a rare kind ({words})")
    return ImageError("damaged", f"{name} is damaged ({words or type(error).__name__})")
