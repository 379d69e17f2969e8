"""Makes the pictures of `test_as_chromium`: odd ones, and a few that are not whole."""

import struct
import zlib
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from tests.kits.decode_kit import SCENE, saved

Samples = npt.NDArray[np.int64]
HEIGHT, WIDTH = SCENE.shape[:2]
IMAGE = Image.fromarray(SCENE)
ACROSS = np.tile(np.linspace(0, 255, WIDTH).astype(np.uint8), (HEIGHT, 1))
_JUNK = bytes(np.random.default_rng(5).integers(1, 200, 400).tolist())
ORIENTATION, SHORT, LONG = 0x112, 3, 4


def clear() -> Image.Image:
    """The scene, ever less transparent to the right, and its upper third not there at all."""
    alpha = ACROSS.copy()
    alpha[:30] = 0
    return Image.fromarray(np.dstack([SCENE, alpha]))


def entry(tag: int, kind: int, count: int, value: int, order: str = "<") -> bytes:
    shape = {1: "B3x", 3: "H2x", 4: "I", 7: "B3x", 8: "h2x", 9: "i"}[kind]
    return struct.pack(f"{order}HHI{shape}", tag, kind, count, value)


def exif(*entries: bytes, order: str = "<", after: bytes = bytes(4)) -> bytes:
    head = b"II*\0" if order == "<" else b"MM\0*"
    start = struct.pack(f"{order}IH", 8, len(entries))
    return head + start + b"".join(entries) + after


def turned(value: int = 6, kind: int = SHORT, count: int = 1, order: str = "<") -> bytes:
    return exif(entry(ORIENTATION, kind, count, value, order), order=order)


def exif_blocks() -> dict[str, bytes]:
    """EXIF blocks that a picture of any format may have."""
    plain = turned()
    inner = struct.pack("<H", 1) + entry(ORIENTATION, SHORT, 1, 6) + bytes(4)
    pointer = entry(0x8769, LONG, 1, 26)
    return {
        "short": plain,
        "short-big-endian": turned(order=">"),
        "long": turned(kind=LONG),
        "long-big-endian": turned(kind=LONG, order=">"),
        "byte": turned(kind=1),
        "signed": turned(kind=8),
        "count-0": turned(count=0),
        "count-2": turned(count=2),
        "value-0": turned(0),
        "value-9": turned(9),
        "mirrored": turned(5),
        "twice": exif(entry(ORIENTATION, SHORT, 1, 6), entry(ORIENTATION, SHORT, 1, 1)),
        "second-valid": exif(entry(ORIENTATION, SHORT, 1, 9), entry(ORIENTATION, SHORT, 1, 6)),
        "thumbnail-only": exif(entry(0x100, SHORT, 1, 5), after=struct.pack("<I", 26) + inner),
        "exif-directory": exif(pointer, after=bytes(4) + inner),
        "cut-in-value": plain[:-6],
        "cut-behind": plain[:-4],
        "too-many-entries": plain[:8] + struct.pack("<H", 50) + plain[10:],
        "nowhere": plain[:4] + b"\xff\xff\xff\x7f" + plain[8:],
        "big-tiff": b"II+\0" + plain[4:],
    }


# --- JPEG


