"""Turn a picture file's bytes into upright RGB pixels, at the size that is needed, or say why not.

JPEG goes to libjpeg-turbo at a power-of-two scale, everything else to Pillow; the format is told by
content. All functions are thread-safe, and the heavy parts release the interpreter lock.
"""

import ctypes
import logging
import struct
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache
from io import BytesIO

import cv2
import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import Image, UnidentifiedImageError, _imaging
from PIL.GifImagePlugin import GifImageFile

from roadstream.schemas.errors import ImageError
from roadstream.stages.decoding import exif, footprint, jpeg, png
from roadstream.stages.decoding.rgb import to_rgb
from roadstream.streams.sources.sniff import DECODABLE, PICTURES, describe, sniff

Pixels = npt.NDArray[np.uint8]

_PILLOW_NAMES = {"jpeg2000": "JPEG2000"}
# Formats whose Pillow readers warn about odd metadata; catching warnings takes a lock.
_TALKATIVE = frozenset({"tiff", "avif"})
# Chromium takes the alpha of AVIF for video levels, 16 to 235.
_VIDEO_LEVELS = [min(max(round((alpha - 16) * 255 / 219), 0), 255) for alpha in range(256)]
# Fields of a BMP's header: compression, size, and the usual masks of red, green, blue and alpha.
_BITFIELDS, _WITH_MASKS = struct.pack("<I", 3), struct.pack("<I", 56)
_BGRA_MASKS = struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
_warnings_lock = threading.Lock()
_pillow, _nowhere = logging.getLogger("PIL"), logging.NullHandler()


@dataclass(frozen=True, slots=True)
class DecodeLimits:
    """What a picture may cost.

    Attributes:
        max_bytes: Largest file.
        max_pixels: Most pixels to be decoded; checked from the header, before decoding.
        max_jpeg_pixels: Most pixels that a JPEG's header may tell when it is decoded at a reduced
            scale (progressive JPEGs need memory for all, so `max_pixels` holds for them).
        max_memory: Most bytes that decoding may take, besides the file; told from the header,
            before they are taken.
    """

    max_bytes: int = 64 << 20
    max_pixels: int = 100_000_000
    max_jpeg_pixels: int = 200_000_000
    max_memory: int = 512 << 20


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


def focal_length(data: bytes, size: tuple[int, int]) -> float | None:
    """Return the focal length of a picture that ``decode`` took, as a multiple of its width.

    Args:
        data: The whole file.
        size: Width and height of what ``decode`` made of it.

    Returns:
        ``None`` unless it is a JPEG or PNG whose EXIF says it; 0 if that says it is not known.
    """
    kind = sniff(data)
    if kind == "jpeg":
        return exif.focal_length(jpeg.exif_of(data), size)
    return exif.focal_length(png.exif_of(data), size) if kind == "png" else None


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
    size = header.width, header.height
    scale = _scale(size, wanted, header.orientation)
    stored = header.width * header.height
    allowed = limits.max_pixels if header.progressive else limits.max_jpeg_pixels
    if stored > allowed or stored // scale**2 > limits.max_pixels:
        raise _too_many(size, limits)
    room = _room(size, header.memory(scale), limits)
    return _turn(jpeg.decode_scaled(data, header, scale, room), header.orientation)


def _decode_png(data: bytes, wanted: tuple[int, int], limits: DecodeLimits) -> Pixels:
    picture = png.read(data)
    _check_size(picture.size, limits)
    # Pillow looks at the zlib stream's checksum only where its last bytes happen to come late.
    if picture.is_rotten():
        raise ImageError("damaged", "PNG pixels with wrong checksums")
    try:
        return _png_pixels(picture, picture.file(), wanted, limits)
    except ImageError as error:
        file = None if error.fault == "too_many_pixels" else picture.mended()
        if file is None:
            raise
    return _png_pixels(picture, file, wanted, limits)


def _png_pixels(
    picture: png.Png, file: bytes, wanted: tuple[int, int], limits: DecodeLimits
) -> Pixels:
    orientation = exif.orientation(picture.exif)
    scale = _scale(picture.size, wanted, orientation)
    with _opened(file, "png") as image:
        converting = footprint.as_rgb(picture.size, scale, orientation) + picture.memory
        _room(picture.size, footprint.in_pillow(image, file, converting), limits)
        image.load()
        # Pillow says nothing of rows that are missing when the zlib stream has its end.
        last = image.crop((0, image.height - 2, *image.size))
        if last.getbbox() is None and not picture.has_all_rows():
            raise ImageError("truncated", "PNG without its last rows")
        whole: Image.Image = image
        if image.size != picture.size:
            whole = Image.new("RGBA", picture.size)
            whole.paste(image.convert("RGBA"), picture.frame[:2])
        elif picture.has_deep_key:
            whole = _keyed(picture.file(), picture.transparency)
        return _turn(to_rgb(whole, scale), orientation)


