"""Every metric, declared once: its kind, its name, what it says, and where its value is read.

Counters are plain attributes, to which the work only adds; they are read at the time of a scrape.
``docs/operate/metrics.md`` says what to do about each.
"""

import time
from collections.abc import Callable, Iterator
from functools import cache
from importlib.metadata import version
from operator import attrgetter
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar, get_type_hints

import msgspec

from roadstream.schemas.cascade.model import Cascade
from roadstream.schemas.histogram import Histogram
from roadstream.schemas.topics import CONSENSUS_GROUP
from roadstream.sinks.consensus.worker import Consensus
from roadstream.streams.embedded.group import EmbeddedStats
from roadstream.streams.group.member import GroupMember
from roadstream.streams.kafka.stats import KafkaStats
from roadstream.streams.log import Log
from roadstream.streams.topics.namespace import NamespacedLog
from roadstream.workers.observe.metrics import Kind, Metric, Sample
from roadstream.workers.service.outage import Persistent
from roadstream.workers.service.status.health import Health
from roadstream.workers.service.status.lag import GroupLag
from roadstream.workers.service.supervision.supervisor import Child, Supervisor

if TYPE_CHECKING:
    from roadstream.workers.tier.members import RunningMember
    from roadstream.workers.tier.worker import TierWorker

S = TypeVar("S")
Value = float | Histogram | None


class _Read(NamedTuple, Generic[S]):
    """A metric without its labels, and how it is read; ``None`` is not served."""

    kind: Kind
    name: str
    read: Callable[[S], Value]
    help: str


class _Metrics(Generic[S]):
    """Metrics that are read off objects of one type and have the same labels.

    Args:
        labels: Names of their labels.
        reads: The metrics, in the order in which they are served.
    """

    def __init__(self, labels: tuple[str, ...], *reads: _Read[S]) -> None:
        self._reads = [
            (Metric(one.kind, f"roadstream_{one.name}", one.help, labels), one.read)
            for one in reads
        ]
        METRICS.update({metric.name: metric for metric, _ in self._reads})

    def samples(self, read_from: S, *labels: str) -> Iterator[Sample]:
        """Yield the metrics of an object, which has these values of the labels."""
        for metric, read in self._reads:
            if (value := read(read_from)) is not None:
                yield Sample(metric, value, labels)


METRICS: dict[str, Metric] = {}
"""Every metric by its name."""


def _counter(name: str, read: Callable[[S], Value], help_: str) -> _Read[S]:
    return _Read("counter", f"{name}_total", read, help_)


def _gauge(name: str, read: Callable[[S], Value], help_: str) -> _Read[S]:
    return _Read("gauge", name, read, help_)


def _histogram(name: str, read: Callable[[S], Value], help_: str) -> _Read[S]:
    return _Read("histogram", name, read, help_)


def _poll_age(member: GroupMember) -> float | None:
    polled_at = member.stats.polled_at
    return time.monotonic() - polled_at if polled_at else None


