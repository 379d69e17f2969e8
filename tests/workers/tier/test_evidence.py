"""What later tiers are told: evidence goes on with an image, and its tags decide where it goes."""

from collections.abc import Sequence

from roadstream.schemas.cascade.routes import Route
from roadstream.schemas.records.image import Inline
from roadstream.schemas.records.votes import NO_EVIDENCE, Box, Evidence, ImageVotes
from roadstream.stages.inference import Abstained, Engine, EngineResult, Pictures, Score
from roadstream.streams.log import TopicPartition
from roadstream.streams.memory.log import MemoryRecord
from roadstream.workers.tier.batch import outputs_of
from roadstream.workers.tier.judge import Judge
from roadstream.workers.tier.records import Item, RecordDecoder
from tests.kits.builders import cascade, member, tier
from tests.kits.fake_engine import picture
from tests.kits.tier_bench import judged
from tests.workers.tier.test_judge import items

RAIN = Route(to="exit", tags_all=["weather=rain"])
CASCADE = cascade(
    tier("one", member("weather"), member("finder", 2.0), member("shadow", 0.0), routes=[RAIN]),
    tier("two", member("late"), routes=[RAIN]),
    tier("three"),
)
CONE = Box(0.1, 0.2, 0.3, 0.4, 0.9, "cone")
BEYOND = Box(-1.0, 0.5, 0.5, 3.0, 0.5, "sign")


class Sayer(Engine):
    """Says the same of every picture, and keeps what it was told of them."""

    def __init__(self, says: EngineResult) -> None:
        self._says = says
        self.told: list[Evidence] = []

    def load(self) -> None:
        """Nothing to load."""

    def infer(self, batch: Pictures) -> Sequence[EngineResult]:
        self.told += [one.evidence for one in batch]
        return [self._says] * len(batch)

    def close(self) -> None:
        """Nothing to give back."""


def first_tier(weather: str, shadow: EngineResult) -> tuple[ImageVotes, list[Item], list[Evidence]]:
    """Judge a picture at tier one; return its votes, what tier two gets, and what one was told."""
    tells = Sayer(Abstained(tags={"weather": weather}))
    finds = Sayer(Score(2.0, [CONE, BEYOND], "ROAD WORK", {"text": "ROAD WORK"}))
    judge = Judge(CASCADE, "one", {"weather": tells, "finder": finds, "shadow": Sayer(shadow)})
    batch = judged(judge, items(Inline(picture(1))))
    escalated = [one for one in outputs_of(batch, "c", "hash", "one", 1.0) if "tier." in one.topic]
    records = [MemoryRecord(0, one.key, one.value, 0) for one in escalated]
    taken = RecordDecoder("two", first=False).decode({TopicPartition("t", 0): records}, 0.0)
    return batch.votes[0], taken.items, tells.told


def test_a_later_tier_is_told_what_earlier_ones_found() -> None:
    said, escalated, told = first_tier("fog", Score(-2.0, [CONE], "x", {"shadow": "yes"}))
    late = Sayer(Score(1.0, []))

    judged(Judge(CASCADE, "two", {"late": late}), escalated)

    assert told == [NO_EVIDENCE]
    assert said.next_tier == "two"
    assert late.told == [
        Evidence(
            [CONE, Box(0.0, 0.5, 0.5, 1.0, 0.5, "sign")],
            {"weather": "fog", "text": "ROAD WORK"},
            {"finder": "ROAD WORK"},
        )
    ]


def test_an_image_goes_where_its_tags_say_as_long_as_nobody_says_otherwise_later() -> None:
    rainy, none, _ = first_tier("rain", Score(1.0, []))
    assert (rainy.next_tier, rainy.reason, none) == (None, "tag weather=rain", [])

    _, escalated, _ = first_tier("fog", Score(1.0, [], "", {"weather": "rain"}))
    (item,) = escalated
    item.evidence = Evidence(tags={"weather": "rain"})
    for late, goes in (({}, None), ({"weather": "dry"}, "three")):
        judge = Judge(CASCADE, "two", {"late": Sayer(Score(1.0, [], "", late))})
        assert judged(judge, [item]).votes[0].next_tier == goes
