"""Decoding leaves the process as it found it: others use Pillow and libtiff too."""

import io
import logging
import threading

import pytest
from PIL import Image

from roadstream.schemas.errors import ImageError
from roadstream.stages.decoding.decode import decode

FORMATS = ("PNG", "TIFF", "BMP", "GIF", "WEBP", "AVIF")


def file_of(form: str, size: tuple[int, int] = (40, 30)) -> bytes:
    data = io.BytesIO()
    Image.new("RGB", size, (200, 100, 50)).save(data, form)
    return data.getvalue()


@pytest.mark.parametrize("form", FORMATS)
def test_pillows_limit_of_pixels_stays_as_it_was(
    form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # 1,200 would be an error
    handlers = list(logging.getLogger("PIL").handlers)

    assert decode(file_of(form), min_width=1, min_height=1).shape[2] == 3

    assert Image.MAX_IMAGE_PIXELS == 100
    assert logging.getLogger("PIL").handlers == handlers
    with pytest.raises(Image.DecompressionBombError):
        Image.open(io.BytesIO(file_of(form)))


def test_it_stays_when_a_picture_is_damaged() -> None:
    limit = Image.MAX_IMAGE_PIXELS
    assert limit is not None

    with pytest.raises(ImageError):
        decode(file_of("PNG")[:60], min_width=1, min_height=1)

    assert limit == Image.MAX_IMAGE_PIXELS


def test_it_stays_when_several_threads_decode_at_a_time() -> None:
    limit, data = Image.MAX_IMAGE_PIXELS, [file_of(form, (400, 300)) for form in FORMATS]

    def some() -> None:
        for _ in range(5):
            for file in data:
                decode(file, min_width=1, min_height=1)

    threads = [threading.Thread(target=some) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert limit == Image.MAX_IMAGE_PIXELS


def test_libtiff_writes_for_others_as_it_did(capfd: pytest.CaptureFixture[str]) -> None:
    damaged = bytearray(file_of("TIFF", (64, 64)))
    damaged[8:] = damaged[8:][: len(damaged) // 2]

    with pytest.raises(ImageError):
        decode(bytes(damaged), min_width=1, min_height=1)

    assert capfd.readouterr().err == ""
