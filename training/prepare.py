"""Split the pictures by scene and decode them once: writes split.csv and the cache arrays."""

import argparse
import csv
import random
from collections import Counter, defaultdict
from pathlib import Path

import cv2
import numpy as np
from corpus import (
    INPUT_SIZES,
    SPLIT_FILE,
    Picture,
    Pixels,
    add_folder_options,
    cache_path,
    load_pictures,
    stretch,
)

SHARES = {"train": 0.6, "val": 0.2, "test": 0.2}


def choose_split(wanted: Counter[int], filled: dict[str, Counter[int]], total: Counter[int]) -> str:
    """Pick the split that lacks most of what a group would bring, label by label.

    `wanted` counts the group's pictures per label, `filled` what each split already has of this
    source, `total` the source's pictures per label. Ties go to train, then val.
    """

    def lack(split: str) -> float:
        """Sum the missing share of the split over the labels the group brings."""
        return sum(
            count * (SHARES[split] - filled[split][label] / total[label]) / SHARES[split]
            for label, count in wanted.items()
        )

    return max(SHARES, key=lack)


def split_groups(pictures: list[Picture], seed: int) -> dict[str, str]:
    """Assign every split group to train, val or test; about 60/20/20 per source and label.

    Large groups are placed first and ties are broken by the seeded order, so that the result is
    the same on every machine.
    """
    assigned: dict[str, str] = {}
    for family in sorted({picture.family for picture in pictures}):
        groups: dict[str, Counter[int]] = defaultdict(Counter)
        for picture in pictures:
            if picture.family == family:
                groups[picture.group][picture.label] += 1
        total = sum(groups.values(), Counter[int]())
        filled: dict[str, Counter[int]] = {split: Counter() for split in SHARES}
        order = sorted(groups)
        random.Random(seed).shuffle(order)
        for group in sorted(order, key=lambda name: (-groups[name][1], -groups[name].total())):
            split = assigned.setdefault(group, choose_split(groups[group], filled, total))
            filled[split] += groups[group]
    return assigned


def write_split(pictures: list[Picture], assigned: dict[str, str], path: Path) -> None:
    """Write file, split_group, source_repo, split for every picture."""
    with path.open("w", newline="", encoding="utf-8") as lines:
        writer = csv.writer(lines, lineterminator="\n")
        writer.writerow(["file", "split_group", "source_repo", "split"])
        for picture in pictures:
            writer.writerow([picture.file, picture.group, picture.repo, assigned[picture.group]])


def decode(path: Path) -> Pixels:
    """Decode one picture to uint8 RGB [H, W, 3]; raises ValueError if it cannot be read."""
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise ValueError(f"{path}: expected a picture OpenCV can decode")
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), dtype=np.uint8)


def fill_cache(pictures: list[Picture], data: Path, cache: Path) -> None:
    """Decode every picture once and store it stretched to the input size of each net."""
    cache.mkdir(parents=True, exist_ok=True)
    arrays = {
        size: np.lib.format.open_memmap(
            cache_path(cache, size), "w+", np.uint8, (len(pictures), size[1], size[0], 3)
        )
        for size in INPUT_SIZES.values()
    }
    for index, picture in enumerate(pictures):
        image = decode(data / picture.file)
        for size, array in arrays.items():
            array[index] = stretch(image, size)


def main() -> None:
    """Split, decode, and print how many pictures of each label each split has."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_folder_options(parser)
    parser.add_argument("--seed", type=int, default=72, help="order in which ties are broken")
    options = parser.parse_args()
    pictures = load_pictures(options.data, split_file=None)
    assigned = split_groups(pictures, options.seed)
    write_split(pictures, assigned, SPLIT_FILE)
    fill_cache(pictures, options.data, options.cache)
    counts = Counter((p.family, p.label, assigned[p.group]) for p in pictures)
    for (family, label, split), count in sorted(counts.items()):
        print(f"{family:10s} label {label} {split:5s} {count:4d}")
    print(Counter((p.label, assigned[p.group]) for p in pictures))


if __name__ == "__main__":
    main()
