"""``verify`` on random histories: what nothing is wrong with is clean, and nothing else is."""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import anyio
import msgspec
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from roadstream.schemas import codec
from roadstream.schemas.records.events import (
    Acknowledged,
    Assigned,
    Committed,
    Delivered,
    Done,
    Event,
)
from roadstream.schemas.topics import ANSWERS, CONSENSUS_GROUP, VOTES
from roadstream.sinks.verification.findings import Report
from roadstream.streams.log import Output, TopicPartition
from roadstream.streams.memory.log import MemoryPartition
from tests.kits.examples import examples
from tests.kits.history import FAULTS, ONE, History, events, write

STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            [
                *("send", "poll", "poll", "finish first", "finish last") * 3,
                "leave and join",
                "fail and join",
                "crash and join",
                "be silent",
                *FAULTS,
            ]
        ),
        st.integers(0, 3),
        st.integers(0, 5),
    ),
    max_size=40,
)
Drawn = Callable[[int], int]
ROOMY = settings(
    max_examples=examples(60), deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


@ROOMY
@given(STEPS, st.booleans())
def test_a_history_in_which_nothing_is_lost_is_clean(
    steps: list[tuple[str, int, int]], atomic: bool
) -> None:
    async def play(folder: Path) -> None:
        history = History(folder, atomic=atomic)
        await history.play(steps)
        history.log.faults.clear()  # or the reader would meet them
        between = await history.verify()
        await history.settle()
        after = await history.verify()

        assert between.anomalies == {}, between.findings
        assert after.verdict == "clean", (after.findings, after.waiting, after.unchecked)
        assert after.answers == history.sent

    with tempfile.TemporaryDirectory() as folder:
        anyio.run(play, Path(folder))


# One thing that is wrong


def drop_answer(history: History, drawn: Drawn) -> bool:
    parts = history.log.topics[ANSWERS]
    part = parts[drawn(len(parts))]
    if not part:
        return False
    del part[drawn(len(part))]
    kept = MemoryPartition()
    kept.extend(record._replace(offset=i) for i, record in enumerate(part))
    parts[parts.index(part)] = kept
    return True


def some_answer(history: History, drawn: Drawn) -> tuple[int, bytes] | None:
    found = [
        (number, record.value)
        for number, part in enumerate(history.log.topics[ANSWERS])
        for record in part
        if record.value is not None
    ]
    return found[drawn(len(found))] if found else None


def repeat_answer(history: History, drawn: Drawn) -> bool:
    if (chosen := some_answer(history, drawn)) is None:
        return False
    history.log.append([Output(ANSWERS, None, chosen[1], chosen[0])])
    return True


def contradict_answer(history: History, drawn: Drawn) -> bool:
    if (chosen := some_answer(history, drawn)) is None:
        return False
    later = msgspec.structs.replace(codec.decode_answer(chosen[1]), confidence=0.125)
    history.log.append([Output(ANSWERS, None, codec.encode(later), chosen[0])])
    return True


def invent_answer(history: History, drawn: Drawn) -> bool:
    if (chosen := some_answer(history, drawn)) is None:
        return False
    told = codec.decode_answer(chosen[1])
    ghost = msgspec.structs.replace(told, head=msgspec.structs.replace(told.head, image_id="ghost"))
    history.log.append([Output(ANSWERS, None, codec.encode(ghost), chosen[0])])
    return True


def garble_answer(history: History, drawn: Drawn) -> bool:
    history.log.append([Output(ANSWERS, None, b"\xc1" * 9, drawn(2))])
    return True


def some_offset(history: History, drawn: Drawn) -> tuple[dict[TopicPartition, int], TopicPartition]:
    groups = [(ONE, "images.archive"), (CONSENSUS_GROUP, VOTES)]
    group, topic = groups[drawn(len(groups))]
    return history.log.broker.group(group).offsets, TopicPartition(topic, drawn(2))


def commit_beyond(history: History, drawn: Drawn) -> bool:
    offsets, tp = some_offset(history, drawn)
    offsets[tp] = history.log.topics[tp.topic][tp.partition].end + 1
    return True


def set_back(history: History, drawn: Drawn) -> bool:
    offsets, tp = some_offset(history, drawn)
    if offsets.get(tp, 0) == 0:
        return False
    offsets[tp] -= 1
    return True


def forget_offsets(history: History, drawn: Drawn) -> bool:
    offsets, tp = some_offset(history, drawn)
    return offsets.pop(tp, 0) > 0


def some_event(
    history: History, drawn: Drawn, kind: type[Event]
) -> tuple[Path, list[Event], int] | None:
    found = [
        (path, all_of_it, number)
        for path in history.files()
        for all_of_it in [events(path)]
        for number, event in enumerate(all_of_it)
        if isinstance(event, kind)
    ]
    return found[drawn(len(found))] if found else None


def acknowledge_more(history: History, drawn: Drawn) -> bool:
    if (chosen := some_event(history, drawn, Acknowledged)) is None:
        return False
    path, found, number = chosen
    write(path, [*found[:number], Acknowledged(1.0, ["never kept"]), *found[number:]])
    return True


def leave_out(kind: type[Event]) -> Callable[[History, Drawn], bool]:
    def change(history: History, drawn: Drawn) -> bool:
        if (chosen := some_event(history, drawn, kind)) is None:
            return False
        path, found, number = chosen
        if kind in {Done, Delivered} and not _is_committed(found, number):
            return False
        if kind is Assigned and not any(_is_committed(found, n) for n in _fed(found, number)):
            return False
        write(path, found[:number] + found[number + 1 :])
        return True

    change.__name__ = f"leave_out_{kind.__name__.lower()}"
    return change


def _fed(found: list[Event], number: int) -> Iterator[int]:
    """Yield the deliveries of an assignment."""
    for n, event in enumerate(found[number + 1 :], number + 1):
        if isinstance(event, Assigned):
            return
        if isinstance(event, Delivered):
            yield n


def _is_committed(found: list[Event], number: int) -> bool:
    """Return whether work was committed in the time for which the member had it."""
    work = found[number]
    assert isinstance(work, Done | Delivered)
    for event in found[number:]:
        if isinstance(event, Assigned):
            return False
        if isinstance(event, Committed) and any(
            (topic, partition) == (t, p) and first < offset
            for topic, partition, first, _ in work.ranges
            for t, p, offset in event.offsets
        ):
            return True
    return False


def commit_ahead(history: History, drawn: Drawn) -> bool:
    if (chosen := some_event(history, drawn, Committed)) is None:
        return False
    path, found, number = chosen
    event = found[number]
    assert isinstance(event, Committed)
    ahead = [(topic, partition, offset + 50) for topic, partition, offset in event.offsets]
    write(path, [*found[:number], Committed(event.at, ahead), *found[number + 1 :]])
    return True


def lose_file(history: History, drawn: Drawn) -> bool:
    files = [path for path in history.files() if any(isinstance(e, Done) for e in events(path))]
    if not files:
        return False
    files[drawn(len(files))].unlink()
    return True


def cut_line(history: History, drawn: Drawn) -> bool:
    files = [path for path in history.files() if len(events(path)) > 2]
    if not files:
        return False
    path = files[drawn(len(files))]
    found = path.read_bytes().splitlines(keepends=True)
    del found[drawn(len(found) - 1)]
    path.write_bytes(b"".join(found))
    return True


def flip_bit(history: History, drawn: Drawn) -> bool:
    files = history.files()
    path = files[drawn(len(files))]
    data = bytearray(path.read_bytes())
    at = drawn(len(data) - 1)
    data[at] ^= 1 << drawn(8)
    path.write_bytes(data)
    return True


WRONGS = [
    drop_answer,
    repeat_answer,
    contradict_answer,
    invent_answer,
    garble_answer,
    commit_beyond,
    set_back,
    forget_offsets,
    acknowledge_more,
    leave_out(Acknowledged),
    leave_out(Delivered),
    leave_out(Done),
    leave_out(Assigned),
    commit_ahead,
    lose_file,
    cut_line,
    flip_bit,
]


@pytest.mark.parametrize("wrong", WRONGS, ids=lambda wrong: wrong.__name__)
@settings(ROOMY, max_examples=examples(20))
@given(
    picks=st.lists(st.integers(0, 10**6), min_size=4, max_size=4),
    steps=STEPS,
    atomic=st.booleans(),
)
def test_a_history_in_which_one_thing_is_wrong_is_not_cleared(
    wrong: Callable[[History, Drawn], bool],
    picks: list[int],
    steps: list[tuple[str, int, int]],
    atomic: bool,
) -> None:
    async def play(folder: Path) -> Report:
        history = History(folder, atomic=atomic)
        await history.play([("send", 0, 3), *steps])
        await history.settle()
        chosen = iter(picks)
        assume(wrong(history, lambda count: next(chosen) % count))
        return await history.verify()

    with tempfile.TemporaryDirectory() as folder:
        report = anyio.run(play, Path(folder))

    assert report.verdict in {"anomalies", "open", "unchecked"}, wrong
