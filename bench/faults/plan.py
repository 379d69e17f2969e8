"""Which faults there are, and a campaign's plan of them: drawn from its seed beforehand."""

import random
from collections.abc import Collection, Sequence
from typing import Literal

import msgspec

from roadstream.bench.faults.chaos.controls import POINTS
from roadstream.bench.faults.chaos.engine import POISON
from roadstream.bench.faults.chaos.variants import SOUND, UNSOUND

LogKind = Literal["embedded", "kafka"]
# Share of the faults after which the next may come before all has recovered.
OVERLAPPING = 0.7
EVERY_LOG: tuple[LogKind, ...] = ("embedded", "kafka")


class Kind(msgspec.Struct, frozen=True, kw_only=True):
    """A kind of fault.

    Attributes:
        name: As ``--only`` takes it.
        what: In words.
        weight: How often it is drawn, beside the others.
        seconds: What it takes of a campaign, about.
        logs: On which logs it can happen.
        alone: Nothing else may happen with it, as it measures something, or stops everything.
        limit: Most times in one campaign; 0 for no limit.
        points: What else is drawn: where to die, which poison, what is done.
        span: Bounds, in seconds, of the duration that is drawn.
        last: It comes once, after the verdict over all others, and is not drawn.
    """

    name: str
    what: str
    weight: int = 1
    seconds: float = 1.5
    logs: tuple[LogKind, ...] = EVERY_LOG
    alone: bool = False
    limit: int = 0
    points: tuple[str, ...] = ("",)
    span: tuple[float, float] = (0.0, 0.0)
    last: bool = False


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """One fault of a plan.

    Attributes:
        number: Counted from 0.
        kind: Its kind.
        target: Which process, counted among those that could be meant.
        point: See ``Kind.points``.
        delay: Seconds to wait before it.
        seconds: How long it lasts, where that is asked.
        overlap: Whether the next may come before everything has recovered from this.
    """

    number: int
    kind: str
    target: int
    point: str
    delay: float
    seconds: float
    overlap: bool


_WORKER_POINTS = tuple(point for point in POINTS if point != "in-give-up")
_SINK_POINTS = ("before-publish", "in-publish", "after-publish", "in-take-over")
_VERSIONS = (*SOUND, *UNSOUND, "share", "back")
_POISON = tuple(sorted(POISON.keys() - {"kills-process"}))
_ONE: tuple[LogKind, ...] = ("embedded",)
_TWO: tuple[LogKind, ...] = ("kafka",)

