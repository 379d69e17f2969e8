"""Shape buckets: which of the sizes that members take a picture gets, known before it is decoded.

A batch is one tensor, so that all its pictures have one size. A member may take pictures upright
and lying, say; a picture is given the size nearest to its own aspect ratio, and waits for a batch
with others of its shape.
"""

import math
from collections.abc import Mapping, Sequence

from roadstream.schemas.cascade.model import Member
from roadstream.schemas.errors import ImageError
from roadstream.stages.decoding.jpeg import read_header
from roadstream.streams.sources.sniff import sniff

Size = tuple[int, int]
Shape = tuple[Size, ...]
# A JPEG's frame header stands behind its EXIF data (64 KiB at most) and its colour profile.
HEADER_BYTES = 256 << 10


class Shapes:
    """The shapes of a tier's pictures: each a size per member, in their order.

    Args:
        members: The tier's members.

    Attributes:
        plain: The shape of a picture of unknown size: every member's ``width`` and ``height``.
        several: Whether there is more than one.
    """

    def __init__(self, members: Sequence[Member]) -> None:
        self._names = [member.name for member in members]
        self._sizes = [sizes_of(member) for member in members]
        self.plain: Shape = tuple(sizes[0] for sizes in self._sizes)
        self.several = any(len(sizes) > 1 for sizes in self._sizes)

    def of(self, data: bytes | memoryview) -> Shape:
        """Return the shape for an encoded picture, read off its header.

        That of a picture which says nothing, or nothing that can be read, is ``plain``.
        """
        size = picture_size(data)
        if size is None:
            return self.plain
        return tuple([nearest(sizes, *size) for sizes in self._sizes])

    def sizes(self, shape: Shape) -> Mapping[str, Size]:
        """Return the size per member's name."""
        return dict(zip(self._names, shape, strict=True))


def sizes_of(member: Member) -> list[Size]:
    """Return the sizes that a member takes, (width, height); the usual one first."""
    return list(dict.fromkeys([(member.width, member.height), *member.sizes]))


def nearest(sizes: Sequence[Size], width: int, height: int) -> Size:
    """Return the size whose aspect ratio is nearest to that of a picture, by factor."""
    if len(sizes) == 1:
        return sizes[0]
    return min(sizes, key=lambda size: abs(math.log(size[0] * height / (size[1] * width))))


def picture_size(data: bytes | memoryview) -> Size | None:
    """Return the upright width and height of an encoded picture, if it is a JPEG or a PNG."""
    head = bytes(data[:HEADER_BYTES])
    match sniff(head):
        case "jpeg":
            try:
                header = read_header(head)
            except ImageError:
                return None
            size = header.width, header.height
            return size if header.orientation < 5 else size[::-1]
        case "png":
            width, height = int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big")
            return (width, height) if width and height else None
    return None
