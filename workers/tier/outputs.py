"""What a tier publishes of a judged batch: votes packs, escalations, dead letters. Pure."""

from roadstream.schemas import codec
from roadstream.schemas.cascade.model import Cascade
from roadstream.schemas.records import headers
from roadstream.schemas.records.votes import ImageVotes, MemberRun, PriorVote, VotesPack
from roadstream.schemas.topics import DEAD_LETTERS, VOTES, tier_group
from roadstream.schemas.topics import tier as tier_topic
from roadstream.stages.voting.tier_votes import Failure
from roadstream.streams.group.dead_letter import Cause, dead_letter
from roadstream.streams.log import Output
from roadstream.workers.tier.batch import TierBatch
from roadstream.workers.tier.records import EscalationView, Item


def outputs_of(batch: TierBatch, cascade: Cascade, tier: str, now: float) -> list[Output]:
    """Return one votes pack per partition, an escalation per image that goes on, and a dead letter
    per image that failed.
    """
    outputs: list[Output] = []
    images = batch.images
    by_partition: dict[int, list[int]] = {}
    for i, item in enumerate(images):
        by_partition.setdefault(item.tp.partition, []).append(i)
    for partition, rows in by_partition.items():
        votes = [batch.votes[i] for i in rows]
        pack = VotesPack(
            tier=tier,
            cascade=cascade.name,
            cascade_hash=cascade.hash,
            sent_at=now,
            runs=batch.runs,
            images=votes,
        )
        outputs.append(Output(VOTES, None, codec.encode(pack), partition, headers.VOTES))
        for i, said in zip(rows, votes, strict=True):
            if said.next_tier is not None:
                outputs.append(_escalation(images[i], said, said.next_tier, batch.runs))
    outputs += [_letter(images[one.row], one, tier, now) for one in batch.failures]
    return outputs


def _letter(item: Item, failure: Failure, tier: str, now: float) -> Output:
    attempts = max(1, failure.attempts)
    cause = Cause(failure.reason, item.head.image_id, tier, failure.member, attempts)
    letter = dead_letter(item.tp, item, failure.error, tier_group(tier), now, cause)
    return Output(DEAD_LETTERS, item.key, letter, item.tp.partition, headers.DEAD_LETTER)


def _escalation(item: Item, said: ImageVotes, target: str, runs: list[MemberRun]) -> Output:
    cast = [
        PriorVote(run.member, run.weight, p)
        for run, p in zip(runs, said.probability, strict=True)
        if p is not None and run.weight > 0
    ]
    escalation = EscalationView(item.head, item.payload, item.prior + cast, said.reason)
    value = codec.encode(escalation)
    topic = tier_topic(target, item.head.lane)
    return Output(topic, item.head.key, value, item.tp.partition, headers.ESCALATION)