def _decode_other(data: bytes, kind: str, wanted: tuple[int, int], limits: DecodeLimits) -> Pixels:
    if kind == "webp":
        _check_webp(data, wanted, limits)
    if kind == "bmp":
        data = _with_alpha(data)
    with _opened(data, kind) as image:
        _check_size(image.size, limits)
        # Pillow turns TIFF when it loads it, and tells AVIF's own rotation here; browsers turn no
        # other format.
        orientation = image.getexif().get(0x0112, 1) if kind == "avif" else 1
        scale = _scale(image.size, wanted, orientation)
        converting = footprint.as_rgb(image.size, scale, orientation)
        _room(image.size, footprint.in_pillow(image, data, converting), limits)
        image.load()
        if kind == "tiff":
            scale = _scale(image.size, wanted, orientation)
        if kind == "avif" and image.mode == "RGBA":
            image.putalpha(image.getchannel("A").point(_VIDEO_LEVELS))
        whole = _on_screen(image) if isinstance(image, GifImageFile) else image
        return _turn(to_rgb(whole, scale), orientation)


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
def _opened(data: bytes, kind: str) -> Iterator[Image.Image]:
    """Open a picture by the one Pillow reader that its content asks for."""
    name = _PILLOW_NAMES.get(kind, kind.upper())
    with _faults(kind), _unguarded, Image.open(BytesIO(data), formats=[name]) as image:
        yield image


class _Unguarded:
    """Lifts Pillow's limit of pixels while something is decoded here, in whatever threads.

    Sizes are checked here, from the header, with limits of our own. Others in this process decode
    with Pillow too, and rely on its limit.
    """

    def __init__(self) -> None:
        self._lock, self._inside = threading.Lock(), 0
        self._limit: int | None = None

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
            self._inside += 1

    def __exit__(self, *exc_info: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                Image.MAX_IMAGE_PIXELS = self._limit


_unguarded = _Unguarded()


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


def _keyed(file: bytes, colour: bytes) -> Image.Image:
    """Decode RGB of 16 bits with one transparent colour, which 8 bits cannot tell from others."""
    flags = cv2.IMREAD_ANYDEPTH | cv2.IMREAD_COLOR_RGB
    pixels = np.asarray(cv2.imdecode(np.frombuffer(file, np.uint8), flags), np.uint16)
    clear = (pixels == np.frombuffer(colour, ">u2")).all(axis=-1)
    shown = (pixels >> 8).astype(np.uint8)
    shown[clear] = 255
    return Image.fromarray(shown)


def _scale(size: tuple[int, int], wanted: tuple[int, int], orientation: int) -> int:
    """Pick the largest divisor of 8, 4, 2, 1 that leaves at least the wanted size, upright."""
    upright = size[::-1] if orientation >= 5 else size
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
        raise _too_many(size, limits)


def _too_many(size: tuple[int, int], limits: DecodeLimits) -> ImageError:
    millions = limits.max_pixels / 1e6
    return ImageError(
        "too_many_pixels",
        f"{size[0]:,}×{size[1]:,} pixels; at most {millions:,.0f} million are allowed",
    )


def _room(size: tuple[int, int], memory: int, limits: DecodeLimits) -> int:
    """Return how many bytes are left of what decoding may take.

    Raises:
        ImageError: It takes more.
    """
    if memory > limits.max_memory:
        raise ImageError(
            "too_many_pixels",
            f"{size[0]:,}×{size[1]:,} pixels, which take {memory / 2**20:,.0f} MiB to decode; "
            f"at most {limits.max_memory / 2**20:,.0f} are allowed (--decode-memory)",
        )
    return limits.max_memory - memory


def _check_webp(data: bytes, wanted: tuple[int, int], limits: DecodeLimits) -> None:
    """Check a WebP before it is opened, as its reader allocates two canvases then."""
    if int.from_bytes(data[4:8], "little") + 8 > len(data):
        raise ImageError("truncated", f"WebP breaks off after {len(data):,} bytes")
    kind, fields = data[12:16], int.from_bytes(data[21:25], "little")
    if kind == b"VP8X":
        size = tuple(int.from_bytes(data[at : at + 3], "little") + 1 for at in (24, 27))
    elif kind == b"VP8L":
        size = ((fields & 0x3FFF) + 1, (fields >> 14 & 0x3FFF) + 1)
    else:
        size = tuple(int.from_bytes(data[at : at + 2], "little") & 0x3FFF for at in (26, 28))
    width, height = size
    _check_size((width, height), limits)
    converting = footprint.as_rgb((width, height), _scale((width, height), wanted, 1), 1)
    _room((width, height), footprint.WEBP * width * height + converting, limits)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Pillow's warnings and log lines, and what libtiff writes, from standard error.

    What they find wrong is raised all the same. All of it holds for the whole process, so one
    thread at a time is in here, and leaves everything as it was.
    """
    with _warnings_lock, warnings.catch_warnings(), _hushed_libtiff():
        warnings.simplefilter("ignore")
        _pillow.addHandler(_nowhere)
        try:
            yield
        finally:
            _pillow.removeHandler(_nowhere)


@contextmanager
def _hushed_libtiff() -> Iterator[None]:
    had = [(set_handler, set_handler(None)) for set_handler in _libtiff_handlers()]
    try:
        yield
    finally:
        for set_handler, handler in had:
            set_handler(handler)


@cache
def _libtiff_handlers() -> list[Callable[[int | None], int | None]]:
    """Return the functions that set libtiff's handlers, and return those that were set."""
    found: list[Callable[[int | None], int | None]] = []
    for name in ("TIFFSetErrorHandler", "TIFFSetWarningHandler"):
        try:
            set_handler = getattr(ctypes.CDLL(_imaging.__file__), name)
        except (OSError, AttributeError):  # Pillow built without it, or with it hidden inside
            continue
        set_handler.argtypes, set_handler.restype = [ctypes.c_void_p], ctypes.c_void_p
        found.append(set_handler)
    return found


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