# fmt: off
_HEALTH = _Metrics[Health](
    (),
    _gauge("alive", lambda h: not h.dead(time.monotonic()), "1 while /healthz says 200."),
    _gauge("ready", lambda h: not h.unready(time.monotonic()), "1 while /readyz says 200."),
)
_BUILD = _Metrics[Cascade](
    ("version", "cascade", "cascade_hash"),
    _gauge("build_info", lambda _: 1, "1; its labels say what runs."),
)
_GROUP_MEMBER = _Metrics[GroupMember](
    ("group",),
    _counter("records_delivered", lambda m: m.stats.delivered, "Records polled."),
    _counter("records_published", lambda m: m.stats.published, "Records published."),
    _counter("commits", lambda m: m.stats.commits, "Commits that the log acknowledged."),
    _counter("assignments", lambda m: m.stats.assignments, "Times it was given partitions."),
    _counter("fenced", lambda m: m.stats.fenced,
        "Times its work was refused: its partitions had another owner by then."),
    _counter("records_missed", lambda m: m.stats.missed,
        "Records that retention took before the group had committed them."),
    _gauge("partitions", lambda m: m.stats.partitions, "Partitions owned, per topic."),
    _gauge("records_in_flight", lambda m: m.in_flight, "Records polled and not finished."),
    _gauge("poll_age_seconds", _poll_age, "Time since the last poll returned."),
)
_OUTAGES = _Metrics[Persistent](
    ("group",),
    _counter("outages", lambda p: p.failures, "Tries that the log or the disk has failed."),
    _gauge("down_seconds", lambda p: p.down_for(time.monotonic()) or 0.0,
        "Time for which the log or the disk has failed it; 0 if well."),
)
_DEAD_LETTERS = _Metrics[int](
    ("group",),
    _counter("dead_letters", int, "Dead letters written."),
)
_GROUP_LAG = _Metrics[int](
    ("group",),
    _gauge("group_lag_records", int,
        "Records the whole group has not committed; absent if not known."),
)
_TOPIC_LAG = _Metrics[int](
    ("group", "topic"),
    _gauge("topic_lag_records", int,
        "Records the whole group has not committed; absent if not known."),
)
_UNPOLLED = _Metrics[int](
    ("group", "topic"),
    _gauge("records_unpolled", int,
        "Records of its own partitions that it has not polled; likewise."),
)
_TIER: "_Metrics[TierWorker]" = _Metrics(
    ("tier",),
    _counter("images_judged", lambda w: w.stats.judged, "Images that left the tier."),
    _counter("images_escalated", lambda w: w.stats.escalated, "Images sent on to a later tier."),
    _counter("images_expired", lambda w: w.stats.expired + w.judge.stats.expired,
        "Live images whose deadline had passed before they were inferred."),
    _counter("images_unvoted", lambda w: w.judge.stats.unvoted,
        "Images for which no member of weight voted."),
    _counter("images_fenced", lambda w: w.stats.fenced,
        "Images judged for nothing: their partitions had another owner by then."),
    _counter("pictures_unreadable", lambda w: w.judge.stats.bad_pictures,
        "Images whose picture could not be read or decoded."),
    _counter("batches", lambda w: w.stats.batches, "Batches finished."),
    _counter("batches_abandoned", lambda w: w.stats.abandoned,
        "Batches still running when the drain budget was spent."),
    _counter("batches_out_of_memory", lambda w: w.stats.out_of_memory,
        "Batches that did not fit into memory as a whole."),
    _counter("suspects_replayed", lambda w: w.stats.replayed,
        "Images run alone because the process had died with them."),
    _counter("process_killers", lambda w: w.stats.killers,
        "Images answered as failed because they kill the process."),
    _counter("pauses", lambda w: w.breaker.opened,
        "Times the tier paused because too much became dead letters."),
    _counter("decoding_seconds", lambda w: w.judge.stats.decoding,
        "Time spent reading and decoding pictures."),
    _counter("inferring_seconds", lambda w: w.judge.stats.inferring, "Time spent in models."),
    _gauge("paused", lambda w: w.breaker.state != "closed",
        "1 while the tier takes less work, or none, because too much became dead letters."),
    _gauge("archive_held_back", lambda w: w.stats.held_back,
        "1 while archive images wait because a later tier is too far behind."),
    _gauge("batches_running", lambda w: w.running, "Batches on their way."),
    _histogram("batch_seconds", lambda w: w.stats.service,
        "Time of a batch, from decoding to votes."),
    _histogram("batch_wait_seconds", lambda w: w.stats.waiting,
        "Time that the image of a batch that waited longest had waited."),
    _gauge("queue_images", lambda w: w.waiting, "Images waiting for a batch."),
    _gauge("queue_bytes", lambda w: w.waiting_bytes, "Bytes of the images waiting."),
    _gauge("batch_cap_images", lambda w: w.queue.cap.now,
        "Largest batch tried; below the cascade's after memory ran out."),
    _gauge("service_alpha_seconds", lambda w: w.queue.latency.alpha,
        "Learnt time per image of a batch."),
    _gauge("service_beta_seconds", lambda w: w.queue.latency.beta, "Learnt time per batch."),
)
_LATER_TIER = _Metrics[bool](
    ("tier", "later"),
    _gauge("later_tier_down", int,
        "1 while nobody works for a later tier, of those that routes ask for."),
)
_LATER_TIER_TIME = _Metrics[float](
    ("tier", "later"),
    _gauge("later_tier_seconds", float,
        "Time that an image is taken to need at a later tier; absent if not known."),
)
_MEMBER: "_Metrics[RunningMember]" = _Metrics(
    ("tier", "member"),
    _counter("member_pictures", lambda m: m.stats.pictures, "Pictures shown to the model."),
    _counter("member_batches", lambda m: m.stats.batches, "Batches it was called for."),
    _counter("member_runs", lambda m: m.stats.runs,
        "Calls of its engine; above batches where pictures had to be told apart."),
    _counter("member_failures", lambda m: m.stats.failures,
        "Pictures on which it raised or gave no usable score."),
    _counter("member_out_of_memory", lambda m: m.stats.out_of_memory,
        "Batches that did not fit into memory."),
    _counter("member_too_large", lambda m: m.stats.too_large,
        "Pictures that did not fit even alone."),
    _counter("member_abstained", lambda m: m.stats.abstained,
        "Pictures on which it gave no vote, of its own accord."),
    _counter("member_away", lambda m: m.stats.away,
        "Pictures that it was not shown while its engine was away."),
    _counter("member_late", lambda m: m.stats.late,
        "Pictures whose deadline passed while its engine had them."),
    _counter("member_skipped", lambda m: m.stats.skipped,
        "Pictures not shown to it while it was out of service."),
    _counter("member_seconds", lambda m: m.stats.seconds, "Time in its engine."),
    _counter("member_breaker_opened", lambda m: m.breaker.opened,
        "Times it was taken out of service because it kept failing."),
    _gauge("member_out_of_service", lambda m: m.breaker.state != "closed",
        "1 while it is out of service."),
)
_ANSWERS = _Metrics[int](
    ("status", "label"),
    _counter("answers", int, "Answers given; failed ones have no label."),
)
_CONSENSUS = _Metrics[Consensus](
    (),
    _counter("votes_late", lambda c: c.stats.join.late_votes,
        "Votes for images answered already, and of tiers that had voted."),
    _counter("votes_carried", lambda c: c.stats.join.carried,
        "Votes of open images carried forward, which bounds what a restart rereads."),
    _counter("duplicates_refused", lambda c: c.stats.join.refused_duplicates,
        "Votes for a picture whose id belongs to another picture."),
    _counter("foreign_packs", lambda c: c.stats.foreign_packs,
        "Packs of votes of a version of the cascade that nobody told of."),
    _counter("consensus_waits", lambda c: c.stats.held_back,
        "Times the consensus waited for its offsets to be acknowledged."),
    _counter("restores", lambda c: c.stats.restores, "Times it took over partitions."),
    _counter("answers_restored", lambda c: c.stats.join.restored,
        "Answered images read back at these times."),
    _gauge("open_images", lambda c: c.stats.open_images, "Images that wait for votes of a tier."),
    _gauge("oldest_open_seconds", lambda c: c.stats.oldest_open_seconds,
        "Time for which the first of them has waited."),
    _gauge("restore_seconds", lambda c: c.stats.restore_seconds,
        "Time that the last restore took."),
    _histogram("joining_seconds", lambda c: c.stats.answers.joining,
        "From an image's first votes to its answer."),
    _histogram("live_latency_seconds", lambda c: c.stats.answers.latency["live"],
        "From submission to answer, of live images."),
    _histogram("archive_latency_seconds", lambda c: c.stats.answers.latency["archive"],
        "From submission to answer, of archive images."),
    _histogram("answer_probability", lambda c: c.stats.answers.probability,
        "Probability of roadwork of the answers that have one."),
)
_CHILD = _Metrics[Child](
    ("child",),
    _gauge("child_up", lambda c: c.pid is not None, "1 while a process of the child runs."),
    _gauge("child_ready", lambda c: c.ready_since is not None,
        "1 while it says that it does its work."),
    _counter("child_restarts", lambda c: c.restarts, "Times the child was started again."),
    _counter("child_silenced", lambda c: c.silenced,
        "Times it was killed because it was silent for too long."),
)
# fmt: on


