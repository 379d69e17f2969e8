"""A tier's members on their devices: turn by turn on one, side by side on different ones."""

import threading
from collections.abc import Callable, Sequence
from contextvars import copy_context

from roadstream.stages.batching.latency_model import Run
from roadstream.stages.inference import Pictures
from roadstream.workers.tier.devices import Devices
from roadstream.workers.tier.members import Ballot, Names, RunningMember


class Panel:
    """Runs a tier's members.

    Args:
        members: With their engines loaded, so that their devices are known.
        devices: The devices of this process.
        rank: Position of the tier in the cascade.
        timer: Monotonic seconds.

    Attributes:
        devices: Names of the devices that its batches occupy.
    """

    def __init__(
        self,
        members: Sequence[RunningMember],
        devices: Devices,
        rank: int,
        timer: Callable[[], float],
    ) -> None:
        self._members, self._devices, self._rank, self._timer = members, devices, rank, timer
        self.devices = tuple(dict.fromkeys(one.engine.device for one in members))

    def prepare(self, batch: Pictures) -> None:
        """Let the engines prepare a batch, before any of them has its turn."""
        for running in self._members:
            running.prepare(batch)

    def vote(
        self, current: Callable[[], Pictures], names: Names, over: Callable[[str], None]
    ) -> list[Ballot]:
        """Have every member vote.

        Args:
            current: Returns the batch without those pictures that are too late by then. It is
                called once: as soon as the device is free if there is one, else before all of them.
            names: See ``RunningMember.vote``.
            over: Told of each device that the batch is done with, where there are several.

        Returns:
            A ballot per member, in their order.
        """
        if len(self.devices) == 1:
            with self._devices.hold(self.devices[0], self._rank):
                batch = current()
                return [one.vote(batch, names, self._timer) for one in self._members]
        batch = current()
        groups = [_Group(self, name, batch, names, over) for name in self.devices]
        for group in groups[1:]:
            group.start()
        groups[0].run()
        for group in groups[1:]:
            group.join()
        ballots: dict[str, Ballot] = {}
        for group in groups:
            ballots |= group.result()
        return [ballots[one.member.name] for one in self._members]

    def vote_on(self, device: str, batch: Pictures, names: Names) -> dict[str, Ballot]:
        """Have the members on one device vote; return their ballots by name."""
        with self._devices.hold(device, self._rank):
            return {
                one.member.name: one.vote(batch, names, self._timer)
                for one in self._members
                if one.engine.device == device
            }

    def runs(self, ballots: Sequence[Ballot]) -> list[Run]:
        """Return what the members took."""
        return [
            Run(one.member.name, one.engine.device, ballot.run.batch_size, ballot.run.latency)
            for one, ballot in zip(self._members, ballots, strict=True)
        ]


class _Group(threading.Thread):
    """The members on one device, at one batch. A daemon: a model that hangs keeps no process."""

    def __init__(
        self,
        panel: Panel,
        device: str,
        batch: Pictures,
        names: Names,
        over: Callable[[str], None],
    ) -> None:
        super().__init__(name=f"members on {device}", daemon=True)
        self._panel, self._device, self._batch, self._names = panel, device, batch, names
        self._over = over
        # So that what it logs says for which tier.
        self._context = copy_context()
        self._ballots: dict[str, Ballot] = {}
        self._error: BaseException | None = None

    def run(self) -> None:
        """Let the members vote, and give the device back."""
        try:
            self._ballots = self._context.run(
                self._panel.vote_on, self._device, self._batch, self._names
            )
        except BaseException as error:
            self._error = error
        self._over(self._device)

    def result(self) -> dict[str, Ballot]:
        """Return the ballots, or raise what was raised."""
        if self._error is not None:
            raise self._error
        return self._ballots


def longest(runs: Sequence[Run]) -> float:
    """Return how long the slowest device was busy, its members one after the other."""
    spent: dict[str, float] = {}
    for run in runs:
        spent[run.device] = spent.get(run.device, 0.0) + run.seconds
    return max(spent.values(), default=0.0)
