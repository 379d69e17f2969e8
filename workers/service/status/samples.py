"""Reads the plain counters of a process's parts, at the time of a scrape, as samples."""

import time
from collections.abc import Iterator
from functools import cache
from importlib.metadata import version
from typing import TYPE_CHECKING

import msgspec

from roadstream.schemas.cascade.model import Cascade
from roadstream.schemas.topics import CONSENSUS_GROUP
from roadstream.sinks.consensus.worker import Consensus
from roadstream.streams.embedded.log import EmbeddedLog
from roadstream.streams.group.member import GroupMember
from roadstream.streams.kafka.stats import KafkaStats
from roadstream.streams.log import Log
from roadstream.streams.topics.namespace import NamespacedLog
from roadstream.workers.observe.metric_names import Sample
from roadstream.workers.service.outage import Persistent
from roadstream.workers.service.status.health import Health
from roadstream.workers.service.status.lag import GroupLag
from roadstream.workers.service.supervision.supervisor import Supervisor

if TYPE_CHECKING:
    from roadstream.workers.tier.members import RunningMember
    from roadstream.workers.tier.worker import TierWorker


def health_samples(health: Health) -> Iterator[Sample]:
    """Yield what /healthz and /readyz say."""
    now = time.monotonic()
    yield Sample("roadstream_alive", not health.dead(now))
    yield Sample("roadstream_ready", not health.unready(now))


def build_samples(cascade: Cascade) -> Iterator[Sample]:
    """Yield which version of Roadstream runs which cascade."""
    yield Sample("roadstream_build_info", 1, (_version(), cascade.name, cascade.hash))


@cache
def _version() -> str:
    return version("roadstream")


def log_samples(log: Log) -> Iterator[Sample]:
    """Yield the counters of a log that has some: every field is a metric of its name."""
    log = log.inner if isinstance(log, NamespacedLog) else log
    stats = log.stats if isinstance(log, EmbeddedLog) else getattr(log, "stats", None)
    kind = "kafka" if isinstance(stats, KafkaStats) else "embedded"
    if isinstance(stats, msgspec.Struct):
        for name in stats.__struct_fields__:
            yield Sample(f"roadstream_{kind}_{name}_total", getattr(stats, name))


def group_member_samples(member: GroupMember, running: Persistent) -> Iterator[Sample]:
    """Yield the counters of a group member and of what keeps it running."""
    stats, of, now = member.stats, (member.group,), time.monotonic()
    yield Sample("roadstream_records_delivered_total", stats.delivered, of)
    yield Sample("roadstream_records_published_total", stats.published, of)
    yield Sample("roadstream_commits_total", stats.commits, of)
    yield Sample("roadstream_assignments_total", stats.assignments, of)
    yield Sample("roadstream_fenced_total", stats.fenced, of)
    yield Sample("roadstream_records_missed_total", stats.missed, of)
    yield Sample("roadstream_partitions", stats.partitions, of)
    yield Sample("roadstream_records_in_flight", member.in_flight, of)
    if stats.polled_at:
        yield Sample("roadstream_poll_age_seconds", now - stats.polled_at, of)
    yield Sample("roadstream_outages_total", running.failures, of)
    yield Sample("roadstream_down_seconds", running.down_for(now) or 0.0, of)


def worker_samples(worker: "TierWorker") -> Iterator[Sample]:
    """Yield the counters of a tier worker, its queue, its judge and its models."""
    stats, read, of = worker.stats, worker.judge.stats, (worker.tier,)
    yield Sample("roadstream_dead_letters_total", stats.dead_letters, (worker.member.group,))
    yield Sample("roadstream_images_judged_total", stats.judged, of)
    yield Sample("roadstream_images_escalated_total", stats.escalated, of)
    yield Sample("roadstream_images_expired_total", stats.expired + read.expired, of)
    yield Sample("roadstream_images_unvoted_total", read.unvoted, of)
    yield Sample("roadstream_images_fenced_total", stats.fenced, of)
    yield Sample("roadstream_pictures_unreadable_total", read.bad_pictures, of)
    yield Sample("roadstream_batches_total", stats.batches, of)
    yield Sample("roadstream_batches_abandoned_total", stats.abandoned, of)
    yield Sample("roadstream_batches_out_of_memory_total", stats.out_of_memory, of)
    yield Sample("roadstream_suspects_replayed_total", stats.replayed, of)
    yield Sample("roadstream_process_killers_total", stats.killers, of)
    yield Sample("roadstream_pauses_total", worker.breaker.opened, of)
    yield Sample("roadstream_decoding_seconds_total", read.decoding, of)
    yield Sample("roadstream_inferring_seconds_total", read.inferring, of)
    yield Sample("roadstream_paused", worker.breaker.state != "closed", of)
    yield Sample("roadstream_archive_held_back", stats.held_back, of)
    yield Sample("roadstream_batches_running", worker.running, of)
    yield Sample("roadstream_batch_seconds", stats.service, of)
    yield Sample("roadstream_batch_wait_seconds", stats.waiting, of)
    yield from _queue_samples(worker)
    for member in worker.judge.members:
        yield from _model_samples(worker.tier, member)


