"""A policy by import path, and what the batcher makes of its answers."""

import math
from pathlib import Path
from typing import Any

import pytest

from roadstream.schemas.errors import ConfigError
from roadstream.stages.batching.batcher import Batcher
from roadstream.stages.batching.latency_model import AffineLatency
from roadstream.stages.batching.policy import (
    BatchPolicy,
    Moment,
    Queued,
    ShapeQueue,
    Take,
    load_policy,
)
from tests.stages.batching.test_batcher import NOW, Waiting, archive, live

SOURCE = """
from roadstream.stages.batching.policy import BatchPolicy

class NoTake(BatchPolicy):
    pass

class Picky(BatchPolicy):
    take = begin = None
    def __init__(self, size):
        pass

class Leaver(BatchPolicy):
    take = None
    def __init__(self):
        raise SystemExit("no")
"""


class Scripted(BatchPolicy):
    """Answers what it is told to, or raises it."""

    def __init__(self, take: Any = None, begin_at: Any = NOW, enough: Any = 1) -> None:
        self._take, self._begin_at, self._enough = take, begin_at, enough
        self.came: list[float] = []
        self.asked: list[tuple[list[float], list[float], int]] = []
        self.told: list[tuple[int, float, float]] = []

    def live_came(self, deadlines: Any, now: float) -> None:
        self.came += deadlines

    def begin_at(self, queue: ShapeQueue, moment: Moment) -> float:
        due_at: float = self._answer(self._begin_at)
        return due_at

    def take(self, queue: ShapeQueue, moment: Moment) -> Take:
        waiting = [one.deadline_at for one in queue.live], [one.came_at for one in queue.archive]
        self.asked.append((*waiting, queue.most))
        take: Take = self._answer(self._take)
        return take

    def enough(self, queue: ShapeQueue, now: float) -> int:
        enough: int = self._answer(self._enough)
        return enough

    def ended(self, size: int, seconds: float, now: float) -> None:
        self.told.append((size, seconds, now))

    def _answer(self, answer: Any) -> Any:
        if isinstance(answer, Exception):
            raise answer
        return answer


def filled(policy: BatchPolicy, max_batch: int = 8) -> Batcher[Waiting]:
    """Return a queue of three live images, 1 the most urgent, and of four archive ones."""
    batcher: Batcher[Waiting] = Batcher(max_batch, AffineLatency(0.1, 0.5), policy=policy)
    batcher.add([live(2, NOW + 2), archive(4), live(1, NOW + 1), archive(5)], NOW)
    batcher.add([archive(6), live(3, NOW + 3), archive(7)], NOW + 0.5)
    return batcher


@pytest.mark.parametrize(
    ("take", "taken"),
    [
        (Take(1), [1]),
        (Take(5), [1, 2, 3, 4, 5]),
        (Take(99), [1, 2, 3, 4, 5, 6]),
        (Take(4, live=1), [1, 4, 5, 6]),
        (Take(3, live=0), [4, 5, 6]),
        (Take(2, skip=1), [2, 3]),
        (Take(3, skip=2), [3, 4, 5]),
        (Take(2, skip=9), [4, 5]),
    ],
)
def test_a_batch_holds_what_the_policy_says_as_far_as_there_is(
    take: Take, taken: list[int]
) -> None:
    batcher = filled(Scripted(take), max_batch=6)

    assert [item.serial for item in batcher.next_batch(Moment(NOW)).items] == taken
    assert len(batcher) == batcher.size == 7 - len(taken)
    left = [item.serial for item in batcher.drop()]
    assert sorted(left + taken) == [1, 2, 3, 4, 5, 6, 7]
    assert left == sorted(left)


def test_it_sees_deadlines_ages_and_how_many_may_go_at_once() -> None:
    policy = Scripted(Take(2))
    batcher = filled(policy)
    batcher.cap.lower(3)
    batcher.next_batch(Moment(NOW))

    assert policy.came == [NOW + 2, NOW + 1, NOW + 3]
    ages = [NOW, NOW, NOW + 0.5, NOW + 0.5]
    assert policy.asked == [([NOW + 1, NOW + 2, NOW + 3], ages, 3)]
    assert batcher.begin_at(Moment(NOW - 4)) == NOW


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (None, "a Take of numbers from 0 on, got None"),
        (3, "a Take of numbers from 0 on, got 3"),
        (Take(-1), "a Take of numbers from 0 on, got Take(size=-1, live=None, skip=0)"),
        (Take(1.5), "a Take of numbers from 0 on, got Take(size=1.5"),  # type: ignore[arg-type]
        (Take(3, live=0.0), "a Take of numbers from 0 on, got Take(size=3, live=0.0"),  # type: ignore[arg-type]
        (Take(2, skip=-1), "a Take of numbers from 0 on, got Take(size=2, live=None, skip=-1)"),
        (Take(0), "a Take with an image at least, got Take(size=0, live=None, skip=0), where 3 l"),
        (ValueError("two\nlines"), "an answer, got ValueError: two lines ("),
    ],
)
def test_what_is_no_batch_is_refused_and_loses_nothing(answer: object, told: str) -> None:
    batcher = filled(Scripted(answer))

    with pytest.raises(ConfigError) as refused:
        batcher.next_batch(Moment(NOW))
    assert str(refused.value).startswith(f"{__name__}:Scripted.take: expected {told}")
    assert [item.serial for item in batcher.drop()] == [1, 2, 3, 4, 5, 6, 7]


