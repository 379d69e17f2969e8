"""What may be committed to Kafka during one assignment: never less than was sent before."""

from hypothesis import given
from hypothesis import strategies as st

from roadstream.streams.kafka.committer import Tenure
from roadstream.streams.log import TopicPartition

TP, OTHER = TopicPartition("t", 0), TopicPartition("t", 1)


def tenure(**floors: int) -> Tenure:
    return Tenure((1, "member"), {TP: floors.get("at", 0)})


def test_only_what_is_above_where_the_group_stands_is_committed() -> None:
    one = tenure(at=5)

    one.put({TP: 5, OTHER: 0})

    assert one.pending == {OTHER: 0}


def test_an_earlier_offset_that_comes_while_a_later_one_is_under_way_is_ignored() -> None:
    one = tenure()
    one.put({TP: 29})
    sent = one.pending.copy()

    one.put({TP: 15})
    one.acknowledged(sent)

    assert one.pending == {}


def test_a_later_offset_that_comes_while_one_is_under_way_stays_to_be_committed() -> None:
    one = tenure()
    one.put({TP: 15, OTHER: 3})
    sent = one.pending.copy()

    one.put({TP: 29})
    one.acknowledged(sent)

    assert one.pending == {TP: 29}


def test_what_the_group_refused_is_forgotten_and_what_came_meanwhile_is_not() -> None:
    one = tenure()
    one.put({TP: 15, OTHER: 3})
    sent = one.pending.copy()

    one.put({TP: 29})
    one.forget(sent)
    one.put({OTHER: 2})

    assert one.pending == {TP: 29, OTHER: 2}


def test_a_partition_that_became_shorter_is_committed_from_there_even_with_one_under_way() -> None:
    one = tenure(at=50)
    one.put({TP: 70})
    sent = one.pending.copy()

    one.lower(TP, 0)
    one.acknowledged(sent)
    one.put({TP: 4})

    assert one.pending == {TP: 4}


def test_a_partition_that_became_empty_is_committed_from_its_first_record_again() -> None:
    one = tenure()
    one.put({TP: 1})
    sent = one.pending.copy()

    one.lower(TP, 0)
    one.acknowledged(sent)
    one.put({TP: 1})

    assert one.pending == {TP: 1}


@given(st.lists(st.one_of(st.integers(0, 30), st.sampled_from(["send", "fine", "lost"]))))
def test_whatever_is_asked_for_no_commit_is_below_one_that_was_sent_before(
    steps: list[int | str],
) -> None:
    one, asked, sent = tenure(), [0], list[int]()
    under_way: dict[TopicPartition, int] = {}
    for step in [*steps, "send", "fine"]:
        if isinstance(step, int):
            one.put({TP: step})
            asked.append(step)
        elif step == "send" and not under_way and one.pending:
            under_way = one.pending.copy()
            sent.append(under_way[TP])
        elif step == "fine":
            one.acknowledged(under_way)
            under_way = {}
        elif step == "lost":  # no answer came, so it is sent again
            under_way = {}

    assert sent == sorted(sent)
    assert sent[-1:] in ([max(asked)], []) or one.pending == {TP: max(asked)}