def _of_log(kind: str, stats: type[KafkaStats | EmbeddedStats]) -> "_Metrics[msgspec.Struct]":
    """Return the counters of a log: every field is one of its name, which says what it counts."""
    hints = get_type_hints(stats, include_extras=True)
    return _Metrics(
        (),
        *(
            _counter(f"{kind}_{name}", attrgetter(name), *hints[name].__metadata__)
            for name in stats.__struct_fields__
        ),
    )


_KAFKA, _EMBEDDED = _of_log("kafka", KafkaStats), _of_log("embedded", EmbeddedStats)


@cache
def _version() -> str:
    return version("roadstream")


def build_samples(cascade: Cascade) -> Iterator[Sample]:
    """Yield which version of Roadstream runs which cascade."""
    yield from _BUILD.samples(cascade, _version(), cascade.name, cascade.hash)


def health_samples(health: Health) -> Iterator[Sample]:
    """Yield what /healthz and /readyz say."""
    yield from _HEALTH.samples(health)


def log_samples(log: Log) -> Iterator[Sample]:
    """Yield the counters of a log that has some."""
    stats = getattr(log.inner if isinstance(log, NamespacedLog) else log, "stats", None)
    if isinstance(stats, KafkaStats):
        yield from _KAFKA.samples(stats)
    elif isinstance(stats, EmbeddedStats):
        yield from _EMBEDDED.samples(stats)


