"""The pictures of the campaign, each of a class whose answer is known beforehand.

An image's id ends in its class: ``7-0000012-s201`` is a PNG of grey 201, ``…-j90`` a JPEG,
``…-b90`` a large PNG, ``…-nan`` poison, ``…-odd.NAME`` a file of the corpus of odd ones.
"""

import functools
import hashlib
import io
import random
import struct
import time
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image as Pillow

from roadstream.bench.faults.chaos.engine import FIRST_SHADE, LAST_SHADE, POISON
from roadstream.schemas.records.image import Head, Image, Inline, Lane

CORPUS = Path(__file__).resolve().parents[4] / "shared" / "data" / "odd"
SIZE = (64, 48)
# Larger ones would make the log's disk the measure of the campaign.
MAX_ODD_BYTES = 300_000
LARGE_BYTES = 300_000
CASCADE = """
name = "chaos"
threshold = 0.5
[[tiers]]
name = "first"
max_batch = 16
[[tiers.members]]
name = "left"
engine = "cones"
width = 64
height = 48
[[tiers.members]]
name = "right"
engine = "cones"
width = 64
height = 48
weight = 0.5
[[tiers.routes]]
min_confidence = 0.9
to = "exit"
[[tiers]]
name = "second"
max_batch = 8
[[tiers.members]]
name = "last"
engine = "cones"
width = 64
height = 48
"""
TIERS = ("first", "second")


class Catalogue:
    """Every class of picture there is, with its bytes.

    Args:
        corpus: Folder of odd files; one that is not there has none.
    """

    def __init__(self, corpus: Path = CORPUS) -> None:
        files = sorted(corpus.iterdir()) if corpus.is_dir() else []
        self._odd = {
            f"odd.{path.name}": path for path in files if path.stat().st_size <= MAX_ODD_BYTES
        } | {f"odd.{name}": None for name in _OWN_ODD}
        self.shades = [
            f"{kind}{level}" for level in range(FIRST_SHADE, LAST_SHADE + 1) for kind in "sj"
        ]

    @property
    def odd(self) -> list[str]:
        """Classes of odd files: what archives hold that are no pictures, or hardly."""
        return list(self._odd)

    def data(self, kind: str) -> bytes:
        """Return the bytes of a class of picture.

        Raises:
            KeyError: There is no such class.
        """
        if kind in POISON:
            return _grey(POISON[kind], "PNG")
        if kind.startswith("odd."):
            path = self._odd[kind]
            return _OWN_ODD[kind.removeprefix("odd.")] if path is None else path.read_bytes()
        if kind[0] == "b":
            return _padded(_grey(int(kind[1:]), "PNG"))
        return _grey(int(kind[1:]), {"s": "PNG", "j": "JPEG"}[kind[0]])

    def image(
        self,
        image_id: str,
        *,
        lane: Lane = "archive",
        deadline: float | None = None,
        data: bytes | None = None,
    ) -> Image:
        """Return the record of an image, sent now.

        Args:
            image_id: Names its class.
            lane: Its lane.
            deadline: Seconds from now in which an answer is wanted.
            data: Bytes in place of those of its class.
        """
        content = self.data(class_of(image_id)) if data is None else data
        now = time.time()
        head = Head(
            image_id=image_id,
            uri=f"{image_id}.img",
            lane=lane,
            submitted_at=now,
            deadline_at=None if deadline is None else now + deadline,
            content_hash=hashlib.sha256(content).digest()[:16],
        )
        return Image(head, Inline(content))


class Namer:
    """Gives images their ids, each once, and their classes by chance.

    Args:
        catalogue: What there is.
        seed: Begins every id, and decides every draw.
    """

    def __init__(self, catalogue: Catalogue, seed: int) -> None:
        self._catalogue, self._seed = catalogue, seed
        self._random = random.Random(f"pictures {seed}")
        self._number = 0
        self.tag = f"{seed}-"

    def name(self, kind: str) -> str:
        """Return a new id of this class."""
        self._number += 1
        return f"{self._seed}-{self._number:07d}-{kind}"

    def ordinary(self, count: int) -> list[str]:
        """Return new ids of ordinary pictures."""
        return [self.name(kind) for kind in self._random.choices(self._catalogue.shades, k=count)]


def class_of(image_id: str) -> str:
    """Return the class that an id names."""
    return image_id.split("-", 2)[2]


@functools.cache
def _grey(level: int, form: str) -> bytes:
    target = io.BytesIO()
    Pillow.fromarray(np.full((SIZE[1], SIZE[0]), level, np.uint8)).save(target, form)
    return target.getvalue()


def _chunk(name: bytes, body: bytes) -> bytes:
    """Return a chunk of a PNG."""
    crc = struct.pack(">I", zlib.crc32(name + body))
    return struct.pack(">I", len(body)) + name + body + crc


def _padded(png: bytes) -> bytes:
    """Return a PNG that is large for what it shows: a chunk that decoders pass over."""
    end = len(png) - len(_chunk(b"IEND", b""))
    padding = random.Random(0).randbytes(LARGE_BYTES)
    return png[:end] + _chunk(b"paDd", padding) + png[end:]


def _own_odd() -> Mapping[str, bytes]:
    whole = _grey(200, "PNG")
    rng = random.Random(0)
    return {
        "empty": b"",
        "text": b"404 not found\n",
        "half.png": whole[: len(whole) // 2],
        "head.jpg": b"\xff\xd8\xff\xe0",
        "noise": rng.randbytes(2000),
        "bitrot.png": bytes(b ^ (rng.random() < 0.02) for b in whole),
        "bomb.png": _bomb(),
    }


def _bomb() -> bytes:
    """Return a PNG that says it has 50,000 × 50,000 pixels."""
    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 0, 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 1000)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*part) for part in parts)


_OWN_ODD = _own_odd()
