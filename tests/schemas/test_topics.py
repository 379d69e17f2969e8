"""Topic names, and which topics a cascade needs."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from roadstream.schemas import topics


def test_the_first_tier_reads_images_and_later_ones_escalations_live_first() -> None:
    assert topics.tier_inputs("glance", first=True) == {
        "images.live": "live",
        "images.archive": "archive",
    }
    assert list(topics.tier_inputs("look", first=False).items()) == [
        ("tier.look.live", "live"),
        ("tier.look.archive", "archive"),
    ]


def test_a_cascade_needs_a_topic_per_hop_and_lane() -> None:
    assert topics.all_topics(["glance", "look", "closer"]) == [
        "images.live",
        "images.archive",
        "tier.look.live",
        "tier.look.archive",
        "tier.closer.live",
        "tier.closer.archive",
        "votes",
        "votes.carried",
        "answers",
        "dead-letters",
    ]


def test_every_tier_has_its_own_group() -> None:
    groups = [topics.tier_group(name) for name in ("glance", "look")]
    assert groups == ["roadstream.tier.glance", "roadstream.tier.look"]
    assert topics.CONSENSUS_GROUP not in groups


@given(st.text(), st.integers(1, 64))
def test_an_image_is_spread_to_one_partition_every_time(image_id: str, partitions: int) -> None:
    chosen = topics.spread(image_id, partitions)
    assert 0 <= chosen < partitions
    assert chosen == topics.spread(image_id, partitions)


def test_images_spread_evenly() -> None:
    counts = Counter(topics.spread(f"image-{i}", 8) for i in range(8_000))
    assert all(800 < count < 1_200 for count in counts.values())