def segment(marker: int, body: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body


def jpeg(image: Image.Image = IMAGE, **options: object) -> bytes:
    return saved(image, "JPEG", **({"quality": 92} | options))


def segments(data: bytes) -> tuple[list[bytes], bytes]:
    """The segments before the first scan, and all from there on."""
    found: list[bytes] = []
    at = 2
    while data[at + 1] != 0xDA:
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        found.append(data[at:end])
        at = end
    return found, data[at:]


def with_exif(data: bytes, block: bytes) -> bytes:
    return data[:2] + segment(0xE1, b"Exif\0\0" + block) + data[2:]


def jpeg_headers() -> dict[str, bytes]:
    base = jpeg()
    jfif, frame, scan = base.index(b"JFIF\0"), base.index(b"\xff\xc0"), base.index(b"\xff\xda")
    data_at = scan + 2 + int.from_bytes(base[scan + 2 : scan + 4], "big")
    bare = base[:2] + base[20:]
    parts, rest = segments(base)
    tables = [part for part in parts if part[1] == 0xDB]
    ranges = base[: data_at - 3] + bytes(3) + base[data_at:]
    found = {
        "jfif-2.01": base[: jfif + 5] + b"\2\1" + base[jfif + 7 :],
        "jfif-0.00": base[: jfif + 5] + b"\0\0" + base[jfif + 7 :],
        "jfif-thumbnail-missing": base[: jfif + 12] + b"\5\5" + base[jfif + 14 :],
        "jfif-twice": base[:20] + base[2:],
        "jfif-none": bare,
        "jfif-after-extension": base[:20] + segment(0xE0, b"JFXX\0\x13\5\5") + base[20:],
        "range-0": ranges,
        "range-0-jfif-2.01": ranges[: jfif + 5] + b"\2\1" + ranges[jfif + 7 :],
        "range-any": base[: data_at - 3] + b"\1\5\x21" + base[data_at:],
        "junk-between": base[:20] + _JUNK[:30] + base[20:],
        "junk-before-scan": base[:scan] + _JUNK[:30] + base[scan:],
        "zeros-between": base[:20] + bytes(99) + base[20:],
        "fill-between": base[:20] + b"\xff" * 99 + base[20:],
        "segment-of-length-0": base[:20] + b"\xff\xe5\0\0" + base[20:],
        "icc-junk": base[:20] + segment(0xE2, b"ICC_PROFILE\0\5\2" + bytes(50)) + base[20:],
        "no-huffman-tables": base[:2] + b"".join(p for p in parts if p[1] != 0xC4) + rest,
        "no-quantization": base[:2] + b"".join(p for p in parts if p[1] != 0xDB) + rest,
        "quantization-last": base[:2]
        + b"".join([p for p in parts if p[1] != 0xDB] + tables)
        + rest,
        "number-of-lines": base[:-2] + segment(0xDC, struct.pack(">H", HEIGHT)) + base[-2:],
        "restarts-never-used": base[:20] + segment(0xDD, struct.pack(">H", 6000)) + base[20:],
        "taller": base[: frame + 5] + struct.pack(">H", 120) + base[frame + 7 :],
        "newline-before": b"\n" + base,
        "bytes-behind": base + _JUNK,
        "video-behind": base + b"\0\0\0\x18ftypmp42" + bytes(5000),
        "several": saved(IMAGE, "MPO", save_all=True, append_images=[IMAGE.rotate(180)]),
    }
    for transform in (0, 1, 2, 7):
        adobe = segment(0xEE, b"Adobe" + struct.pack(">HHHB", 100, 0, 0, transform))
        found[f"adobe-{transform}"] = base[:2] + adobe + bare[2:]
        found[f"adobe-{transform}-jfif"] = base[:2] + adobe + base[2:]
    return found


def jpeg_colours() -> dict[str, bytes]:
    ink = jpeg(IMAGE.convert("CMYK"))
    adobe = ink.index(b"Adobe")
    found = {
        "cmyk-no-adobe": ink[: adobe - 4] + ink[adobe + 12 :],
        "grey": jpeg(IMAGE.convert("L")),
        "rgb": jpeg(keep_rgb=True),
        "arithmetic-like-baseline": jpeg().replace(b"\xff\xc0", b"\xff\xc1", 1),
    }
    for transform in (0, 1, 2, 7):
        found[f"cmyk-adobe-{transform}"] = (
            ink[: adobe + 11] + bytes([transform]) + ink[adobe + 12 :]
        )
    for factors in ("4:4:4", "4:2:2", "4:2:0", "4:1:1"):
        found[factors.replace(":", "")] = jpeg(subsampling=factors)
    return found


def jpeg_data() -> dict[str, bytes]:
    base, progressive = jpeg(), jpeg(progressive=True)
    restarting = jpeg(restart_marker_blocks=5)
    first, first_scan = restarting.index(b"\xff\xda"), base.index(b"\xff\xda")
    at = [n for n in range(first, len(restarting)) if restarting[n : n + 2] in _RESTARTS]
    scans = [n for n in range(len(progressive)) if progressive[n : n + 2] == b"\xff\xda"]
    tables = [progressive.rindex(b"\xff\xc4", 0, n) for n in scans]

    def numbered(numbers: Sequence[int]) -> bytes:
        data = bytearray(restarting)
        for where, number in zip(at, numbers, strict=True):
            data[where + 1] = 0xD0 + number % 8
        return bytes(data)

    found = {
        "plain": base,
        "progressive": progressive,
        "restarts": restarting,
        "progressive-no-end": progressive[:-2],
        "progressive-cut": progressive[:900],
        "progressive-zeros": progressive[:-2] + bytes(16) + progressive[-2:],
        "progressive-zeros-between": progressive[: tables[3]]
        + bytes(16)
        + progressive[tables[3] :],
        "progressive-comment-between": progressive[: tables[3]]
        + segment(0xFE, b"hello")
        + progressive[tables[3] :],
        "progressive-scan-missing": progressive[: tables[1]] + progressive[tables[2] :],
        "no-end": base[:-2],
        "no-end-but-zeros": base[:-2] + bytes(100),
        "no-end-but-video": base[:-2] + b"\0\0\0\x18ftypmp42" + bytes(5000),
        "cut": base[:-300],
        "fill-before-end": base[:-2] + b"\xff" * 100 + base[-2:],
        "stuffing-before-end": base[:-2] + b"\xff\0" * 50 + base[-2:],
        "unknown-marker-before-end": base[:-2] + b"\xff\2" + base[-2:],
        "tables-before-end": base[:-2] + segment(0xC4, bytes(9)) + base[-2:],
        "scan-twice": base[:-2] + base[first_scan:],
        "another-before-end": base[:-2] + jpeg(IMAGE.resize((40, 24))) + base[-2:],
        "restart-before-end": restarting[:-2] + b"\xff\xd5" + restarting[-2:],
        "restart-missing": restarting[: at[3]] + restarting[at[3] + 2 :],
        "restarts-lost": restarting[: at[3]] + restarting[at[5] :],
        "restarts-all-0": numbered([0] * len(at)),
        "rotten": base[:-800] + bytes(byte ^ 0x5A for byte in base[-800:-780]) + base[-780:],
    }
    for count in (6, 16, 100, 1000):
        found[f"zeros-{count}-before-end"] = base[:-2] + bytes(count) + base[-2:]
    for count in (16, 100, 400):
        found[f"junk-{count}-before-end"] = base[:-2] + _JUNK[:count] + base[-2:]
    for count in (2, 8, 100):
        for name, padding in (("zeros", bytes(count)), ("junk", _JUNK[:count])):
            found[f"{name}-{count}-before-restart"] = (
                restarting[: at[3]] + padding + restarting[at[3] :]
            )
    for off in range(1, 8):
        found[f"restart-off-by-{off}"] = numbered([i + off * (i == 4) for i in range(len(at))])
        found[f"restarts-off-by-{off}"] = numbered([i + off for i in range(len(at))])
    return found


_RESTARTS = {bytes([0xFF, 0xD0 + number]) for number in range(8)}


def jpeg_exif() -> dict[str, bytes]:
    base = jpeg()
    scan = base.index(b"\xff\xda")
    sixth = segment(0xE1, b"Exif\0\0" + turned(6))
    return {
        **{name: with_exif(base, block) for name, block in exif_blocks().items()},
        "two": with_exif(with_exif(base, turned(8)), turned(6)),
        "two-first-empty": with_exif(with_exif(base, turned(8)), exif(entry(0x100, SHORT, 1, 5))),
        "two-first-junk": with_exif(with_exif(base, turned(8)), b"junkjunk"),
        "two-first-without-body": with_exif(with_exif(base, turned(8)), b""),
        "odd-name": base[:2] + segment(0xE1, b"Exif\0\xff" + turned(6)) + base[2:],
        "small-name": base[:2] + segment(0xE1, b"exif\0\0" + turned(6)) + base[2:],
        "in-app2": base[:2] + segment(0xE2, b"Exif\0\0" + turned(6)) + base[2:],
        "after-frame": base[:scan] + sixth + base[scan:],
        "behind-end": base + sixth,
        "xmp": base[:2] + segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + _XMP) + base[2:],
    }


_XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-'
    b'syntax-ns#"><rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation='
    b'"6"/></rdf:RDF></x:xmpmeta>'
)


# --- PNG


def chunk(kind: bytes, body: bytes, checksum: bytes | None = None) -> bytes:
    right = struct.pack(">I", zlib.crc32(kind + body))
    return struct.pack(">I", len(body)) + kind + body + (right if checksum is None else checksum)


def png(
    rows: bytes,
    depth: int = 8,
    colour: int = 2,
    *,
    before: bytes = b"",
    pixels: Sequence[bytes] | None = None,
    after: bytes = b"",
    interlaced: int = 0,
) -> bytes:
    """A PNG of filtered rows; or of chunks that hold them, between others."""
    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, depth, colour, 0, 0, interlaced)
    chunks = [chunk(b"IDAT", zlib.compress(rows))] if pixels is None else pixels
    end = chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + before + b"".join(chunks) + after + end


def rows_of(samples: Samples, depth: int = 8) -> bytes:
    """Rows [H, W] or [H, W, channels] without a filter."""
    flat = samples.reshape(len(samples), -1)
    if depth >= 8:
        packed = flat.astype(">u2" if depth == 16 else np.uint8)
        return b"".join(b"\0" + row.tobytes() for row in packed)
    bits = (flat[..., None] >> np.arange(depth - 1, -1, -1)) & 1
    packed = np.packbits(bits.reshape(len(flat), -1).astype(np.uint8), axis=1)
    return b"".join(b"\0" + row.tobytes() for row in packed)


