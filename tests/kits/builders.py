"""Builders of cascades, heads, votes and packs, with defaults for what a test does not care for."""

from collections.abc import Mapping, Sequence
from typing import Any

from roadstream.schemas.cascade.model import Cascade, Member, Pool, Tier
from roadstream.schemas.cascade.routes import Route
from roadstream.schemas.records.answer import Answer, AnswerTier, Latency, TierLatency, Vote
from roadstream.schemas.records.image import Head
from roadstream.schemas.records.votes import NO_TAGS, ImageVotes, MemberRun, VotesPack
from roadstream.schemas.settings.base import TagsGiven
from roadstream.schemas.settings.local import NoSettings

CASCADE_HASH = "0123456789abcdef"


def member(name: str, weight: float = 1.0) -> Member:
    return Member(name=name, engine="noop", weight=weight, width=8, height=8, settings=NoSettings())


def by_settings(member: Member) -> TagsGiven | None:
    return member.settings.given_tags()


def tier(
    name: str,
    *members: Member,
    routes: Sequence[Route] = (),
    max_batch: int = 4,
) -> Tier:
    chosen = list(members) or [member(f"{name}-member")]
    return Tier(name=name, members=chosen, routes=list(routes), max_batch=max_batch)


def cascade(
    *tiers: Tier,
    threshold: float = 0.5,
    pool: Pool | None = None,
    version: str = CASCADE_HASH,
) -> Cascade:
    """Return a cascade of these tiers; of ``one``, ``two`` and ``three`` if none are given."""
    chosen = list(tiers) or [tier("one"), tier("two"), tier("three")]
    return Cascade(
        name="test", tiers=chosen, threshold=threshold, pool=pool or Pool(), hash=version
    )


def head(image_id: str, *, deadline_at: float | None = None, submitted_at: float = 0.0) -> Head:
    lane = "archive" if deadline_at is None else "live"
    return Head(
        image_id=image_id,
        uri=f"file:{image_id}",
        lane="live" if lane == "live" else "archive",
        deadline_at=deadline_at,
        submitted_at=submitted_at,
    )


def votes(
    image: Head | str,
    *probabilities: float | None,
    next_tier: str | None = None,
    error: str | None = None,
) -> ImageVotes:
    """Return an image's votes of one tier; the raw score is ten times the probability."""
    chosen = list(probabilities) or [0.9]
    return ImageVotes(
        head(image) if isinstance(image, str) else image,
        [None if p is None else 10 * p for p in chosen],
        chosen,
        next_tier,
        "because",
        queued=0.25,
        decoding=0.5,
        inferring=0.75,
        error=error,
    )


def pack(
    tier_name: str,
    *images: ImageVotes,
    weights: Sequence[float] | None = None,
    version: str = CASCADE_HASH,
) -> VotesPack:
    """Return a pack of a tier's votes; its members have these weights, 1 by default."""
    count = len(images[0].probability) if images else 1
    chosen = [1.0] * count if weights is None else list(weights)
    return VotesPack(
        tier=tier_name,
        cascade="test",
        cascade_hash=version,
        sent_at=1.0,
        runs=[
            MemberRun(f"{tier_name}-{i}", "1", weight, True, 0.125, len(images))
            for i, weight in enumerate(chosen)
        ],
        images=list(images),
    )


def answered(
    *,
    votes: Sequence[Vote] = (),
    shadow_votes: Sequence[Vote] = (),
    missing: Sequence[str] = (),
    latency: Latency | None = None,
    reasons: Mapping[str, str] = NO_TAGS,
    **fields: Any,
) -> Answer:
    """Return an answer with these votes: each tier's in one ``AnswerTier``, in order of mention.

    Routes by which it left tiers are given by tier, in ``reasons``.
    """
    spent = {tier.tier: tier for tier in latency.tiers} if latency else {}
    tiers: list[AnswerTier] = []
    for name in dict.fromkeys([*spent, *(vote.tier for vote in (*votes, *shadow_votes))]):
        cast = [vote for vote in (*votes, *shadow_votes) if vote.tier == name]
        absent = missing if not tiers else ()
        _, queued, decoding, inferring = spent.get(name, TierLatency(name, 0.0, 0.0, 0.0))
        tiers.append(
            AnswerTier(
                name,
                [_run(vote) for vote in cast]
                + [MemberRun(member, "1", 1.0, True, 0.0, 1) for member in absent],
                [*(vote.raw for vote in cast), *(None for _ in absent)],
                [*(vote.probability for vote in cast), *(None for _ in absent)],
                queued,
                decoding,
                inferring,
                [*(list(vote.boxes) for vote in cast), *([] for _ in absent)],
                [*(vote.text for vote in cast), *("" for _ in absent)],
                tags=[*(dict(vote.tags) for vote in cast), *({} for _ in absent)],
                reason=reasons.get(name, ""),
            )
        )
    took, joining = (latency.total, latency.joining) if latency else (0.0, 0.0)
    return Answer(**fields, tiers=tiers, took=took, joining=joining)


def _run(vote: Vote) -> MemberRun:
    return MemberRun(
        vote.member, vote.model_version, vote.weight, vote.calibrated, vote.latency, vote.batch_size
    )
