"""The peer of ``score``: the same pictures, decoder, models and exits, and nothing else.

One process per core takes chunks of files off a shared counter, decodes them, runs the models at
the cascade's batch sizes, and carries what no route lets go to the next tier, decoded anew at that
tier's size, as ``score`` does. No log, no batching across time, no votes, no answers: labels only.
"""

import multiprocessing
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import Barrier
from pathlib import Path

import msgspec

from roadstream.bench.harness import cpu_seconds
from roadstream.schemas.cascade.loading import load_cascade
from roadstream.schemas.cascade.model import Cascade
from roadstream.stages.decoding.decode import decode
from roadstream.stages.inference import Engine, Picture, Pictures, Score
from roadstream.stages.voting.route import Facts, Router
from roadstream.stages.voting.vote import calibrator, decision_confidence, disagreement, pooled
from roadstream.workers.service.loading import load_engines

_spawn = multiprocessing.get_context("spawn")


class BareTiming(msgspec.Struct, frozen=True):
    """One process's share: clock at its start and end, images, exits per tier, processor time."""

    began_at: float
    ended_at: float
    images: int
    exits: dict[str, int]
    cpu: float


class _Waiting(msgspec.Struct):
    path: str
    ps: list[float] = []
    ws: list[float] = []


class _Tier:
    """One tier of the bare loop: engines, exits, and images that wait for a full batch."""

    def __init__(self, cascade: Cascade, name: str, engines: dict[str, Engine]) -> None:
        members = cascade.tier(name).members
        self.name, self.max_batch = name, cascade.tier(name).max_batch
        self.waiting: list[_Waiting] = []
        self._members = [(m, engines[m.name], calibrator(m.calibration)) for m in members]
        self._size = (max(m.width for m in members), max(m.height for m in members))
        self._pool, self._router = pooled(cascade.pool), Router(cascade, name)

    def run(self, batch: list[_Waiting]) -> list[tuple[str | None, _Waiting]]:
        """Judge a batch; return where each image goes next, ``None`` for out."""
        width, height = self._size
        pictures = Pictures(
            [
                Picture(decode(Path(w.path).read_bytes(), min_width=width, min_height=height))
                for w in batch
            ]
        )
        for member, engine, calibrate in self._members:
            for waiting, score in zip(batch, engine.infer(pictures), strict=True):
                assert isinstance(score, Score)
                waiting.ps.append(calibrate(score.raw))
                waiting.ws.append(member.weight)
        return [(self._next(waiting), waiting) for waiting in batch]

    def _next(self, waiting: _Waiting) -> str | None:
        confidence = decision_confidence(self._pool(waiting.ps, waiting.ws))
        return self._router.decide(
            Facts(confidence, disagreement(waiting.ps, waiting.ws))
        ).next_tier


def _loop(
    cascade: Cascade, engines: dict[str, Engine], paths: Sequence[str], taken: "Synchronized[int]"
) -> dict[str, int]:
    tiers = {name: _Tier(cascade, name, engines) for name in cascade.tier_names}
    first = tiers[cascade.tier_names[0]]
    exits = dict.fromkeys(tiers, 0)

    def step(tier: _Tier, batch: list[_Waiting]) -> None:
        for target, waiting in tier.run(batch):
            if target is None:
                exits[tier.name] += 1
            else:
                tiers[target].waiting.append(waiting)

    while True:
        with taken.get_lock():
            start = taken.value
            taken.value += first.max_batch
        if start >= len(paths):
            break
        step(first, [_Waiting(path) for path in paths[start : start + first.max_batch]])
        for tier in tiers.values():
            while len(tier.waiting) >= tier.max_batch:
                batch, tier.waiting = tier.waiting[: tier.max_batch], tier.waiting[tier.max_batch :]
                step(tier, batch)
    for tier in tiers.values():
        while tier.waiting:
            batch, tier.waiting = tier.waiting[: tier.max_batch], tier.waiting[tier.max_batch :]
            step(tier, batch)
    return exits


def _process(
    cascade_name: str,
    paths: Sequence[str],
    barrier: Barrier,
    taken: "Synchronized[int]",
    parent: Connection,
) -> None:
    cascade = load_cascade(cascade_name)
    engines = load_engines(cascade, cascade.tier_names, 1)
    barrier.wait()
    began, cpu = time.perf_counter(), cpu_seconds()
    exits = _loop(cascade, engines, paths, taken)
    parent.send(
        BareTiming(began, time.perf_counter(), sum(exits.values()), exits, cpu_seconds() - cpu)
    )


def run_bare(cascade_name: str, paths: Sequence[str], processes: int) -> list[BareTiming]:
    """Run the loop over the pictures in fresh processes, whose models are warm before it begins."""
    barrier, taken = _spawn.Barrier(processes), _spawn.Value("q", 0)
    pipes = [_spawn.Pipe() for _ in range(processes)]
    workers = [
        _spawn.Process(target=_process, args=(cascade_name, paths, barrier, taken, theirs))
        for _, theirs in pipes
    ]
    for worker in workers:
        worker.start()
    for _, theirs in pipes:
        theirs.close()
    timings: list[BareTiming] = [ours.recv() for ours, _ in pipes]
    for worker in workers:
        worker.join()
    return timings