ROWS = rows_of(SCENE.astype(np.int64))
_ANCILLARY = {
    b"tEXt": b"Comment\0hello",
    b"zTXt": b"Comment\0\0" + zlib.compress(b"x"),
    b"iTXt": b"Comment\0\0\0\0\0hello",
    b"iCCP": b"icc\0\0not zlib",
    b"gAMA": struct.pack(">I", 45455),
    b"cHRM": bytes(32),
    b"sRGB": b"\0",
    b"pHYs": bytes(9),
    b"tIME": bytes(7),
    b"bKGD": bytes(6),
    b"sBIT": b"\10\10\10",
    b"abCd": b"private",
}


def png_metadata() -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for kind, body in _ANCILLARY.items():
        name = kind.decode()
        wrong = chunk(kind, body, b"abcd")
        found[f"{name}-wrong-checksum"] = png(ROWS, before=wrong)
        found[f"{name}-wrong-checksum-behind"] = png(ROWS, after=wrong)
        found[f"{name}-empty"] = png(ROWS, before=chunk(kind, b""))
        found[f"{name}-long"] = png(ROWS, before=chunk(kind, body * 99))
        found[f"{name}-twice"] = png(ROWS, before=2 * chunk(kind, body))
    bomb = zlib.compress(bytes(3_000_000))
    return found | {
        "text-bomb": png(ROWS, before=chunk(b"zTXt", b"a\0\0" + bomb)),
        "international-text-bomb": png(ROWS, before=chunk(b"iTXt", b"a\0\1\0\0\0" + bomb)),
        "profile-bomb": png(ROWS, before=chunk(b"iCCP", b"a\0\0" + bomb)),
        "palette-of-rgb": png(ROWS, before=chunk(b"PLTE", bytes(768))),
        "unknown-critical": png(ROWS, before=chunk(b"ABCD", b"x")),
        "unknown-critical-behind": png(ROWS, after=chunk(b"ABCD", b"x")),
    }


