"""Small good pictures in every format that is decoded, and the words of these formats."""

from collections.abc import Sequence
from io import BytesIO
from typing import Any, NamedTuple

import numpy as np
from PIL import Image as Picture


def _scene(width: int = 56, height: int = 40) -> Picture.Image:
    """Draw something with edges, slopes and noise, so that every coder has work."""
    rows, columns = np.mgrid[0:height, 0:width]
    noise = np.random.default_rng(1).integers(0, 40, (height, width))
    red = (columns * 4) % 256
    green = np.where((rows // 8 + columns // 8) % 2, 220, 30)
    pixels = np.stack([red, green, noise + 100], axis=-1).astype(np.uint8)
    return Picture.fromarray(pixels)


def _saved(picture: Picture.Image, form: str, **options: Any) -> bytes:
    buffer = BytesIO()
    picture.save(buffer, form, **options)
    return buffer.getvalue()


def _exif() -> Picture.Exif:
    exif = Picture.Exif()
    exif[0x0112] = 6
    exif[0x010F] = "camera"
    return exif


def exif_block() -> bytes:
    """Return an EXIF block that turns the picture."""
    return _exif().tobytes()


class _Kinds(NamedTuple):
    """One scene in every kind of pixels, and what may be saved with it."""

    rgb: Picture.Image
    grey: Picture.Image
    bits: Picture.Image
    alpha: Picture.Image
    palette: Picture.Image
    cmyk: Picture.Image
    deep: Picture.Image
    turned: dict[str, Any]
    moving: dict[str, Any]


def _kinds() -> _Kinds:
    rgb = _scene()
    grey = rgb.convert("L")
    return _Kinds(
        rgb=rgb,
        grey=grey,
        bits=grey.convert("1"),
        alpha=rgb.convert("RGBA"),
        palette=rgb.convert("P", palette=Picture.Palette.ADAPTIVE),
        cmyk=rgb.convert("CMYK"),
        deep=Picture.fromarray(np.asarray(grey).astype(np.uint16) * 257),
        turned={"exif": _exif()},
        moving={"save_all": True, "append_images": [rgb.rotate(90), rgb]},
    )


def pictures() -> dict[str, list[bytes]]:
    """Return small pictures by format, each in several kinds."""
    kinds = _kinds()
    return _on_the_web(kinds) | _elsewhere(kinds)


def _on_the_web(of: _Kinds) -> dict[str, list[bytes]]:
    return {
        "jpeg": [
            _saved(of.rgb, "JPEG", quality=70),
            _saved(of.rgb, "JPEG", quality=90, subsampling=0, **of.turned),
            _saved(of.rgb, "JPEG", progressive=True),
            _saved(of.rgb, "JPEG", restart_marker_blocks=2, comment=b"hello"),
            _saved(of.grey, "JPEG"),
            _saved(of.cmyk, "JPEG"),
            _saved(of.cmyk, "JPEG", progressive=True, **of.turned),
        ],
        "png": [
            _saved(of.rgb, "PNG", **of.turned),
            _saved(of.alpha, "PNG"),
            _saved(of.palette, "PNG", transparency=3),
            _saved(of.deep, "PNG"),
            _saved(of.bits, "PNG"),
            _saved(of.rgb, "PNG", **of.moving),
        ],
        "webp": [
            _saved(of.rgb, "WEBP", quality=60, **of.turned),
            _saved(of.alpha, "WEBP", lossless=True),
            _saved(of.rgb, "WEBP", **of.moving),
        ],
    }


def _elsewhere(of: _Kinds) -> dict[str, list[bytes]]:
    return {
        "gif": [
            _saved(of.palette, "GIF"),
            _saved(of.palette, "GIF", transparency=2, interlace=1),
            _saved(of.rgb, "GIF", **of.moving),
        ],
        "bmp": [_saved(kind, "BMP") for kind in (of.rgb, of.palette, of.bits, of.alpha)],
        "tiff": [
            _saved(of.rgb, "TIFF", **of.turned),
            _saved(of.cmyk, "TIFF", compression="tiff_lzw"),
            _saved(of.deep, "TIFF", compression="tiff_deflate"),
            _saved(of.rgb, "TIFF", compression="jpeg"),
            _saved(of.bits, "TIFF", compression="group4"),
            _saved(of.palette, "TIFF", compression="packbits"),
            _saved(of.rgb, "TIFF", **of.moving),
        ],
        "avif": [
            _saved(of.rgb, "AVIF", quality=50, **of.turned),
            _saved(of.alpha, "AVIF", quality=40),
        ],
        "jpeg2000": [
            _saved(of.rgb, "JPEG2000"),
            _saved(of.grey, "JPEG2000", irreversible=True, no_jp2=True),
        ],
        "ppm": [
            *(_saved(kind, "PPM") for kind in (of.rgb, of.grey, of.bits)),
            b"P3 # text\n2 2\n255\n0 0 0 255 255 255\n1 2 3 4 5 6\n",
            b"P2\n3 1\n65535\n0 32768 65535\n",
        ],
    }


def file_words(kind: str) -> list[bytes]:
    """Return pieces that mean something in a picture format."""
    common = [b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\0\1"]
    own: dict[str, Sequence[bytes]] = {
        "jpeg": [bytes([0xFF, marker]) for marker in range(0xC0, 0xFF)]
        + [b"Exif\0\0", b"\xff\xff"],
        "png": [b"IHDR", b"IDAT", b"IEND", b"PLTE", b"tRNS", b"acTL", b"fcTL", b"iCCP", b"zTXt"],
        "webp": [b"VP8X", b"VP8 ", b"VP8L", b"ALPH", b"ANIM", b"ANMF", b"EXIF", b"RIFF"],
        "gif": [b"!\xf9\x04", b",", b";", b"!\xff\x0bNETSCAPE2.0", b"GIF87a"],
        "bmp": [b"BM", b"\x28\0\0\0", b"\x01\0\0\0", b"\x02\0\0\0", b"\x03\0\0\0"],
        "tiff": [b"II*\0", b"MM\0*", b"\x00\x01\x03\x00", b"\x01\x01\x04\x00", b"\x03\x01\x03\x00"],
        "avif": [b"ftyp", b"meta", b"iloc", b"iprp", b"ispe", b"mdat", b"av1C", b"auxC", b"irot"],
        "jpeg2000": [b"\xff\x4f", b"\xff\x51", b"\xff\x52", b"\xff\x90", b"jp2c", b"ihdr"],
        "ppm": [b"P1", b"P2", b"P3", b"P4", b"P5", b"P6", b"99999 99999\n", b"#", b"-1"],
    }
    return [*common, *own[kind]]
