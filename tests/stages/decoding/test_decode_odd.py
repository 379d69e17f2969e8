"""decode() on what real archives hold: every file of the folder ``odd`` of the shared pictures."""

import os
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from roadstream.schemas.errors import ImageError
from roadstream.stages.decoding.decode import decode, resize

_ROOT = Path(__file__).resolve().parents[3]
ODD = Path(os.environ.get("ROADSTREAM_DATA", _ROOT.parent / "shared" / "data")) / "odd"
FILES = {path.name: path for path in sorted(ODD.glob("*"))} if ODD.is_dir() else {}
BASELINE = "road_pos_00_baseline.jpg"

# Files that must fail, with their faults; every other file must decode.
FAULTS = {
    "gen_empty.jpg": "empty",
    "gen_ffd8_only.jpg": "truncated",
    "gen_html_404.jpg": "not_an_image",
    "gen_random.jpg": "not_an_image",
    "gen_text.jpg": "not_an_image",
    "jpegdec_empty.jpg": "empty",
    "jpegdec_its_138d3b9e0d.jpg": "unsupported",
    "jpegdec_its_2c9e7a1805.jpg": "damaged",
    "jpegdec_its_4085c929e0.jpg": "damaged",
    "jpegdec_its_56d4a1bb53.jpg": "truncated",
    "jpegdec_its_6de166ee2a.jpg": "truncated",
    "jpegdec_its_7e7cdf7f4e.jpg": "truncated",
    "jpegdec_its_96b3e93985.jpg": "damaged",
    "jpegdec_its_c8bc973355.jpg": "damaged",
    "jpegdec_its_f012a4321f.jpg": "not_an_image",
    "jpegdec_jpeg_lossless_sel1.jpg": "unsupported",
    "jpegdec_lossless16bit.jpg": "unsupported",
    "jpegdec_partial_progressive.jpg": "damaged",
    "pillow_decompression_bomb.gif": "too_many_pixels",
    "pillow_decompression_bomb.ico": "unsupported",
    "pillow_hopper_bad_exif.jpg": "damaged",
    "pillow_truncated_image.png": "truncated",
    "pillow_ultrahdr.jpg": "truncated",
    "road_pos_07_truncated50.jpg": "truncated",
    "road_pos_08_truncated_200B.jpg": "truncated",
    "road_pos_10_bitrot.jpg": "damaged",
    "tcodec_animated.heic": "unsupported",
    "tcodec_bad_huffman.jpg": "damaged",
    "tcodec_corrupt.jpg": "damaged",
}
# Variants that show the scene otherwise: a thumbnail, letterboxed, darkened.
ALTERED = ("_21_tiny", "_22_letterbox", "_23_dark")

pytestmark = pytest.mark.data
__test__ = bool(FILES)  # without the pictures there is nothing to collect


def small(name: str) -> npt.NDArray[np.float64]:
    image = decode(FILES[name].read_bytes(), min_width=320, min_height=188)
    return resize(image, 160, 94).astype(np.float64)


@pytest.mark.parametrize("name", FILES)
def test_a_file_decodes_or_fails_for_the_right_reason(name: str) -> None:
    data = FILES[name].read_bytes()
    if name not in FAULTS:
        image = decode(data, min_width=320, min_height=192)
        assert image.dtype == np.uint8
        assert image.shape[2] == 3
        return
    with pytest.raises(ImageError) as caught:
        decode(data, min_width=320, min_height=192)
    assert caught.value.fault == FAULTS[name]
    assert len(caught.value.problem) > 10


@pytest.mark.parametrize(
    "name",
    [
        name
        for name in FILES
        if name.startswith("road_pos_")
        and name not in FAULTS
        and not any(part in name for part in ALTERED)
    ],
)
def test_a_variant_shows_the_same_scene_upright(name: str) -> None:
    image, baseline = small(name), small(BASELINE)

    apart = np.abs(image - baseline).mean()
    turned = np.abs(image[::-1, ::-1] - baseline).mean()

    assert apart < 6
    assert turned > 4 * apart
