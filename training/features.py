"""Views and whole pictures, passed once through the trunk.

The trunk is never trained, so what it makes of a view is the same for every run: it is made once,
kept as float16, and all runs learn from it. That is what makes minutes of hours.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from roadstream.stages.decoding.decode import resize
from roadstream.stages.rules.cones import Pixels
from training.network import COARSE, FINE, MIDDLE, Levels, imagenet_trunk
from training.views import HEIGHT, WIDTH, View, ViewMaker

BATCH = 8
CHANNELS = {"fine": (FINE, 8), "middle": (MIDDLE, 16), "coarse": (COARSE, 32)}
"""Channels and stride of each level."""


class Stored(NamedTuple):
    """The levels of pictures, float16 [N, H/stride, W/stride, channels]; parts may be on disk."""

    fine: NDArray[np.float16]
    middle: NDArray[np.float16]
    coarse: NDArray[np.float16]

    def take(self, rows: Sequence[int]) -> Levels:
        """Return some of them as the neck takes them, float32."""
        return Levels(
            *(torch.from_numpy(level[rows]).float().permute(0, 3, 1, 2) for level in self)
        )


@dataclass(frozen=True)
class Views:
    """Views in the order they were made.

    Attributes:
        levels: What the trunk makes of them.
        boxes: Boxes of each, see `View.boxes`.
        labels: int8 [N], see `View.label`.
        complete: bool [N], see `View.complete`.
        families: Families whose pixels are in each.
    """

    levels: Stored
    boxes: list[NDArray[np.float32]]
    labels: NDArray[np.int8]
    complete: NDArray[np.bool_]
    families: list[frozenset[str]]

    def without(self, families: Sequence[str]) -> NDArray[np.int64]:
        """Return the rows of the views that show nothing of these families."""
        return np.array(
            [i for i, seen in enumerate(self.families) if not seen & set(families)], np.int64
        )


def _level(path: Path, name: str) -> Path:
    return path.with_name(f"{path.name}.{name}.npy")


class Writer:
    """Passes pictures of one size through the trunk and keeps its levels beside `path`."""

    def __init__(self, path: Path, count: int, width: int, height: int) -> None:
        self._trunk = imagenet_trunk().eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload, unused-ignore]
        self._out = [
            np.lib.format.open_memmap(  # type: ignore[no-untyped-call]
                _level(path, name), "w+", np.float16,
                (count, height // stride, width // stride, channels),
            )
            for name, (channels, stride) in CHANNELS.items()
        ]  # fmt: skip

    def __call__(self, first: int, batch: Sequence[Pixels]) -> None:
        """Keep a batch, whose first picture has this row."""
        images = torch.from_numpy(np.stack(batch)).permute(0, 3, 1, 2).float()
        with torch.inference_mode():
            levels = self._trunk(images.contiguous(memory_format=torch.channels_last))
        for out, level in zip(self._out, levels, strict=True):
            out[first : first + len(batch)] = level.permute(0, 2, 3, 1).half().numpy()

    def close(self) -> None:
        """Write what is left."""
        for out in self._out:
            out.flush()


def open_levels(paths: Sequence[Path]) -> Stored:
    """Open what `Writer` kept; several one after the other, then in memory."""
    found = [[np.load(_level(path, name), mmap_mode="r") for path in paths] for name in CHANNELS]
    return Stored(*(parts[0] if len(parts) == 1 else np.concatenate(parts) for parts in found))


def _batches(count: int) -> Iterator[slice]:
    return (slice(start, min(count, start + BATCH)) for start in range(0, count, BATCH))


def make_views(
    maker: ViewMaker, chances: NDArray[np.float64], count: int, seed: int, path: Path
) -> None:
    """Make `count` views of pictures drawn by their chances, and keep their features.

    Writes the levels, then `path`.json with the rest; nothing if that is there.
    """
    notes = path.with_suffix(".json")
    if notes.exists():
        return
    write = Writer(path, count, WIDTH, HEIGHT)
    order = np.random.default_rng(seed).choice(len(chances), count, p=chances)
    told: list[dict[str, object]] = []
    for part in _batches(count):
        views = [
            maker(int(order[row]), np.random.default_rng((seed, row)))
            for row in range(part.start, part.stop)
        ]
        write(part.start, [view.pixels for view in views])
        told += [_told(view) for view in views]
    write.close()
    notes.write_text(json.dumps(told))


def _told(view: View) -> dict[str, object]:
    return {
        "boxes": view.boxes.round(1).tolist(),
        "label": view.label,
        "complete": view.complete,
        "families": sorted(view.families),
    }


def open_views(paths: Sequence[Path]) -> Views:
    """Open what `make_views` wrote, one after the other."""
    told = [one for path in paths for one in json.loads(path.with_suffix(".json").read_text())]
    return Views(
        open_levels(paths),
        [np.array(one["boxes"], np.float32).reshape(-1, 5) for one in told],
        np.array([one["label"] for one in told], np.int8),
        np.array([one["complete"] for one in told], np.bool_),
        [frozenset(one["families"]) for one in told],
    )


def keep_pictures(images: Sequence[Pixels], show: Callable[[Pixels], Pixels], path: Path) -> None:
    """Keep the levels of every picture, as `show` gives it to a member, unless they are there."""
    done = path.with_suffix(".json")
    if done.exists():
        return
    height, width = show(images[0]).shape[:2]
    write = Writer(path, len(images), width, height)
    for row, image in enumerate(images):
        write(row, [show(image)])
    write.close()
    done.write_text(json.dumps(len(images)))


def whole(
    width: int, height: int, top: int = 0, bottom: int | None = None
) -> Callable[[Pixels], Pixels]:
    """Return what stretches a picture to one size and cuts the rows from top to bottom out."""
    return lambda image: resize(image, width, height)[top:bottom]