def test_images_that_come_together_keep_their_order_whatever_their_shape() -> None:
    batcher: Batcher[Waiting] = Batcher(1, policy=Scripted(Take(1)))
    batcher.add([archive(1, "a"), archive(2, "b"), archive(3, "a"), archive(4, "b")], NOW)
    batcher.add([live(5, NOW + 1, "b"), live(6, NOW + 1, "a"), live(7, NOW + 1, "b")], NOW)

    order = [batcher.next_batch(Moment(NOW)).items[0].serial for _ in range(7)]
    assert order == [5, 6, 7, 1, 2, 3, 4]


def test_the_age_of_the_oldest_is_that_of_whoever_has_waited_longest() -> None:
    queue = ShapeQueue(AffineLatency(), 8)
    assert queue.oldest_at == math.inf
    queue.insert(Queued(NOW + 1, 1, NOW + 0.3, "urgent"))
    queue.insert(Queued(NOW + 9, 2, NOW + 0.1, "patient"))
    assert queue.oldest_at == NOW + 0.1
    queue.archive.append(Queued(math.inf, 3, NOW, "archive"))
    assert queue.oldest_at == NOW


def test_ours_waits_for_more_only_on_idle_devices_and_while_more_will_come() -> None:
    batcher: Batcher[Waiting] = Batcher(64, AffineLatency(alpha=0.1, beta=0.5))
    batcher.add([archive(1)], NOW)

    assert batcher.begin_at(Moment(NOW, more=True)) == NOW + 0.5
    assert batcher.begin_at(Moment(NOW, more=True, running=1)) == NOW
    assert batcher.begin_at(Moment(NOW)) == NOW


def test_it_is_told_what_a_batch_took_and_an_error_of_it_where_it_was_raised() -> None:
    policy = Scripted()
    Batcher[Waiting](8, policy=policy).ended(3, 0.5, NOW)
    assert policy.told == [(3, 0.5, NOW)]

    here = Path(__file__).name
    with pytest.raises(ConfigError, match=rf"ValueError: no \(\S*{here}:\d+\)$"):
        filled(Scripted(ValueError("no"))).next_batch(Moment(NOW))


@pytest.mark.parametrize("answer", [None, "soon", math.inf, math.nan, 10**400, KeyError("x")])
def test_so_is_what_is_no_time_and_no_number(answer: object) -> None:
    number = "a number that is not infinite, got (None|'soon'|inf|nan|10{400})$"
    told = rf": expected (an answer, got KeyError: 'x' |{number})"
    with pytest.raises(ConfigError, match=r"Scripted\.begin_at" + told):
        filled(Scripted(begin_at=answer)).begin_at(Moment(NOW))
    with pytest.raises(ConfigError, match=r"Scripted\.enough" + told):
        filled(Scripted(enough=answer)).state(NOW)


@pytest.mark.parametrize("answer", [-math.inf, -(10**400), -1])
def test_a_time_long_past_means_at_once(answer: object) -> None:
    assert filled(Scripted(begin_at=answer)).begin_at(Moment(NOW)) <= NOW


class Thief(Scripted):
    """Takes images itself, and makes batches as large as it likes."""

    def take(self, queue: ShapeQueue, moment: Moment) -> Take:
        if self._enough == "taken":
            queue.archive.popleft()
        queue.most = 99
        return Take(5)


def test_a_policy_that_takes_images_itself_is_refused_and_makes_no_batch_larger() -> None:
    with pytest.raises(ConfigError, match="take: expected 7 images left in the queue, got 6"):
        filled(Thief(enough="taken")).next_batch(Moment(NOW))
    assert len(filled(Thief(), max_batch=2).next_batch(Moment(NOW)).items) == 2


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("some_policy", "expected module:Class, got 'some_policy'"),
        ("nowhere:A", "expected nowhere:A to be importable, got ModuleNotFoundError: No module "),
        ("some_policy:A", "expected some_policy:A to be importable, got AttributeError: "),
        ("math:pi", "expected math:pi to be a BatchPolicy, got 3.14"),
        ("some_policy:NoTake", "expected some_policy:NoTake to be a BatchPolicy, got one without "),
        ("some_policy:Picky", "expected some_policy:Picky to be made without arguments, got Type"),
        ("some_policy:Leaver", "expected some_policy:Leaver to be made without arguments, got Sys"),
    ],
)
def test_what_cannot_be_had_is_refused_with_its_reason(
    path: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "some_policy.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)

    with pytest.raises(ConfigError) as refused:
        load_policy(path)
    assert str(refused.value).startswith(f"--batch-policy: {told}")
