"""Say what a file's bytes are, from their beginning and never from a file name."""

import re

# Formats that decode() takes; everything else is refused with its name.
DECODABLE = frozenset({"jpeg", "png", "webp", "gif", "bmp", "tiff", "avif", "jpeg2000", "ppm"})

# Pictures, but of a kind that is not decoded here.
PICTURES = {
    "heic": "HEIC",
    "jpegxl": "JPEG XL",
    "ico": "Windows icon",
    "psd": "Photoshop",
    "svg": "SVG drawing",
    "raw": "camera raw",
}

# What a person calls the rest.
OTHERS = {
    "html": "an HTML page",
    "xml": "an XML document",
    "json": "a JSON document",
    "text": "text",
    "git-lfs": "a Git LFS pointer in place of the picture",
    "zip": "a ZIP archive",
    "gzip": "gzip-compressed data",
    "zstd": "zstd-compressed data",
    "archive": "an archive",
    "parquet": "a Parquet file",
    "pdf": "a PDF document",
    "video": "a video",
    "sound": "a sound file",
    "office": "an Office document or a cache of thumbnails",
    "database": "a database",
    "program": "a program",
    "zeros": "nothing but zero bytes",
    "unknown": "bytes of no known kind",
}

_BEGINNINGS: tuple[tuple[bytes, str], ...] = (
    (b"\xff\xd8", "jpeg"),
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"GIF87a", "gif"),
    (b"GIF89a", "gif"),
    (b"II*\0\x10\0\0\0CR", "raw"),
    (b"II*\0", "tiff"),
    (b"MM\0*", "tiff"),
    (b"II+\0", "tiff"),
    (b"MM\0+", "tiff"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "jpeg2000"),
    (b"\xff\x4f\xff\x51", "jpeg2000"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "jpegxl"),
    (b"\xff\x0a", "jpegxl"),
    (b"\0\0\1\0", "ico"),
    (b"8BPS", "psd"),
    (b"FUJIFILMCCD-RAW", "raw"),
    (b"PK\3\4", "zip"),
    (b"\x1f\x8b", "gzip"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"7z\xbc\xaf\x27\x1c", "archive"),
    (b"Rar!\x1a\x07", "archive"),
    (b"PAR1", "parquet"),
    (b"%PDF", "pdf"),
    (b"\x1aE\xdf\xa3", "video"),
    (b"\0\0\1\xba", "video"),
    (b"\0\0\1\xb3", "video"),
    (b"FLV\1", "video"),
    # H.264 and HEVC without a container: parameter sets, or the mark of a first picture.
    *((b"\0\0\0\1" + unit, "video") for unit in (b"\x67", b"\x27", b"\x09", b"\x40\1", b"\x46\1")),
    (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "video"),
    (b"ID3", "sound"),
    (b"fLaC", "sound"),
    # Frames of MP3 and AAC without a tag before them.
    *((b"\xff" + second, "sound") for second in (b"\xfb", b"\xf3", b"\xf2", b"\xf1", b"\xf9")),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "office"),
    (b"SQLite format 3\0", "database"),
    (b"\x7fELF", "program"),
    (b"MZ", "program"),
    (b"version https://git-lfs", "git-lfs"),
)
_SOUND_BRANDS = {b"M4A ", b"M4B ", b"M4P "}
_RIFF = {b"WEBP": "webp", b"AVI ": "video", b"WAVE": "sound"}
_HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1"}
_PPM = re.compile(rb"P[1-6][\s#]")
_HTML = re.compile(rb"\s*(<!doctype html|<html|<head|<body)", re.IGNORECASE)
_SVG = re.compile(rb"\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)?(<!doctype svg[^>]*>\s*)?<svg", re.DOTALL)
_TEXT_SAMPLE = 1024


def sniff(data: bytes) -> str:
    """Name the format of ``data``.

    Returns:
        One of `DECODABLE`, a key of `PICTURES` or a key of `OTHERS`.
    """
    for beginning, name in _BEGINNINGS:
        if data.startswith(beginning):
            return name
    return _by_fields(data) or _text_or_nothing(data)


def _by_fields(data: bytes) -> str | None:
    """Name the formats that are known by fields further in."""
    if data[:4] == b"RIFF" and data[8:12] in _RIFF:
        return _RIFF[data[8:12]]
    if data[4:8] == b"ftyp":
        return _media_file(data)
    if data[:2] == b"BM" and len(data) >= 26 and int.from_bytes(data[14:18], "little") <= 256:
        return "bmp"
    if _PPM.match(data):
        return "ppm"
    if data[:4] == b"OggS":
        return "video" if b"theora" in data[:512] else "sound"
    return "video" if _transport_stream(data) else None


def _transport_stream(data: bytes) -> bool:
    """Whether bytes are packets of 188 bytes, or of 192 with a time before each."""
    return any(
        data[first : first + 1] == data[first + step : first + step + 1] == b"\x47"
        and data[first + 2 * step : first + 2 * step + 1] == b"\x47"
        for first, step in ((0, 188), (4, 192))
    )


def describe(name: str) -> str:
    """Put a name given by `sniff` into words that fit after “looks like”."""
    return f"a {PICTURES[name]} file" if name in PICTURES else OTHERS.get(name, name)


def _media_file(data: bytes) -> str:
    """Tell still pictures from videos in the ISO base media family, by their brands."""
    end = min(max(int.from_bytes(data[:4], "big"), 16), 256)
    brands = {data[8:12], *(data[at : at + 4] for at in range(16, end, 4))}
    if brands & {b"avif", b"avis"}:
        return "avif"
    if brands & _HEIF_BRANDS:
        return "heic"
    if data[8:12] in _SOUND_BRANDS:
        return "sound"
    return "raw" if b"crx " in brands else "video"


def _text_or_nothing(data: bytes) -> str:
    """Name text by its first words; else tape archives, zeros or unknown."""
    if data[257:262] == b"ustar":
        return "archive"
    if data.count(0) == len(data):
        return "zeros"
    sample = data[:_TEXT_SAMPLE]
    if not _is_text(sample):
        return "unknown"
    if _HTML.match(sample):
        return "html"
    if _SVG.match(sample):
        return "svg"
    first = sample.lstrip()[:1]
    return {b"<": "xml", b"{": "json", b"[": "json"}.get(first, "text")


def _is_text(sample: bytes) -> bool:
    """Whether the bytes are UTF-8 (the last character may be cut) without control characters."""
    try:
        text = sample.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(sample) - 3:
            return False
        text = sample[: error.start].decode("utf-8")
    return bool(text) and all(character.isprintable() or character.isspace() for character in text)
