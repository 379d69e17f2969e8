"""The row of an answer: the columns that every output format has, with the same names.

The first thirteen are promised to users; those after them may grow. Parquet holds them typed,
JSONL as JSON values, CSV as text with JSON in the cells of lists and structs, and an image's tags
as ``name=value;name=value``.
"""

import math
from collections.abc import Collection, Mapping
from typing import NotRequired, TypedDict

import msgspec

from roadstream.schemas.errors import UsageError
from roadstream.schemas.records.answer import Answer, Latency, TierLatency, Vote
from roadstream.schemas.records.image import Head
from roadstream.schemas.records.votes import Box


class BoxRow(TypedDict):
    """A box in [0, 1] of the upright picture's width and height, confidence in [0, 1]."""

    x1: float
    y1: float
    x2: float
    y2: float
    confidence: float
    label: str


class VoteRow(TypedDict):
    """A member's vote; ``latency`` in seconds, ``probability`` in [0, 1], ``raw`` as it came.

    Older files have no ``tags``, and still older ones no ``text``.
    """

    tier: str
    member: str
    model_version: str
    raw: float | None
    probability: float | None
    weight: float
    calibrated: bool
    latency: float
    batch_size: int
    boxes: list[BoxRow]
    text: NotRequired[str]
    tags: NotRequired[dict[str, str]]


class FusedBoxRow(BoxRow):
    """A box that the detectors of a tier agreed on."""

    tier: str


class TierLatencyRow(TypedDict):
    """Seconds spent at one tier."""

    tier: str
    queued: float
    decoding: float
    inferring: float


class LatencyRow(TypedDict):
    """Seconds from submission to answer, and where they went."""

    total: float
    joining: float
    tiers: list[TierLatencyRow]


class AnswerRow(TypedDict):
    """One answer as every format shows it; the meaning of each field is in ``Answer``."""

    image_id: str
    uri: str
    session_id: str | None
    frame_index: int | None
    status: str
    label: str | None
    probability: float | None
    confidence: float | None
    exit_tier: str | None
    flags: list[str]
    error: str | None
    latency: LatencyRow
    votes: list[VoteRow]
    threshold: float
    disagreement: float | None
    missing: list[str]
    shadow_votes: list[VoteRow]
    captured_at: float | None
    latitude: float | None
    longitude: float | None
    sequence: int | None
    submitted_at: float
    answered_at: float
    cascade: str
    cascade_hash: str
    boxes: list[FusedBoxRow]
    tags: dict[str, str]
    losing_members: list[str]
    missing_tiers: list[str]
    way: str | None
    effects: list[str]


COLUMNS: tuple[str, ...] = tuple(AnswerRow.__annotations__)
PROMISED = COLUMNS[: COLUMNS.index("votes") + 1]
"""Columns that a file of answers must have; an old file may lack the others."""


def check_columns(where: str, present: Collection[str]) -> None:
    """Raise ``UsageError`` if promised columns are not among those that a file has."""
    if absent := [name for name in PROMISED if name not in present]:
        raise UsageError(
            f"{where}: expected a file of answers, but it has no column {', '.join(absent)}"
        )


def defaults() -> AnswerRow:
    """Return a row of defaults, with fresh lists, for columns that an older file lacks."""
    return _decode(_DEFAULTS)


def row(answer: Answer) -> AnswerRow:
    r"""Flatten an answer to its row.

    Numbers that are not finite become null, empty optional texts become null, and text that is
    not valid Unicode (lone surrogates of an undecodable file name) is written with ``\udcxx``
    escapes, so that all formats hold the same.
    """
    head = answer.head
    return {
        "image_id": _text(head.image_id),
        "uri": _text(head.uri),
        "session_id": _text(head.session_id) if head.session_id else None,
        "frame_index": head.frame_index,
        "status": answer.status,
        "label": answer.label,
        "probability": _finite(answer.probability),
        "confidence": _finite(answer.confidence),
        "exit_tier": answer.exit_tier or None,
        "flags": list(answer.flags),
        "error": _text(answer.error) if answer.error else None,
        "latency": _latency(answer.latency),
        "votes": [_vote(vote) for vote in answer.votes],
        "threshold": float(answer.threshold),
        "disagreement": _finite(answer.disagreement),
        "missing": list(answer.missing),
        "shadow_votes": [_vote(vote) for vote in answer.shadow_votes],
        "captured_at": _finite(head.captured_at),
        "latitude": _finite(head.latitude),
        "longitude": _finite(head.longitude),
        "sequence": head.sequence,
        "submitted_at": float(head.submitted_at),
        "answered_at": float(answer.answered_at),
        "cascade": answer.cascade,
        "cascade_hash": answer.cascade_hash,
        "boxes": [
            {**_box(box), "tier": tier.tier} for tier in answer.tiers for box in tier.fused or ()
        ],
        "tags": _tags(answer.tags),
        "losing_members": answer.losing_members,
        "missing_tiers": list(answer.missing_tiers),
        "way": _text(answer.way) or None,
        "effects": [_text(effect) for effect in answer.effects],
    }


def _text(text: str) -> str:
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def _finite(number: float | None) -> float | None:
    return float(number) if number is not None and math.isfinite(number) else None


def _latency(latency: Latency) -> LatencyRow:
    return {
        "total": float(latency.total),
        "joining": float(latency.joining),
        "tiers": [_tier(tier) for tier in latency.tiers],
    }


def _tier(tier: TierLatency) -> TierLatencyRow:
    return {
        "tier": tier.tier,
        "queued": float(tier.queued),
        "decoding": float(tier.decoding),
        "inferring": float(tier.inferring),
    }


def _vote(vote: Vote) -> VoteRow:
    return {
        "tier": vote.tier,
        "member": vote.member,
        "model_version": vote.model_version,
        "raw": _finite(vote.raw),
        "probability": _finite(vote.probability),
        "weight": float(vote.weight),
        "calibrated": vote.calibrated,
        "latency": float(vote.latency),
        "batch_size": vote.batch_size,
        "boxes": [_box(box) for box in vote.boxes],
        "text": _text(vote.text),
        "tags": _tags(vote.tags),
    }


def _tags(tags: Mapping[str, str]) -> dict[str, str]:
    """Return tags by name, in the order of their names, so that equal ones look the same."""
    return {name: _text(tags[name]) for name in sorted(tags)} if tags else {}


def _box(box: Box) -> BoxRow:
    return {
        "x1": float(box.x1),
        "y1": float(box.y1),
        "x2": float(box.x2),
        "y2": float(box.y2),
        "confidence": float(box.confidence),
        "label": _text(box.label),
    }


_DEFAULTS = msgspec.msgpack.encode(row(Answer(Head(image_id=""), "failed")))
_decode = msgspec.msgpack.Decoder(AnswerRow).decode
