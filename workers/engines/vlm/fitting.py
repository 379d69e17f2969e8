"""Pictures brought to the size that a model is to see, by the worker's own threads."""

from math import sqrt
from typing import NamedTuple

from roadstream.stages.decoding.decode import resize
from roadstream.stages.inference import Pictures, Pixels


class Limits(NamedTuple):
    """How large a picture may be.

    Attributes:
        smallest: Least number of pixels.
        largest: Greatest number of pixels.
        multiple: What sides are multiples of, in pixels.
    """

    smallest: int
    largest: int
    multiple: int

    def size(self, width: int, height: int) -> tuple[int, int]:
        """Return width and height within the limits, of the same shape but for the rounding.

        A side is at least one multiple, so that a very long strip may exceed the limits.
        """
        area = min(max(width * height, self.smallest), self.largest)
        scale = sqrt(area / (width * height))
        step = self.multiple
        wide, high = (max(1, round(side * scale / step)) for side in (width, height))
        while wide * high * step * step > self.largest and max(wide, high) > 1:
            if wide >= high:
                wide -= 1
            else:
                high -= 1
        return wide * step, high * step


def fitted(batch: Pictures, limits: Limits) -> list[Pixels]:
    """Return the batch's pictures within the limits, made once per batch and limits.

    Returns:
        Per picture uint8 RGB [h, w, 3].
    """

    def fit() -> list[Pixels]:
        found = []
        for picture in batch:
            rows, columns = picture.pixels.shape[:2]
            found.append(resize(picture.pixels, *limits.size(columns, rows)))
        return found

    return batch.share(("fitted", limits), fit)
