"""Pictures as JPEG files, for servers that decode them themselves."""

from collections.abc import Sequence

from roadstream.schemas.errors import ImageError
from roadstream.stages.decoding.decode import decode, encode_jpeg
from roadstream.stages.inference import Picture
from roadstream.streams.sources.sniff import sniff


def jpegs(
    batch: Sequence[Picture], size: tuple[int, int], quality: int
) -> list[bytes | ImageError]:
    """Return each picture as a JPEG file, or why it cannot be one.

    A file that is a JPEG goes as it is, EXIF orientation and all: the server's decoder has to turn
    it. Others are decoded, if nobody has done so, and encoded.

    Args:
        batch: Pictures with their files, or with pixels.
        size: Width and height in pixels that the model looks at; a large picture that has to be
            encoded is reduced, though not below it.
        quality: Of those that are encoded, 1 to 100.
    """
    return [_jpeg(picture, size, quality) for picture in batch]


def _jpeg(picture: Picture, size: tuple[int, int], quality: int) -> bytes | ImageError:
    data = None if picture.encoded is None else bytes(picture.encoded)
    if data is not None and sniff(data) == "jpeg":
        return data
    try:
        pixels = picture.pixels
        if data is not None and not pixels.size:
            pixels = decode(data, min_width=size[0], min_height=size[1])
        return encode_jpeg(pixels, quality)
    except ImageError as error:
        return error
