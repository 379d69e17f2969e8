"""Groups of the embedded log as a state machine: one owner per partition, and never none for long.

The members share one file and one clock, moved by hand. They join, poll, commit, freeze, die, come
back under their names; the machine stalls and starts anew. Fences and progress are checked at
every step against a model that is told only who took a partition last.
"""

import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    rule,
)

from roadstream.schemas.errors import ReplacedError
from roadstream.streams.database import Database
from roadstream.streams.embedded.group import EmbeddedStats, Membership
from roadstream.streams.embedded.store import SCHEMA, SCHEMA_VERSION
from tests.kits.examples import examples

PARTITIONS = 4
TIMEOUT = 8.0
NAMES = st.sampled_from(["a", "b", "c"])


class Process:
    """A process with one membership, as its consumer uses it."""

    def __init__(self, membership: Membership) -> None:
        self.membership = membership
        self.mine: set[int] = set()
        self.epoch = 0
        self.frozen = False

    def poll(self) -> bool:
        """Follow the group; return whether partitions were exchanged."""
        generation = self.membership.follow()
        if generation is None:
            return False
        self.mine = set(self.membership.exchange(generation))
        self.epoch += 1
        return True


class GroupMachine(RuleBasedStateMachine):
    processes = Bundle("processes")

    @initialize()
    def begin(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.database = Database(Path(self.folder.name) / "log.db")
        self.database.open(SCHEMA, SCHEMA_VERSION)
        self.database.connection.execute("PRAGMA synchronous=OFF")  # no power cut here
        self.stats = EmbeddedStats()
        self.now = 1000.0
        self.alive: list[Process] = []
        # Who took each partition last: nobody else may commit on it.
        self.holders: dict[int, Process | None] = dict.fromkeys(range(PARTITIONS))

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            self.database.close()
            self.folder.cleanup()

    def owned(self, process: Process) -> set[int]:
        with self.database.transaction() as tx:
            return process.membership.owned(tx)

    def poll(self, process: Process) -> None:
        gave = set(process.mine)
        try:
            exchanged = process.poll()
        except ReplacedError:
            assert not self.owned(process)
            self.alive.remove(process)
            return
        if exchanged:
            for partition in gave - process.mine:
                if self.holders[partition] is process:
                    self.holders[partition] = None
            for partition in process.mine:
                before = self.holders[partition]
                if before not in {None, process}:  # it did not give it up, so it must be out
                    assert before is not None
                    assert not self.is_member(before)
                self.holders[partition] = process

    @rule(target=processes, name=NAMES)
    def join(self, name: str) -> Process:
        """A process starts, or a new one under a name that is taken."""
        membership = Membership(
            self.database, "g", name, TIMEOUT, self.stats, monotonic=lambda: self.now
        )
        membership.partitions = PARTITIONS
        membership.join()
        process = Process(membership)
        self.alive.append(process)
        return process

    @rule(process=processes)
    def some_poll(self, process: Process) -> None:
        if process in self.alive and not process.frozen:
            self.poll(process)

    @rule(process=processes)
    def commit(self, process: Process) -> None:
        """Whatever a process believes, even a zombie: only the last to take a partition commits."""
        for partition in process.mine & self.owned(process):
            assert self.holders[partition] is process

    @rule(process=processes)
    def freeze(self, process: Process) -> None:
        process.frozen = True

    @rule(process=processes)
    def thaw(self, process: Process) -> None:
        process.frozen = False

    @rule(process=consumes(processes))
    def leave(self, process: Process) -> None:
        if process in self.alive:
            process.membership.leave()
            self.alive.remove(process)

    @rule(process=processes)
    def die(self, process: Process) -> None:
        """It stays a zombie that tries to commit, but never polls again."""
        if process in self.alive:
            self.alive.remove(process)

    @rule(seconds=st.floats(0.0, 3.0))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def stall(self) -> None:
        """Nobody can write for longer than the session timeout; then all go on, one by one."""
        self.settle()
        before = self.stats.evictions
        self.now += 1.5 * TIMEOUT
        for _ in range(2):
            for process in self.running():
                self.poll(process)
            self.now += TIMEOUT / 16
        assert self.stats.evictions == before

    @rule(uptime=st.floats(1.0, 20.0))
    def reboot(self, uptime: float) -> None:
        """Every process is gone and the monotonic clock begins anew; the file is still there."""
        self.alive.clear()
        self.now = uptime

    def running(self) -> list[Process]:
        return [process for process in self.alive if not process.frozen]

    @rule()
    def settle(self) -> None:
        """Left alone for a while, the living share all partitions evenly, and stay with that."""
        for _ in range(60):
            self.now += TIMEOUT / 16
            for process in self.running():
                self.poll(process)
        current = [process for process in self.running() if self.is_member(process)]
        assert bool(current) == bool(self.running())
        shares = [self.owned(process) for process in current]
        if current:
            assert sorted(p for share in shares for p in share) == list(range(PARTITIONS))
            assert max(map(len, shares)) - min(map(len, shares)) <= 1
        for process, share in zip(current, shares, strict=True):
            assert process.mine == share
            epoch = process.epoch
            self.poll(process)
            assert process.epoch == epoch

    def is_member(self, process: Process) -> bool:
        rows = self.database.connection.execute("SELECT instance FROM members").fetchall()
        return (process.membership.instance,) in rows

    @invariant()
    def no_partition_has_two_owners_that_can_commit(self) -> None:
        if not hasattr(self, "folder"):
            return
        rows = self.database.connection.execute("SELECT partition, instance FROM owners").fetchall()
        assert len({partition for partition, _ in rows}) == len(rows)
        for partition, instance in rows:
            holder = self.holders[partition]
            assert holder is not None
            assert holder.membership.instance == instance


TestGroup = GroupMachine.TestCase
TestGroup.settings = settings(deadline=None, max_examples=examples(30), stateful_step_count=40)