# fmt: off
KINDS = {kind.name: kind for kind in (
    Kind(name="kill-worker", what="SIGKILL of a worker at any moment", weight=8),
    Kind(name="kill-worker-at", what="SIGKILL of a worker before, in or after the model, before, "
         "in or after publishing, or joining", weight=16, points=_WORKER_POINTS),
    Kind(name="kill-consensus", what="SIGKILL of a consensus process at any moment", weight=4),
    Kind(name="kill-consensus-at", what="SIGKILL of a consensus process mid-join: before, in or "
         "after publishing, or restoring", weight=8, points=_SINK_POINTS),
    Kind(name="kill-several", what="SIGKILL of two or more processes at once", weight=3, seconds=2),
    Kind(name="lose-worker", what="SIGKILL of a worker that does not come back until others have "
         "its partitions", weight=1, seconds=5, span=(8, 8)),
    Kind(name="kill-producer", what="SIGKILL of `roadstream produce` mid-archive, then resumed",
         weight=2, seconds=4, points=("", "after-publish")),
    Kind(name="kill-supervisor", what="SIGKILL of `roadstream up`; its children end by themselves",
         weight=1, seconds=8, limit=5),
    Kind(name="zombie", what="SIGSTOP past the session timeout, then SIGCONT", weight=2, seconds=6,
         span=(1.5, 3)),
    Kind(name="terminate", what="SIGTERM drains within its budget with status 0", weight=3,
         seconds=1.5),
    Kind(name="storm", what="a member joins or leaves every second", weight=1, seconds=60,
         alone=True, limit=1, span=(60, 60)),
    Kind(name="poison", what="pictures on which a model raises, gives NaN, infinity, a wrong count "
         "or shape, or is out of memory", weight=10, seconds=0.6, points=_POISON),
    Kind(name="odd-files", what="files that are no pictures, or damaged ones", weight=3,
         seconds=0.6),
    Kind(name="killer-picture", what="a picture that kills the process that judges it", weight=1,
         seconds=8, limit=6),
    Kind(name="memory", what="batches above a size do not fit into memory for a while", weight=2,
         seconds=2, span=(0.5, 2), points=("2", "4", "8")),
    Kind(name="repeated-votes", what="votes packs published once more, in another order", weight=3,
         seconds=0.6, span=(0, 2)),
    Kind(name="held-votes", what="a worker's votes come after those of the next tier", weight=2,
         seconds=1.5, span=(0.3, 1.5)),
    Kind(name="same-id-same-bytes", what="an image sent twice: one answer", weight=2, seconds=0.6,
         span=(0, 2)),
    Kind(name="same-id-other-bytes", what="two pictures under one id: the second is refused",
         weight=2, seconds=0.6, span=(0.5, 2)),
    Kind(name="roll", what="another version of the cascade is rolled: other threshold, weights, "
         "routes or members, one that cannot be loaded, a share, or back", weight=6,
         seconds=1, points=_VERSIONS),
    Kind(name="roll-storm", what="20,000 images under way, a version every 5 s for a minute, "
         "workers and consensus killed meanwhile", weight=1, seconds=240, alone=True, limit=1,
         span=(60, 60)),
    Kind(name="slow-model", what="models that sleep; live deadlines pass", weight=1, seconds=12,
         alone=True, limit=2, span=(8, 8)),
    Kind(name="slow-sink", what="a consensus process whose publishing blocks", weight=1,
         seconds=10, alone=True, limit=2, span=(5, 8)),
    Kind(name="slow-consumer", what="a tier five times too slow for its load of large pictures",
         weight=1, seconds=25, alone=True, limit=1, span=(15, 15)),
    Kind(name="clock-step", what="the wall clock steps forth or back, and returns", weight=2,
         seconds=2.5, points=("5", "-5", "60", "-60", "3600", "-3600"), span=(0.5, 2)),
    Kind(name="disk-full", what="no room on the log's disk", weight=1, seconds=5, logs=_ONE,
         alone=True, limit=4, span=(1, 4)),
    Kind(name="locked", what="another process holds the log's file locked", weight=1, seconds=6,
         logs=_ONE, alone=True, limit=4, span=(1, 5)),
    Kind(name="locked-long", what="likewise, longer than anybody waits", weight=1, seconds=50,
         logs=_ONE, alone=True, limit=1, span=(40, 40)),
    Kind(name="kill-broker", what="SIGKILL of a broker, started again", weight=3, seconds=8,
         logs=_TWO, alone=True, span=(0, 5)),
    Kind(name="kill-controller", what="SIGKILL of the broker that is the controller", weight=2,
         seconds=8, logs=_TWO, alone=True, span=(0, 5)),
    Kind(name="kill-brokers", what="SIGKILL of all brokers at once, gone for a while", weight=1,
         seconds=50, logs=_TWO, alone=True, limit=1, span=(30, 30)),
    Kind(name="freeze-broker", what="SIGSTOP of a broker for longer than its peers wait, then "
         "SIGCONT", weight=2, seconds=15, logs=_TWO, alone=True, span=(5, 10)),
    Kind(name="freeze-brokers", what="SIGSTOP of all brokers for longer than a request waits",
         weight=1, seconds=35, logs=_TWO, alone=True, limit=1, span=(20, 20)),
    Kind(name="cut-connection", what="connections to one broker or to all are cut and refused for "
         "a while, or nothing comes through them", weight=2, seconds=15, logs=_TWO, alone=True,
         points=("cut one", "cut all", "silent one", "silent all"), span=(2, 8)),
    Kind(name="retention", what="records are gone that nobody had worked on", last=True),
    Kind(name="dead-log", what="SIGTERM to all while the log does not answer", last=True),
)}
# fmt: on


def chosen(log: LogKind, only: Collection[str] = ()) -> list[Kind]:
    """Return the kinds of a campaign.

    Raises:
        ValueError: ``only`` names one that there is not.
    """
    if unknown := sorted(set(only) - KINDS.keys()):
        raise ValueError(f"expected kinds of fault as --list shows them, got {', '.join(unknown)}")
    return [kind for kind in KINDS.values() if log in kind.logs and (not only or kind.name in only)]


def draw_plan(seed: int, kinds: Sequence[Kind], seconds: float) -> list[Fault]:
    """Return the faults of a campaign that lasts about so long; the same for the same arguments.

    Every kind comes once, in an order that is drawn, before any comes twice: what takes long last.
    """
    rng = random.Random(f"faults {seed}")
    kinds = [kind for kind in kinds if not kind.last]
    first = sorted(kinds, key=lambda kind: (kind.seconds > 5, rng.random()))
    plan: list[Fault] = []
    left, count = seconds if kinds else 0.0, dict.fromkeys((kind.name for kind in kinds), 0)
    while left > 0:
        if first:
            kind = first.pop(0)
        else:
            free = [k for k in kinds if k.seconds <= left and not 0 < k.limit <= count[k.name]]
            if not free:
                break
            kind = rng.choices(free, [k.weight for k in free])[0]
        count[kind.name] += 1
        left -= kind.seconds
        plan.append(_draw(rng, len(plan), kind, count[kind.name]))
    return plan


def _draw(rng: random.Random, number: int, kind: Kind, time: int) -> Fault:
    # Each point comes once before any comes twice, in the order of the table.
    point = kind.points[time - 1] if time <= len(kind.points) else rng.choice(kind.points)
    return Fault(
        number=number,
        kind=kind.name,
        target=rng.randrange(1000),
        point=point,
        delay=round(rng.uniform(0.0, 0.4), 3),
        seconds=round(rng.uniform(*kind.span), 3),
        overlap=not kind.alone and rng.random() < OVERLAPPING,
    )
