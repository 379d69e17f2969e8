"""What tests of ``verify`` share: what is found, and a few ways to spoil a run."""

from roadstream.schemas.records.answer import Answer
from roadstream.schemas.records.dead_letters import DeadLetter, DeadLetterReason
from roadstream.schemas.topics import ANSWERS
from roadstream.sinks.verification.findings import Finding, Kind, Report, Side
from tests.kits.sound_run import SoundRun


def only(report: Report, kind: Kind, what: str) -> Finding:
    """Return the one finding, which is of this kind and about this."""
    assert not report.clean
    assert report.anomalies == {kind: 1}, report.findings
    assert report.findings[0].what == what
    return report.findings[0]


def unchecked(report: Report) -> str:
    """Return the one thing that could not be checked, in a run in which nothing else was found."""
    assert report.verdict == "unchecked", (report.findings, report.waiting)
    assert not report.clean
    assert not report.tolerable
    [said] = report.unchecked
    return said


def lost(report: Report, image_id: str, side: Side) -> str:
    """Return what is said of the one lost image, which this side lost."""
    finding = only(report, "lost", image_id)
    assert finding.side == side
    assert report.lost == {side: 1}
    return finding.detail


def letter(
    topic: str,
    offset: int,
    reason: DeadLetterReason = "unreadable_record",
    image: str | None = None,
) -> DeadLetter:
    return DeadLetter(
        topic=topic,
        partition=0,
        offset=offset,
        key=None,
        value=b"",
        error="broken",
        group="g",
        failed_at=1.0,
        reason=reason,
        image_id=image,
    )


def without(run: SoundRun, image_id: str) -> None:
    """Take an image's answer away."""
    run.records[ANSWERS] = [
        found
        for found in run.records[ANSWERS]
        if isinstance(found, Answer) and found.head.image_id != image_id
    ]
