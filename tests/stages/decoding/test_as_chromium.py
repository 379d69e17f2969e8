"""decode() shows what Chromium shows on a white page, or fails where that is not the picture."""

import re
from functools import cache

import numpy as np
import pytest

from roadstream.schemas.errors import ImageError
from roadstream.stages.decoding.decode import decode
from tests.kits import chromium
from tests.kits.chromium import COLUMNS, ROWS, Shown
from tests.kits.odd_pictures import make

# Of 255 levels: decoders round colours that they convert, and alphas, in their own ways.
TOLERANCE = 2

# What fails; of all these Chromium shows nothing, or not the whole picture.
FAULTS = {
    "jpeg-headers/no-quantization": "damaged",
    "jpeg-headers/taller": "damaged",
    "jpeg-headers/newline-before": "not_an_image",
    "jpeg-data/progressive-cut": "truncated",
    "jpeg-data/progressive-scan-missing": "damaged",
    "jpeg-data/no-end": "truncated",
    "jpeg-data/cut": "truncated",
    "jpeg-data/restart-missing": "damaged",
    "jpeg-data/restarts-lost": "damaged",
    "jpeg-data/restarts-all-0": "damaged",
    "jpeg-data/rotten": "damaged",
    **{f"jpeg-data/restart-off-by-{off}": "damaged" for off in (1, 2, 6, 7)},
    **{f"jpeg-data/restarts-off-by-{off}": "damaged" for off in (1, 2, 6, 7)},
    "png-metadata/unknown-critical": "unsupported",
    "png-data/cut": "truncated",
    "png-data/wrong-checksum-first": "damaged",
    "png-data/text-between": "truncated",
    "png-data/rows-missing": "truncated",
    "png-data/rotten": "damaged",
    "png-data/header-wrong-checksum": "damaged",
    "png-colours/palette-missing": "damaged",
    "png-interlaced/rows-missing": "damaged",
    "png-animations/first-hidden-outside": "damaged",
    "png-animations/first-hidden-missing": "damaged",
    "gif/cut": "truncated",
    "bmp/24-cut": "truncated",
    "bmp/8-runs-cut": "damaged",
    "webp/animated-second-cut": "damaged",
    "webp/cut": "truncated",
    "webp/metadata-cut": "damaged",
    "avif/cut": "damaged",
}
# What these would be like if they were whole.
WHOLE = {"jpeg": "jpeg-data/plain", "png": "png-data/plain", "gif": "gif/plain"}
WHOLE |= {"bmp": "bmp/24", "webp": "webp/lossy", "avif": "avif/plain"}
RECORDED = chromium.recorded()

pictures = cache(make)


def apart(one: Shown, other: Shown) -> int:
    """How far apart two pictures are: 255 when their sizes differ."""
    if one[:2] != other[:2]:
        return 255
    return int(np.abs(np.subtract(one.pixels, other.pixels)).max())


def ours(data: bytes) -> Shown:
    image = decode(data, min_width=1 << 20, min_height=1 << 20)
    height, width = image.shape[:2]
    rows = [int((row + 0.5) * height / ROWS) for row in range(ROWS)]
    columns = [int((column + 0.5) * width / COLUMNS) for column in range(COLUMNS)]
    return Shown(width, height, image[np.ix_(rows, columns)].ravel().tolist())


@pytest.mark.parametrize("name", [name for name in RECORDED if name not in FAULTS])
def test_a_picture_is_what_chromium_shows(name: str) -> None:
    shown = RECORDED[name]

    assert shown is not None
    assert apart(ours(pictures()[name]), shown) <= TOLERANCE


@pytest.mark.parametrize("name", FAULTS)
def test_a_picture_that_chromium_shows_damaged_fails(name: str) -> None:
    whole, shown = RECORDED[WHOLE[re.split("[-/]", name)[0]]], RECORDED[name]

    with pytest.raises(ImageError) as caught:
        decode(pictures()[name], min_width=64, min_height=64)

    assert caught.value.fault == FAULTS[name]
    assert whole is not None
    assert shown is None or apart(shown, whole) > TOLERANCE


def test_all_pictures_are_recorded() -> None:
    assert pictures().keys() == RECORDED.keys()


@pytest.mark.chromium
def test_chromium_shows_what_is_recorded() -> None:
    shown = chromium.ask(pictures())

    changed = {
        name: (was, shown[name])
        for name, was in RECORDED.items()
        if (was is None) != (shown[name] is None)
        or (was and (now := shown[name]) and apart(was, now) > TOLERANCE)
    }
    assert not changed, f"shown otherwise by {chromium.version()}"
