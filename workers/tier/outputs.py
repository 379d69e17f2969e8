"""What a tier publishes of a judged batch: votes packs, escalations, dead letters. Pure."""

from collections.abc import Sequence

from roadstream.schemas import codec
from roadstream.schemas.cascade.model import Cascade
from roadstream.schemas.records import headers
from roadstream.schemas.records.votes import PriorVote, VotesPack
from roadstream.schemas.topics import DEAD_LETTERS, VOTES, tier_group
from roadstream.schemas.topics import tier as tier_topic
from roadstream.streams.group.dead_letter import Cause, dead_letter
from roadstream.streams.log import Output
from roadstream.workers.tier.judge import Judgement
from roadstream.workers.tier.records import EscalationView, Item


class Packer:
    """Makes the outputs of one tier.

    Args:
        cascade: Named in every pack.
        tier: Name of the tier.
    """

    def __init__(self, cascade: Cascade, tier: str) -> None:
        self._cascade, self._tier = cascade, tier

    def outputs(self, items: Sequence[Item], judgement: Judgement, now: float) -> list[Output]:
        """Return one votes pack per partition, an escalation per image that goes on, and a dead
        letter per image that a member failed on.
        """
        outputs: list[Output] = []
        by_partition: dict[int, list[int]] = {}
        for i, item in enumerate(items):
            by_partition.setdefault(item.tp.partition, []).append(i)
        for partition, rows in by_partition.items():
            votes = [judgement.votes[i] for i in rows]
            pack = VotesPack(
                tier=self._tier,
                cascade=self._cascade.name,
                cascade_hash=self._cascade.hash,
                sent_at=now,
                runs=judgement.runs,
                images=votes,
            )
            outputs.append(Output(VOTES, None, codec.encode(pack), partition, headers.VOTES))
            for i, said in zip(rows, votes, strict=True):
                if said.next_tier is not None:
                    outputs.append(self._escalation(items[i], said.next_tier, judgement, i))
        for failure in judgement.failures:
            cause = Cause(
                "model_failed", None, self._tier, failure.member, max(1, failure.attempts)
            )
            outputs.append(self.letter(items[failure.row], failure.error, cause, now))
        return outputs

    def letter(self, item: Item, error: str, cause: Cause, now: float) -> Output:
        """Return the dead letter of an image; the cause need not name image and tier."""
        cause = Cause(cause.reason, item.head.image_id, self._tier, cause.member, cause.attempts)
        letter = dead_letter(item.tp, item, error, tier_group(self._tier), now, cause)
        return Output(DEAD_LETTERS, item.key, letter, item.tp.partition, headers.DEAD_LETTER)

    def _escalation(self, item: Item, target: str, judgement: Judgement, row: int) -> Output:
        said = judgement.votes[row]
        cast = [
            PriorVote(run.member, run.weight, p)
            for run, p in zip(judgement.runs, said.probability, strict=True)
            if p is not None and run.weight > 0
        ]
        escalation = EscalationView(item.head, item.payload, item.prior + cast, said.reason)
        topic = tier_topic(target, item.head.lane)
        value = codec.encode(escalation)
        return Output(topic, item.head.key, value, item.tp.partition, headers.ESCALATION)
