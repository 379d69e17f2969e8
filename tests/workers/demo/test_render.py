"""render_drive() and write_drive(): labels, boxes, determinism."""

import csv
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest

from roadstream.workers.demo.render import Frame, render_drive, write_drive


@pytest.fixture(scope="module")
def drive() -> list[Frame]:
    return list(render_drive(48, 480, 270, seed=3))


def test_frames_are_pictures_of_the_size_asked_for(drive: list[Frame]) -> None:
    assert len(drive) == 48
    for frame in drive:
        assert frame.image.shape == (270, 480, 3)
        assert frame.image.dtype == np.uint8
        assert frame.image.std() > 15


@pytest.mark.parametrize("frames", [12, 48, 60])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_about_two_fifths_show_roadwork(frames: int, seed: int) -> None:
    shown = [frame.roadwork for frame in render_drive(frames, 160, 90, seed)]

    assert 0.3 <= sum(shown) / frames <= 0.5


def test_boxes_come_with_roadwork_only_and_lie_in_the_picture(drive: list[Frame]) -> None:
    kinds = {"cone", "drum", "barrier", "post", "work_sign", "worker", "machine"}
    for frame in drive:
        assert frame.roadwork == bool(frame.boxes)
        for box in frame.boxes:
            assert box.kind in kinds
            assert 0 <= box.x1 < box.x2 <= 1
            assert 0 <= box.y1 < box.y2 <= 1


def test_cones_are_orange_where_their_boxes_are(drive: list[Frame]) -> None:
    orange = 0
    for frame in drive:
        for box in frame.boxes:
            if box.kind == "cone" and box.y2 - box.y1 > 0.1:
                rows = slice(int(box.y1 * 270), int(box.y2 * 270))
                part = frame.image[rows, int(box.x1 * 480) : int(box.x2 * 480)].astype(int)
                orange += int((part[..., 0] > part[..., 2] + 60).mean() > 0.15)
    assert orange > 0


def test_the_same_seed_gives_the_same_pictures() -> None:
    first, again, other = (list(render_drive(4, 320, 180, seed)) for seed in (5, 5, 6))

    assert all(np.array_equal(a.image, b.image) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[0].image, other[0].image)


def test_consecutive_frames_differ(drive: list[Frame]) -> None:
    for one, other in pairwise(drive):
        assert not np.array_equal(one.image, other.image)


def test_a_drive_is_written_with_its_labels(tmp_path: Path) -> None:
    labels = write_drive(tmp_path / "drive", 12, width=320, height=180, seed=1)

    with labels.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["file"] for row in rows] == [f"frame_{k:03}.jpg" for k in range(12)]
    assert {row["label"] for row in rows} == {"roadwork", "none"}
    image = cv2.imread(str(tmp_path / "drive" / "frame_000.jpg"))
    assert image is not None
    assert image.shape == (180, 320, 3)