def group_member_samples(member: GroupMember, running: Persistent) -> Iterator[Sample]:
    """Yield the counters of a group member and of what keeps it running."""
    yield from _GROUP_MEMBER.samples(member, member.group)
    yield from _OUTAGES.samples(running, member.group)


def worker_samples(worker: "TierWorker") -> Iterator[Sample]:
    """Yield the counters of a tier worker, its queue, its judge and its models."""
    yield from _DEAD_LETTERS.samples(worker.stats.dead_letters, worker.member.group)
    yield from _TIER.samples(worker, worker.tier)
    for later, is_down in worker.downstream.presence.watched.items():
        yield from _LATER_TIER.samples(is_down, worker.tier, later)
    for later, seconds in worker.needed.items():
        yield from _LATER_TIER_TIME.samples(seconds, worker.tier, later)
    for member in worker.judge.members:
        yield from _MEMBER.samples(member, worker.tier, member.member.name)


def consensus_samples(consensus: Consensus) -> Iterator[Sample]:
    """Yield the counters of the consensus sink."""
    stats = consensus.stats
    yield from _DEAD_LETTERS.samples(stats.dead_letters, CONSENSUS_GROUP)
    for (status, label), count in stats.answers.given.items():
        yield from _ANSWERS.samples(count, status, label or "")
    yield from _CONSENSUS.samples(consensus)


def supervisor_samples(supervisor: Supervisor, cascade: Cascade) -> Iterator[Sample]:
    """Yield what the children run, and the counters of each."""
    yield from build_samples(cascade)
    for child in supervisor.children.values():
        yield from _CHILD.samples(child, child.name)


def lag_samples(group: str, lag: GroupLag) -> Iterator[Sample]:
    """Yield the lag of a group, of each of its topics, and what waits for its member here."""
    by_topic = lag.by_topic(lag.uncommitted)
    yield from _GROUP_LAG.samples(sum(by_topic.values()), group)
    for topic, count in by_topic.items():
        yield from _TOPIC_LAG.samples(count, group, topic)
    for topic, count in lag.by_topic(lag.unpolled).items():
        yield from _UNPOLLED.samples(count, group, topic)