def png_data() -> dict[str, bytes]:
    plain, stream = png(ROWS), zlib.compress(ROWS)
    end = len(plain) - 12
    rotten = bytearray(stream)
    rotten[len(stream) // 3] ^= 0x55
    halves = stream[:3000], stream[3000:]
    return {
        "plain": plain,
        "no-end": plain[:end],
        "no-checksum": plain[: end - 4],
        "cut": plain[: len(plain) // 2],
        "cut-in-text-behind": plain[:end] + chunk(b"tEXt", b"Comment\0" + _JUNK)[:40],
        "length-behind-the-end": plain[:end] + b"\xff\xff\xff\xffabCdxx" + plain[end:],
        "junk-behind-pixels": plain[:end] + b"junk!" + plain[end:],
        "bytes-behind": plain + _JUNK,
        "wrong-adler": png(b"", pixels=[chunk(b"IDAT", stream[:-1] + bytes([stream[-1] ^ 1]))]),
        "no-adler": png(b"", pixels=[chunk(b"IDAT", stream[:-4])]),
        "more-behind-adler": png(b"", pixels=[chunk(b"IDAT", stream + _JUNK)]),
        "wrong-checksum": png(b"", pixels=[chunk(b"IDAT", stream, b"abcd")]),
        "wrong-checksum-first": png(
            b"", pixels=[chunk(b"IDAT", halves[0], b"abcd"), chunk(b"IDAT", halves[1])]
        ),
        "text-between": png(
            b"",
            pixels=[chunk(b"IDAT", halves[0]), chunk(b"tEXt", b"a\0b"), chunk(b"IDAT", halves[1])],
        ),
        "many-chunks": png(
            b"", pixels=[chunk(b"IDAT", stream[n : n + 50]) for n in range(0, len(stream), 50)]
        ),
        "too-many-rows": png(ROWS + bytes(5000)),
        "rows-missing": png(ROWS[: len(ROWS) // 2]),
        "rotten": png(b"", pixels=[chunk(b"IDAT", bytes(rotten), struct.pack(">I", 1))]),
        "header-wrong-checksum": plain[:29] + b"abcd" + plain[33:],
    }


def png_exif() -> dict[str, bytes]:
    def with_chunks(*blocks: bytes) -> bytes:
        return png(ROWS, before=b"".join(chunk(b"eXIf", block) for block in blocks))

    return {
        **{name: with_chunks(block) for name, block in exif_blocks().items()},
        "behind": png(ROWS, after=chunk(b"eXIf", turned())),
        "prefixed": with_chunks(b"Exif\0\0" + turned()),
        "two": with_chunks(turned(6), turned(8)),
        "two-first-junk": with_chunks(b"junkjunk", turned()),
        "wrong-checksum": png(ROWS, before=chunk(b"eXIf", turned(), b"abcd")),
        "two-first-wrong-checksum": png(
            ROWS, before=chunk(b"eXIf", turned(8), b"abcd") + chunk(b"eXIf", turned(6))
        ),
        "xmp": png(ROWS, before=chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + _XMP)),
    }


def png_colours() -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    grey = SCENE[..., 0].astype(np.int64)
    for depth in (1, 2, 4, 8, 16):
        top = (1 << depth) - 1
        rows = rows_of(grey * top // 255, depth)
        key = int(grey[48, 90]) * top // 255
        found[f"grey-{depth}"] = png(rows, depth, 0)
        found[f"grey-{depth}-key"] = png(rows, depth, 0, before=_key(key))
        if depth < 16:
            found[f"grey-{depth}-key-too-large"] = png(rows, depth, 0, before=_key(key | top + 1))
    for depth in (1, 2, 4, 8):
        count = 1 << depth
        rows = rows_of(grey * (count - 1) // 255, depth)
        ramp = np.linspace(0, 255, count).astype(np.uint8)
        palette = np.stack([ramp, 255 - ramp, ramp // 2 + 60], axis=-1).tobytes()
        alphas = chunk(b"tRNS", bytes(min(255, 40 * n) for n in range(count)))
        colours = chunk(b"PLTE", palette)
        found[f"palette-{depth}"] = png(rows, depth, 3, before=colours)
        found[f"palette-{depth}-alpha"] = png(rows, depth, 3, before=colours + alphas)
        found[f"palette-{depth}-alpha-before"] = png(rows, depth, 3, before=alphas + colours)
        found[f"palette-{depth}-alpha-too-long"] = png(
            rows, depth, 3, before=colours + chunk(b"tRNS", bytes(count + 9))
        )
        half = chunk(b"PLTE", palette[: 3 * count // 2])
        found[f"palette-{depth}-too-short"] = png(rows, depth, 3, before=half)
    found["palette-missing"] = png(rows_of(grey), 8, 3)
    for depth, factor in ((8, 1), (16, 257)):
        hole = (10 * factor, 20 * factor, 30 * factor)
        colour = SCENE.astype(np.int64) * factor
        holed = colour.copy()
        holed[20:70, 30:90] = hole
        alpha = ACROSS[..., None].astype(np.int64) * factor
        near = (hole[0], hole[1], hole[2] + 1)
        found[f"rgb-{depth}"] = png(rows_of(colour, depth), depth, 2)
        found[f"rgb-{depth}-key"] = png(rows_of(holed, depth), depth, 2, before=_key(*hole))
        found[f"rgb-{depth}-other-key"] = png(rows_of(holed, depth), depth, 2, before=_key(*near))
        found[f"rgb-{depth}-key-too-short"] = png(
            rows_of(holed, depth), depth, 2, before=_key(*hole[:2])
        )
        found[f"rgb-{depth}-key-behind"] = png(rows_of(holed, depth), depth, 2, after=_key(*hole))
        both = np.concatenate([colour, alpha], axis=-1)
        found[f"rgba-{depth}"] = png(rows_of(both, depth), depth, 6)
        found[f"grey-alpha-{depth}"] = png(rows_of(both[..., [0, 3]], depth), depth, 4)
    background = chunk(b"bKGD", struct.pack(">HHH", 255, 0, 0))
    found["background"] = png(
        rows_of(np.asarray(clear()).astype(np.int64)), 8, 6, before=background
    )
    return found


def _key(*samples: int) -> bytes:
    return chunk(b"tRNS", struct.pack(f">{len(samples)}H", *samples))


def png_interlaced() -> dict[str, bytes]:
    passes = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2))

    def rows(samples: Samples, depth: int) -> bytes:
        cut = [samples[y::down, x::across] for x, y, across, down in (*passes, (0, 1, 1, 2))]
        return b"".join(rows_of(part, depth) for part in cut)

    colour = SCENE.astype(np.int64)
    return {
        "rgb": png(rows(colour, 8), interlaced=1),
        "rgb-16": png(rows(colour * 257, 16), 16, 2, interlaced=1),
        "grey-4": png(rows(colour[..., 0] >> 4, 4), 4, 0, interlaced=1),
        "rgba": png(rows(np.asarray(clear()).astype(np.int64), 8), 8, 6, interlaced=1),
        "rows-missing": png(rows(colour[:40], 8), interlaced=1),
    }


def png_animations() -> dict[str, bytes]:
    other = rows_of(255 - SCENE.astype(np.int64))
    part = rows_of(255 - SCENE[20:60, 30:100].astype(np.int64))
    count = chunk(b"acTL", struct.pack(">II", 2, 1))

    def frame(number: int, size: tuple[int, int] = (WIDTH, HEIGHT), left: int = 0) -> bytes:
        fields = (number, *size, left, 20 if left else 0, 60_000, 1, 0, 0)
        return chunk(b"fcTL", struct.pack(">IIIIIHHBB", *fields))

    def pixels(number: int, rows: bytes) -> bytes:
        return chunk(b"fdAT", struct.pack(">I", number) + zlib.compress(rows))

    last = frame(2) + pixels(3, ROWS)
    return {
        "first": png(ROWS, before=count + frame(0), after=frame(1) + pixels(2, other)),
        "first-hidden": png(ROWS, before=count, after=frame(0) + pixels(1, other) + last),
        "first-hidden-part": png(
            ROWS, before=count, after=frame(0, (70, 40), 30) + pixels(1, part) + last
        ),
        "first-hidden-outside": png(
            ROWS, before=count, after=frame(0, (70, 40), 130) + pixels(1, part) + last
        ),
        "first-hidden-missing": png(ROWS, before=count),
        "no-frames": png(ROWS, before=chunk(b"acTL", bytes(8)), after=frame(0) + pixels(1, other)),
        "count-wrong-checksum": png(
            ROWS, before=count[:-4] + b"abcd", after=frame(0) + pixels(1, other) + last
        ),
        "second-cut": png(ROWS, before=count + frame(0), after=(frame(1) + pixels(2, other))[:900]),
        "second-rotten": png(
            ROWS, before=count + frame(0), after=frame(1) + chunk(b"fdAT", b"\0\0\0\2rotten")
        ),
    }


# --- GIF, BMP, WebP and AVIF


def gif() -> dict[str, bytes]:
    few = IMAGE.quantize(64)
    base = saved(few, "GIF")
    frame = base.index(b"\x2c\0\0\0\0" + struct.pack("<HH", WIDTH, HEIGHT))
    screen = base[:6] + struct.pack("<HH", 200, 120) + base[10:]
    offset = screen[: frame + 1] + struct.pack("<HH", 20, 10) + screen[frame + 5 :]
    key = b"\x21\xf9\4\1\0\0" + np.asarray(few)[48, 80:81].tobytes() + b"\0"
    later = [Image.fromarray(SCENE[::-1]).quantize(64)]
    empty = Image.new("P", few.size, 0)
    empty.putpalette(few.getpalette() or [])
    return {
        "plain": base,
        "key": base[:frame] + key + base[frame:],
        "no-trailer": base[:-1],
        "bytes-behind": base + _JUNK,
        "cut": saved(few, "GIF", interlace=0)[: len(base) // 2],
        "large-screen": screen,
        "offset": offset,
        "offset-background": offset[:11] + b"\5" + offset[12:],
        "offset-key": offset[:frame] + key + offset[frame:],
        "animated": saved(few, "GIF", save_all=True, append_images=later, duration=60_000),
        "first-empty": saved(
            empty, "GIF", save_all=True, append_images=later, duration=60_000, transparency=0
        ),
        "interlaced": saved(few, "GIF", interlace=1),
    }


def bmp_file(
    pixels: bytes,
    bits: int,
    compression: int = 0,
    *,
    header: int = 40,
    masks: bytes = b"",
    palette: bytes = b"",
    height: int = HEIGHT,
) -> bytes:
    colours = len(palette) // 4
    fields = (header, WIDTH, height, 1, bits, compression, len(pixels), 2835, 2835, colours, 0)
    info = struct.pack("<IiiHHIIiiII", *fields)
    if header > 40:
        info, masks = info + masks.ljust(header - 40, b"\0")[: header - 40], b""
    start = 14 + len(info) + len(masks) + len(palette)
    head = b"BM" + struct.pack("<IHHI", start + len(pixels), 0, 0, start)
    return head + info + masks + palette + pixels


_MASKS = struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)


def bmp() -> dict[str, bytes]:
    swapped = SCENE[..., ::-1]
    wide = SCENE.astype(np.int64)
    found = {
        "24": bmp_file(swapped[::-1].tobytes(), 24),
        "24-v5": bmp_file(swapped[::-1].tobytes(), 24, header=124),
        "24-top-down": bmp_file(swapped.tobytes(), 24, height=-HEIGHT),
        "24-cut": bmp_file(swapped[::-1].tobytes(), 24)[:-20_000],
        "24-bytes-behind": bmp_file(swapped[::-1].tobytes(), 24) + _JUNK,
        "24-os2": b"BM"
        + struct.pack("<IHHIIHHHH", 0, 0, 0, 26, 12, WIDTH, HEIGHT, 1, 24)
        + swapped[::-1].tobytes(),
    }
    few = (wide[..., 0] >> 3 << 10 | wide[..., 1] >> 3 << 5 | wide[..., 2] >> 3)[::-1]
    found["16"] = bmp_file(few.astype("<u2").tobytes(), 16)
    more = (wide[..., 0] >> 3 << 11 | wide[..., 1] >> 2 << 5 | wide[..., 2] >> 3)[::-1]
    masks = struct.pack("<III", 0xF800, 0x7E0, 0x1F)
    found["16-565"] = bmp_file(more.astype("<u2").tobytes(), 16, 3, masks=masks)
    for name, alpha in (("0", 0 * ACROSS), ("255", 0 * ACROSS + 255), ("some", ACROSS)):
        pixels = np.dstack([swapped, alpha])[::-1].tobytes()
        found[f"32-alpha-{name}"] = bmp_file(pixels, 32)
        found[f"32-fields-alpha-{name}"] = bmp_file(pixels, 32, 3, masks=_MASKS[:12])
        found[f"32-alpha-fields-alpha-{name}"] = bmp_file(pixels, 32, 6, masks=_MASKS)
        for header in (52, 56, 108, 124):
            found[f"32-fields-{header}-alpha-{name}"] = bmp_file(
                pixels, 32, 3, header=header, masks=_MASKS
            )
            found[f"32-{header}-alpha-{name}"] = bmp_file(pixels, 32, header=header, masks=_MASKS)
    indexed = IMAGE.quantize(64)
    palette = np.asarray(indexed.getpalette(), np.uint8)[:192].reshape(-1, 3)[:, ::-1]
    quads = np.pad(palette, ((0, 0), (0, 1))).tobytes()
    rows = np.asarray(indexed)[::-1]
    found["8"] = bmp_file(rows.tobytes(), 8, palette=quads)
    runs = [b"".join(bytes([1, index]) for index in row) + b"\0\0" for row in rows.tolist()]
    found["8-runs"] = bmp_file(b"".join(runs) + b"\0\1", 8, 1, palette=quads)
    found["8-runs-no-end"] = bmp_file(b"".join(runs), 8, 1, palette=quads)
    found["8-runs-cut"] = bmp_file(b"".join(runs[:40]), 8, 1, palette=quads)
    return found


def riff(data: bytes) -> bytes:
    """A WebP whose size says how long it is."""
    return data[:4] + struct.pack("<I", len(data) - 8) + data[8:]


def webp() -> dict[str, bytes]:
    plain = saved(IMAGE, "WEBP", quality=90)
    later = {"save_all": True, "append_images": [Image.fromarray(SCENE[::-1])], "duration": 60_000}
    odd = saved(IMAGE, "WEBP", lossless=True, exif=b"junk", icc_profile=b"junk", xmp=b"<x")
    metadata = odd.index(b"EXIF")
    animated = saved(IMAGE, "WEBP", lossless=True, **later)
    return {
        "lossy": plain,
        "lossless": saved(IMAGE, "WEBP", lossless=True),
        "alpha": saved(clear(), "WEBP", lossless=True),
        "alpha-lossy": saved(clear(), "WEBP", quality=90),
        "animated": animated,
        "animated-alpha": saved(clear(), "WEBP", lossless=True, **later),
        "animated-background": saved(
            clear(), "WEBP", lossless=True, background=(255, 0, 0, 255), **later
        ),
        "animated-second-cut": riff(animated[:-300]),
        "bytes-behind": plain + _JUNK,
        "cut": plain[:-300],
        "odd-metadata": odd,
        "metadata-cut": riff(odd[: metadata + 10]),
        "unknown-chunk": riff(odd + b"JUNK" + struct.pack("<I", 4) + b"abcd"),
        **{
            f"exif-{name}": saved(IMAGE, "WEBP", lossless=True, exif=block)
            for name, block in exif_blocks().items()
            if name in {"short", "short-big-endian", "long", "value-9"}
        },
        "exif-prefixed": saved(IMAGE, "WEBP", lossless=True, exif=b"Exif\0\0" + turned()),
        "exif-alpha": saved(clear(), "WEBP", lossless=True, exif=turned()),
    }


def avif() -> dict[str, bytes]:
    def with_block(image: Image.Image = IMAGE, **options: object) -> bytes:
        return saved(image, "AVIF", **({"quality": 95, "speed": 8} | options))

    other = exif(entry(0x100, SHORT, 1, 6))
    found = {
        "plain": with_block(),
        "grey": with_block(IMAGE.convert("L")),
        "alpha": with_block(clear()),
        "420": with_block(subsampling="4:2:0"),
        "limited": with_block(range="limited"),
        "bytes-behind": with_block() + _JUNK,
        "cut": with_block()[:-900],
        "xmp-junk": with_block(xmp=b"<x"),
        "exif-without-rotation": with_block(exif=other).replace(other, turned()),
        "exif-other-than-rotation": with_block(exif=turned(6)).replace(turned(6), turned(1)),
        "exif-long-and-rotation": with_block(exif=turned(6)).replace(
            turned(6), turned(6, kind=LONG)
        ),
        "exif-junk-and-rotation": with_block(exif=turned(6)).replace(turned(6), _JUNK[:26]),
    }
    return found | {f"rotation-{value}": with_block(exif=turned(value)) for value in range(2, 9)}


KINDS: dict[str, Callable[[], dict[str, bytes]]] = {
    "jpeg-headers": jpeg_headers,
    "jpeg-colours": jpeg_colours,
    "jpeg-data": jpeg_data,
    "jpeg-exif": jpeg_exif,
    "png-metadata": png_metadata,
    "png-data": png_data,
    "png-exif": png_exif,
    "png-colours": png_colours,
    "png-interlaced": png_interlaced,
    "png-animations": png_animations,
    "gif": gif,
    "bmp": bmp,
    "webp": webp,
    "avif": avif,
}


def make() -> dict[str, bytes]:
    """Make all pictures, by kind and name."""
    return {
        f"{kind}/{name}": data
        for kind, make_kind in KINDS.items()
        for name, data in make_kind().items()
    }