def _queue_samples(worker: "TierWorker") -> Iterator[Sample]:
    queue, of = worker.queue, (worker.tier,)
    yield Sample("roadstream_queue_images", len(queue), of)
    yield Sample("roadstream_queue_bytes", queue.size, of)
    yield Sample("roadstream_batch_cap_images", queue.cap.now, of)
    yield Sample("roadstream_service_alpha_seconds", queue.latency.alpha, of)
    yield Sample("roadstream_service_beta_seconds", queue.latency.beta, of)


def _model_samples(tier: str, running: "RunningMember") -> Iterator[Sample]:
    stats, of = running.stats, (tier, running.member.name)
    yield Sample("roadstream_member_pictures_total", stats.pictures, of)
    yield Sample("roadstream_member_batches_total", stats.batches, of)
    yield Sample("roadstream_member_runs_total", stats.runs, of)
    yield Sample("roadstream_member_failures_total", stats.failures, of)
    yield Sample("roadstream_member_out_of_memory_total", stats.out_of_memory, of)
    yield Sample("roadstream_member_too_large_total", stats.too_large, of)
    yield Sample("roadstream_member_abstained_total", stats.abstained, of)
    yield Sample("roadstream_member_away_total", stats.away, of)
    yield Sample("roadstream_member_late_total", stats.late, of)
    yield Sample("roadstream_member_skipped_total", stats.skipped, of)
    yield Sample("roadstream_member_seconds_total", stats.seconds, of)
    yield Sample("roadstream_member_breaker_opened_total", running.breaker.opened, of)
    yield Sample("roadstream_member_out_of_service", running.breaker.state != "closed", of)


def consensus_samples(consensus: Consensus) -> Iterator[Sample]:
    """Yield the counters of the consensus sink."""
    stats = consensus.stats
    yield Sample("roadstream_dead_letters_total", stats.dead_letters, (CONSENSUS_GROUP,))
    for (status, label), count in stats.answers.given.items():
        yield Sample("roadstream_answers_total", count, (status, label or ""))
    yield Sample("roadstream_votes_late_total", stats.join.late_votes)
    yield Sample("roadstream_votes_carried_total", stats.join.carried)
    yield Sample("roadstream_duplicates_refused_total", stats.join.refused_duplicates)
    yield Sample("roadstream_foreign_packs_total", stats.foreign_packs)
    yield Sample("roadstream_consensus_waits_total", stats.held_back)
    yield Sample("roadstream_restores_total", stats.restores)
    yield Sample("roadstream_answers_restored_total", stats.join.restored)
    yield Sample("roadstream_open_images", stats.open_images)
    yield Sample("roadstream_oldest_open_seconds", stats.oldest_open_seconds)
    yield Sample("roadstream_restore_seconds", stats.restore_seconds)
    yield Sample("roadstream_joining_seconds", stats.answers.joining)
    for lane, latency in stats.answers.latency.items():
        yield Sample(f"roadstream_{lane}_latency_seconds", latency)
    yield Sample("roadstream_answer_probability", stats.answers.probability)


def supervisor_samples(supervisor: Supervisor, cascade: Cascade) -> Iterator[Sample]:
    """Yield what the children run, and the counters of each."""
    yield from build_samples(cascade)
    for child in supervisor.children.values():
        of = (child.name,)
        yield Sample("roadstream_child_up", child.pid is not None, of)
        yield Sample("roadstream_child_ready", child.ready_since is not None, of)
        yield Sample("roadstream_child_restarts_total", child.restarts, of)
        yield Sample("roadstream_child_silenced_total", child.silenced, of)


def lag_samples(group: str, lag: GroupLag) -> Iterator[Sample]:
    """Yield the lag of a group, of each of its topics, and what waits for its member here."""
    by_topic = lag.by_topic(lag.uncommitted)
    yield Sample("roadstream_group_lag_records", sum(by_topic.values()), (group,))
    for topic, count in by_topic.items():
        yield Sample("roadstream_topic_lag_records", count, (group, topic))
    for topic, count in lag.by_topic(lag.unpolled).items():
        yield Sample("roadstream_records_unpolled", count, (group, topic))
