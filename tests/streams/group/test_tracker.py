"""The offset tracker against a naive model: never past what is in flight, never backwards."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from roadstream.streams.group.tracker import OffsetTracker
from roadstream.streams.log import Offsets, TopicPartition
from tests.kits.examples import examples

PARTITIONS = [TopicPartition("a", 0), TopicPartition("a", 1), TopicPartition("b", 0)]
SOME = st.sets(st.sampled_from(PARTITIONS))
GAPS = st.lists(st.integers(1, 4), min_size=1, max_size=6)


class Model:
    """What the tracker promises, written down as plainly as possible."""

    def __init__(self, owned: set[TopicPartition]) -> None:
        self.delivered: dict[TopicPartition, list[int]] = {tp: [] for tp in owned}
        self.in_flight: dict[TopicPartition, set[int]] = {tp: set() for tp in owned}
        self.committed: dict[TopicPartition, int] = {}

    def committable(self, also_done: dict[TopicPartition, list[int]]) -> dict[TopicPartition, int]:
        found = {}
        for tp, delivered in self.delivered.items():
            if not delivered:
                continue
            left = self.in_flight[tp] - set(also_done.get(tp, ()))
            offset = min(left) if left else delivered[-1] + 1
            if offset > self.committed.get(tp, -1):
                found[tp] = offset
        return found


class TrackerMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.tracker = OffsetTracker()
        self.model = Model(set())
        self.epoch = 0
        # What was committed in this epoch, in order: a history of its own, beside the model.
        self.history: dict[TopicPartition, list[int]] = {}

    def commit(self, offsets: Offsets) -> None:
        """Commit as a consumer does, and check the one promise that everything rests on."""
        for tp, offset in offsets.items():
            delivered, in_flight = self.model.delivered[tp], self.model.in_flight[tp]
            assert not any(flying < offset for flying in in_flight), "ahead of work"
            assert delivered[0] <= offset <= delivered[-1] + 1, "beyond what was delivered"
            following = [at for at in delivered if at >= offset]
            assert offset == (following[0] if following else delivered[-1] + 1), "between records"
            assert all(offset > earlier for earlier in self.history.get(tp, [])), "not forward"
            self.history.setdefault(tp, []).append(offset)
        self.tracker.committed(offsets, self.epoch)
        self.model.committed.update(offsets)

    @rule(owned=SOME, skipped=st.integers(1, 3))
    def rebalance(self, owned: set[TopicPartition], skipped: int) -> None:
        self.epoch += skipped
        self.tracker.assign(self.epoch, owned)
        self.model = Model(owned)
        self.history = {}

    @precondition(lambda self: self.model.delivered)
    @rule(data=st.data(), gaps=GAPS)
    def deliver(self, data: st.DataObject, gaps: list[int]) -> None:
        tp = data.draw(st.sampled_from(sorted(self.model.delivered)))
        before = self.model.delivered[tp]
        at = before[-1] if before else data.draw(st.integers(-1, 50))
        offsets = [at := at + gap for gap in gaps]
        self.tracker.deliver(tp, offsets)
        before.extend(offsets)
        self.model.in_flight[tp].update(offsets)

    def draw_done(self, data: st.DataObject) -> dict[TopicPartition, list[int]]:
        return {
            tp: data.draw(st.lists(st.sampled_from(sorted(left)), unique=True))
            for tp, left in self.model.in_flight.items()
            if left
        }

    @rule(data=st.data(), commits=st.booleans())
    def finish(self, data: st.DataObject, commits: bool) -> None:
        done = self.draw_done(data)

        commit = self.tracker.commit_after(done, self.epoch)

        expected = self.model.committable(done)
        assert commit == {tp: at for tp, at in expected.items() if tp in done}
        self.the_tracker_agrees_with_the_model()  # asking has changed nothing
        self.tracker.done(done, self.epoch)
        for tp, offsets in done.items():
            self.model.in_flight[tp].difference_update(offsets)
        if commits:
            self.commit(commit)

    @rule()
    def flush(self) -> None:
        """Commit whatever may be; a second time there is nothing left."""
        self.commit(self.tracker.committable())
        assert self.tracker.committable() == {}

    @rule()
    def finish_everything(self) -> None:
        """Once nothing is in flight, all that was delivered is committed: nothing is skipped."""
        done = {tp: sorted(left) for tp, left in self.model.in_flight.items()}
        self.tracker.done(done, self.epoch)
        for left in self.model.in_flight.values():
            left.clear()
        self.commit(self.tracker.committable())
        for tp, delivered in self.model.delivered.items():
            if delivered:
                assert self.history[tp][-1] == delivered[-1] + 1

    @rule(data=st.data(), age=st.integers(1, 3))
    def finish_work_of_an_earlier_epoch(self, data: st.DataObject, age: int) -> None:
        done, stale = self.draw_done(data), self.epoch - age
        assert self.tracker.commit_after(done, stale) == {}
        self.tracker.done(done, stale)
        self.tracker.committed(dict.fromkeys(PARTITIONS, 1_000), stale)

    @rule(data=st.data())
    def finish_partitions_of_others(self, data: st.DataObject) -> None:
        others = [tp for tp in PARTITIONS if tp not in self.model.delivered]
        done = {tp: [data.draw(st.integers(0, 50))] for tp in others}
        assert self.tracker.commit_after(done, self.epoch) == {}
        self.tracker.done(done, self.epoch)

    @precondition(lambda self: self.model.committed)
    @rule(data=st.data())
    def repeat_an_earlier_commit(self, data: st.DataObject) -> None:
        tp = data.draw(st.sampled_from(sorted(self.model.committed)))
        lower = data.draw(st.integers(0, self.model.committed[tp]))
        self.tracker.committed({tp: lower}, self.epoch)

    @invariant()
    def the_tracker_agrees_with_the_model(self) -> None:
        committable = self.tracker.committable()
        assert committable == self.model.committable({})
        for tp, offset in committable.items():
            assert all(offset <= flying for flying in self.model.in_flight[tp])
        assert self.tracker.in_flight == sum(map(len, self.model.in_flight.values()))

    @invariant()
    def it_owns_what_was_assigned_in_this_epoch(self) -> None:
        for tp in PARTITIONS:
            assert self.tracker.owns(tp, self.epoch) is (tp in self.model.delivered)
            assert not self.tracker.owns(tp, self.epoch - 1)


TestTracker = TrackerMachine.TestCase
TestTracker.settings = settings(deadline=None, max_examples=examples(150), stateful_step_count=30)


def test_the_offset_after_a_gap_is_the_position_after_the_last_record() -> None:
    tracker, tp = OffsetTracker(), PARTITIONS[0]
    tracker.assign(1, [tp])
    tracker.deliver(tp, [3, 9])

    assert tracker.commit_after({tp: [3]}, 1) == {tp: 9}
    assert tracker.commit_after({tp: [9]}, 1) == {tp: 3}
    assert tracker.commit_after({tp: [9, 3]}, 1) == {tp: 10}
    assert tracker.commit_after({PARTITIONS[1]: [3], tp: [3]}, 1) == {tp: 9}  # the first is lost


def test_the_first_offsets_of_a_log_are_offsets_like_others() -> None:
    tracker, tp = OffsetTracker(), PARTITIONS[0]
    tracker.assign(1, [tp])
    tracker.deliver(tp, [0, 1])
    assert tracker.committable() == {tp: 0}
    tracker.committed({tp: 0}, 1)
    tracker.done({tp: [0]}, 1)
    assert tracker.committable() == {tp: 1}

    tracker.assign(2, [tp])
    tracker.deliver(tp, [1])
    assert tracker.commit_after({tp: []}, 2) == tracker.committable() == {tp: 1}


def test_before_the_first_assignment_nothing_is_owned() -> None:
    tracker, tp = OffsetTracker(), PARTITIONS[0]
    assert (tracker.epoch, tracker.in_flight, tracker.owns(tp, 0)) == (0, 0, False)
    assert tracker.commit_after({tp: [3]}, 0) == tracker.committable() == {}
    tracker.committed({tp: 3}, 0)


def test_a_partition_that_delivered_nothing_is_not_committed() -> None:
    tracker = OffsetTracker()
    tracker.assign(1, PARTITIONS)

    assert tracker.committable() == {}
    assert tracker.commit_after({PARTITIONS[0]: []}, 1) == {}


def test_what_was_not_delivered_is_told_of_owned_partitions_only() -> None:
    tracker, (first, second, *_) = OffsetTracker(), PARTITIONS
    tracker.assign(1, [first, second])
    tracker.deliver(first, [3, 9])
    foreign = TopicPartition("elsewhere", 0)
    left = {first: range(3, 14), second: range(7), foreign: range(8)}

    assert tracker.undelivered(left) == {first: range(10, 14), second: range(7)}
    assert len(tracker.undelivered({first: range(3, 8)})[first]) == 0  # asked before the poll
