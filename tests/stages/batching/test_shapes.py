"""Shapes: read off the header before the queue, nearest by aspect ratio, one per batch."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Pillow

from roadstream.schemas.cascade.loading import parse_cascade
from roadstream.schemas.cascade.model import Member
from roadstream.schemas.errors import ConfigError
from roadstream.stages.batching.shapes import Shapes, nearest, picture_size
from tests.kits.builders import member


def encoded(width: int, height: int, kind: str, **options: object) -> bytes:
    target = io.BytesIO()
    Pillow.new("RGB", (width, height)).save(target, kind, **options)
    return target.getvalue()


def turned(orientation: int) -> bytes:
    exif = Pillow.Exif()
    exif[0x0112] = orientation
    return encoded(60, 40, "JPEG", exif=exif)


@pytest.mark.parametrize(
    ("data", "size"),
    [
        (encoded(60, 40, "JPEG"), (60, 40)),
        (encoded(60, 40, "JPEG", progressive=True), (60, 40)),
        (encoded(60, 40, "PNG"), (60, 40)),
        (turned(1), (60, 40)),
        (turned(6), (40, 60)),
        (encoded(60, 40, "GIF"), None),
        (encoded(60, 40, "JPEG")[:20], None),
        (encoded(60, 40, "PNG")[:20], None),
        (b"", None),
    ],
)
def test_the_size_is_read_off_the_header(data: bytes, size: tuple[int, int] | None) -> None:
    assert picture_size(data) == size
    assert picture_size(memoryview(data)) == size


def test_a_picture_gets_of_every_member_the_size_nearest_to_its_aspect_ratio() -> None:
    fickle = Member(
        name="fickle", engine="noop", width=640, height=360, sizes=[(360, 640), (512, 512)]
    )
    shapes = Shapes([fickle, member("plain")])
    wide, tall = shapes.of(encoded(1600, 900, "JPEG")), shapes.of(encoded(90, 160, "PNG"))

    assert shapes.several
    assert shapes.sizes(wide) == {"fickle": (640, 360), "plain": (8, 8)}
    assert shapes.sizes(tall) == {"fickle": (360, 640), "plain": (8, 8)}
    assert shapes.sizes(shapes.of(encoded(99, 100, "JPEG")))["fickle"] == (512, 512)
    assert shapes.of(b"no picture") == shapes.plain == wide
    assert not Shapes([member("plain")]).several


SIDES = st.integers(1, 4000)


@given(st.lists(st.tuples(SIDES, SIDES), min_size=1, max_size=5), SIDES, SIDES)
def test_no_other_size_stretches_a_picture_less(
    sizes: list[tuple[int, int]], width: int, height: int
) -> None:
    def stretch(size: tuple[int, int]) -> float:
        factor = size[0] / size[1] / (width / height)
        return max(factor, 1 / factor)

    found = nearest(sizes, width, height)

    assert found in sizes
    assert stretch(found) <= min(map(stretch, sizes)) * (1 + 1e-9)


def test_further_sizes_are_for_engines_that_take_them() -> None:
    text = b"""
        name = "x"
        [[tiers]]
        name = "one"
        [[tiers.members]]
        name = "a"
        engine = "cones"
        sizes = [[352, 512]]
    """
    with pytest.raises(ConfigError, match=r"members\[0\].sizes: expected no further sizes for"):
        parse_cascade(text, "x.toml")
    ok = parse_cascade(text.replace(b"cones", b"noop"), "x.toml")
    assert ok.tiers[0].members[0].sizes == [(352, 512)]
