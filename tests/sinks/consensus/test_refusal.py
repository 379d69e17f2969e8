"""What the consensus refuses: packs whose lists do not go with their member runs."""

import msgspec
import pytest

from roadstream.schemas.errors import RecordError
from roadstream.sinks.consensus.refusal import check
from roadstream.streams.log import TopicPartition
from tests.kits.builders import pack, votes

SOURCE = TopicPartition("votes", 3), 17
TIERS = ["one", "two"]


@pytest.mark.parametrize(
    ("field", "entries"),
    [("raw", [0.5]), ("probability", [0.5] * 3), ("boxes", [[]]), ("texts", ["a", "b", "c"])],
)
def test_a_list_that_does_not_go_with_the_member_runs_is_named(
    field: str, entries: list[object]
) -> None:
    uneven = msgspec.structs.replace(votes("b", 0.9, 0.8), **{field: entries})
    with pytest.raises(RecordError) as caught:
        check(pack("one", votes("a", 0.9, 0.8), uneven), TIERS, SOURCE)
    assert str(caught.value) == (
        f"votes[3]@17: expected 2 votes for b, got {len(entries)} - at `$.images[1].{field}`"
    )


def test_votes_for_a_tier_that_nobody_runs_are_told_from_the_others() -> None:
    lost = votes("b", next_tier="four")
    assert check(pack("one", votes("a", next_tier="two"), lost), TIERS, SOURCE) == [lost]
