"""Every metric by name: kind, labels, meaning. ``docs/operate/metrics.md`` says what to do."""

from typing import Literal, NamedTuple

from roadstream.schemas.histogram import Histogram

Kind = Literal["counter", "gauge", "histogram"]


class Metric(NamedTuple):
    """A metric: what it is and what its labels are."""

    kind: Kind
    meaning: str
    labels: tuple[str, ...] = ()


class Sample(NamedTuple):
    """A value of a metric, with the values of its labels in their order."""

    name: str
    value: float | Histogram
    labels: tuple[str | int, ...] = ()


def _metrics(kind: Kind, labels: tuple[str, ...], **meanings: str) -> dict[str, Metric]:
    ending = "_total" if kind == "counter" else ""
    return {
        f"roadstream_{name}{ending}": Metric(kind, meaning, labels)
        for name, meaning in meanings.items()
    }


METRICS: dict[str, Metric] = {
    **_metrics(
        "gauge",
        (),
        alive="1 while /healthz says 200.",
        ready="1 while /readyz says 200.",
    ),
    **_metrics(
        "gauge",
        ("version", "cascade", "cascade_hash"),
        build_info="1; its labels say what runs.",
    ),
    **_metrics(
        "counter",
        ("group",),
        records_delivered="Records polled.",
        records_published="Records published.",
        commits="Commits that the log acknowledged.",
        assignments="Times it was given partitions.",
        fenced="Times its work was refused: its partitions had another owner by then.",
        records_missed="Records that retention took before the group had committed them.",
        dead_letters="Dead letters written.",
        outages="Tries that the log or the disk has failed.",
    ),
    **_metrics(
        "gauge",
        ("group",),
        partitions="Partitions owned, per topic.",
        records_in_flight="Records polled and not finished.",
        poll_age_seconds="Time since the last poll returned.",
        group_lag_records="Records the whole group has not committed; absent if not known.",
        down_seconds="Time for which the log or the disk has failed it; 0 if well.",
    ),
    **_metrics(
        "gauge",
        ("group", "topic"),
        topic_lag_records="Records the whole group has not committed; absent if not known.",
        records_unpolled="Records of its own partitions that it has not polled; likewise.",
    ),
    **_metrics(
        "counter",
        ("tier",),
        images_judged="Images that left the tier.",
        images_escalated="Images sent on to a later tier.",
        images_expired="Live images whose deadline had passed before they were inferred.",
        images_unvoted="Images for which no member of weight voted.",
        images_fenced="Images judged for nothing: their partitions had another owner by then.",
        pictures_unreadable="Images whose picture could not be read or decoded.",
        batches="Batches finished.",
        batches_abandoned="Batches still running when the drain budget was spent.",
        batches_out_of_memory="Batches that did not fit into memory as a whole.",
        suspects_replayed="Images run alone because the process had died with them.",
        process_killers="Images answered as failed because they kill the process.",
        pauses="Times the tier paused because too much became dead letters.",
        decoding_seconds="Time spent reading and decoding pictures.",
        inferring_seconds="Time spent in models.",
    ),
    **_metrics(
        "gauge",
        ("tier",),
        paused="1 while the tier takes less work, or none, because too much became dead letters.",
        archive_held_back="1 while archive images wait because a later tier is too far behind.",
        queue_images="Images waiting for a batch.",
        queue_bytes="Bytes of the images waiting.",
        batches_running="Batches on their way.",
        batch_cap_images="Largest batch tried; below the cascade's after memory ran out.",
        service_alpha_seconds="Learnt time per image of a batch.",
        service_beta_seconds="Learnt time per batch.",
    ),
    **_metrics(
        "counter",
        ("tier", "member"),
        member_pictures="Pictures shown to the model.",
        member_batches="Batches it was called for.",
        member_runs="Calls of its engine; above batches where pictures had to be told apart.",
        member_failures="Pictures on which it raised or gave no usable score.",
        member_out_of_memory="Batches that did not fit into memory.",
        member_too_large="Pictures that did not fit even alone.",
        member_abstained="Pictures on which it gave no vote, of its own accord.",
        member_late="Pictures whose deadline passed while its engine had them.",
        member_away="Pictures that it was not shown while its engine was away.",
        member_skipped="Pictures not shown to it while it was out of service.",
        member_seconds="Time in its engine.",
        member_breaker_opened="Times it was taken out of service because it kept failing.",
    ),
    **_metrics("gauge", ("tier", "member"), member_out_of_service="1 while it is out of service."),
    **_metrics("counter", ("status", "label"), answers="Answers given; failed ones have no label."),
    **_metrics(
        "counter",
        (),
        votes_late="Votes for images answered already, and of tiers that had voted.",
        votes_carried="Votes of open images carried forward, which bounds what a restart rereads.",
        duplicates_refused="Votes for a picture whose id belongs to another picture.",
        foreign_packs="Votes of another cascade, or of another version of this one.",
        consensus_waits="Times the consensus waited for its offsets to be acknowledged.",
        restores="Times it took over partitions.",
        answers_restored="Answered images read back at these times.",
    ),
    **_metrics(
        "gauge",
        (),
        open_images="Images that wait for votes of a tier.",
        oldest_open_seconds="Time for which the first of them has waited.",
        restore_seconds="Time that the last restore took.",
    ),
    **_metrics(
        "histogram",
        (),
        joining_seconds="From an image's first votes to its answer.",
        live_latency_seconds="From submission to answer, of live images.",
        archive_latency_seconds="From submission to answer, of archive images.",
        answer_probability="Probability of roadwork of the answers that have one.",
    ),
    **_metrics(
        "histogram",
        ("tier",),
        batch_seconds="Time of a batch, from decoding to votes.",
        batch_wait_seconds="Time that the image of a batch that waited longest had waited.",
    ),
    **_metrics(
        "counter",
        (),
        kafka_unavailable="Errors because Kafka did not answer, or not in time.",
        kafka_producers_opened="Producers connected, rebuilt ones included.",
        kafka_producers_rebuilt="Producers given up because they failed.",
        kafka_consumers_opened="Group members connected, again after each failure.",
        kafka_admins_rebuilt="Clients for topics and offsets given up because they failed.",
        kafka_rebalances="Times a member was given partitions, or none.",
        kafka_drains_timed_out="Partitions given up with work on them unfinished.",
        kafka_commits="Commits that Kafka acknowledged.",
        kafka_commit_failures="Commits that failed and were tried again.",
        kafka_commits_dropped="Commits refused, or pending, as the group had moved on.",
        kafka_fenced="Publishes refused because the partitions may have another owner.",
        kafka_freezes="Times the process stood still for over half the session timeout.",
        kafka_records_missed="Records that retention took before they were committed.",
        kafka_offsets_beyond_end="Partitions shorter than what was read of them.",
        embedded_appended="Records appended.",
        embedded_lock_timeouts="Calls given up as another process held the file's lock too long.",
        embedded_write_errors="Calls that failed as the file could not be written.",
        embedded_evictions="Members that this process declared dead.",
        embedded_returns="Times a member here found itself declared dead, and came back.",
        embedded_fenced="Publishes refused because the partitions had another owner.",
        embedded_missed="Records trimmed before a group of this process had committed them.",
    ),
    **_metrics(
        "counter",
        ("child",),
        child_restarts="Times the child was started again.",
        child_silenced="Times it was killed because it was silent for too long.",
    ),
    **_metrics(
        "gauge",
        ("child",),
        child_up="1 while a process of the child runs.",
        child_ready="1 while it says that it does its work.",
    ),
}
