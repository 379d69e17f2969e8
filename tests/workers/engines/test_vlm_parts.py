"""What engines for vision-language models share: sizes, earlier frames, questions."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from roadstream.schemas.cascade.model import Member
from roadstream.schemas.records.image import Head
from roadstream.schemas.settings.vllm import VllmSettings
from roadstream.stages.inference import Picture, Pictures, Pixels
from roadstream.streams.clock import ManualClock
from roadstream.workers.engines.vlm.asking import Asking, shortest
from roadstream.workers.engines.vlm.fitting import Limits, fitted
from roadstream.workers.engines.vlm.sessions import Sessions
from tests.kits.builders import cascade, tier

SIDE = st.integers(1, 4000)


@given(SIDE, SIDE)
@example(9, 14)  # 1.6 by 2.5 multiples
def test_a_fitted_size_is_within_the_limits(width: int, height: int) -> None:
    limits = Limits(64 * 64, 512 * 384, 32)

    wide, high = limits.size(width, height)

    assert wide % 32 == high % 32 == 0
    assert wide * high <= limits.largest
    if 0.2 < width / height < 5:  # a strip is changed by the rounding, and the smallest size too
        assert wide / high == pytest.approx(width / height, rel=0.75)


def test_a_picture_of_a_right_size_is_left_alone() -> None:
    pixels = np.zeros((352, 512, 3), np.uint8)

    (found,) = fitted(Pictures([Picture(pixels)]), Limits(1024, 512 * 352, 32))

    assert found is pixels


def test_a_batch_is_fitted_once_per_limits() -> None:
    batch = Pictures([Picture(np.zeros((400, 600, 3), np.uint8))])
    small, large = Limits(1024, 100_000, 32), Limits(1024, 200_000, 32)

    assert fitted(batch, small) is fitted(batch, small)
    assert fitted(batch, small)[0].size < fitted(batch, large)[0].size


def frame(session: str | None, index: int | None, level: int) -> Picture:
    head = Head(image_id=f"{session}/{index}", session_id=session, frame_index=index)
    return Picture(np.full((32, 32, 3), level, np.uint8), head=head)


def levels(shown: list[list[Pixels]]) -> list[list[int]]:
    return [[int(pixels[0, 0, 0]) for pixels in one] for one in shown]


def seen(sessions: Sessions, *pictures: Picture) -> list[list[int]]:
    batch = Pictures(pictures)
    return levels(sessions.with_earlier(batch, [one.pixels for one in batch]))


def test_a_picture_is_shown_with_the_frames_before_it_in_any_order() -> None:
    sessions = Sessions(2, 8)

    first = seen(sessions, frame("a", 3, 3), frame("a", 1, 1), frame("b", 2, 102), frame("a", 2, 2))
    later = seen(sessions, frame("a", 4, 4), frame("b", 9, 109))

    assert first == [[1, 2, 3], [1], [102], [1, 2]]
    assert later == [[2, 3, 4], [102, 109]]


def test_without_a_session_or_a_place_in_it_a_picture_stands_alone() -> None:
    sessions = Sessions(2, 8)

    assert seen(sessions, frame(None, 1, 1), frame("a", None, 2), frame("a", 1, 3)) == [
        [1],
        [2],
        [3],
    ]
    assert levels(sessions.with_earlier(Pictures([Picture()]), [np.ones((1, 1, 3), np.uint8)])) == [
        [1]
    ]


def test_the_session_unseen_for_longest_is_forgotten() -> None:
    sessions = Sessions(1, 2)
    for session in ("a", "b", "c"):
        seen(sessions, frame(session, 1, 1))

    assert seen(sessions, frame("b", 2, 2)) == [[1, 2]]
    assert seen(sessions, frame("a", 2, 2)) == [[2]]


def test_no_frames_are_kept_where_none_are_shown() -> None:
    sessions = Sessions(0, 8)

    assert seen(sessions, frame("a", 1, 1), frame("a", 2, 2)) == [[1], [2]]


def asking(folder: Path, clock: ManualClock, **settings: Any) -> Asking:
    member = Member(name="m", engine="vllm", model="x", width=512, height=352)
    asked = Asking(
        cascade(tier("one", member)),
        member,
        VllmSettings(**settings),
        clock,
    )
    asked.load()
    return asked


def test_a_question_knows_how_long_its_picture_has(tmp_path: Path, clock: ManualClock) -> None:
    asked = asking(tmp_path, clock)
    pixels = np.zeros((100, 100, 3), np.uint8)
    soon = Head(image_id="a", deadline_at=clock.now() + 3)
    late = Head(image_id="b", deadline_at=clock.now() - 1)
    batch = Pictures([Picture(pixels, head=soon), Picture(pixels), Picture(pixels, head=late)])

    questions = asked.questions(batch)

    assert [one.patience for one in questions] == [3, None, -1]
    assert shortest(questions[:2], 5.0) == 3
    assert shortest(questions, 5.0) == 0
    assert shortest(questions[1:2], 5.0) == 5


def test_pictures_are_fitted_to_the_size_of_the_member(tmp_path: Path, clock: ManualClock) -> None:
    batch = Pictures([Picture(np.zeros((1080, 1920, 3), np.uint8))])

    (usual,) = asking(tmp_path, clock).questions(batch)
    (small,) = asking(tmp_path, clock, max_pixels=50_000).questions(batch)

    assert usual.pictures[0].shape == (320, 544, 3)
    assert small.pictures[0].shape == (160, 288, 3)
