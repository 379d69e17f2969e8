"""Progress: what is counted, and what a person sees of it."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from roadstream.streams.ledgers.run_ledger import Count
from roadstream.workers.job.progress import Progress, Tally

ANSWER = st.tuples(
    st.sampled_from(["answered", "partial", "failed"]),
    st.sampled_from([None, "one", "two"]),
    st.sampled_from([None, "roadwork", "none"]),
)


def screen(*, terminal: bool) -> tuple[Console, io.StringIO]:
    file = io.StringIO()
    return Console(file=file, force_terminal=terminal, width=100, color_system=None), file


@given(st.lists(ANSWER))
def test_answers_counted_one_by_one_or_in_groups_give_the_same(
    answers: list[tuple[str, str | None, str | None]],
) -> None:
    one_by_one, grouped = Tally(), Tally()
    for answer in answers:
        one_by_one.submitted += 1
        one_by_one.add(*answer)
    for answer in set(answers):
        grouped.count(Count(*answer, answers.count(answer)))

    assert grouped == one_by_one
    assert one_by_one.total_answered == len(answers)
    assert sum(one_by_one.exits.values()) == sum(
        status != "failed" and tier is not None for status, tier, _ in answers
    )
    assert one_by_one.roadwork == sum(label == "roadwork" for _, _, label in answers)


def test_images_without_an_answer_count_as_submitted() -> None:
    tally = Tally()
    tally.count(Count(None, None, None, 5))
    tally.count(Count("answered", "one", "none", 2))

    assert (tally.submitted, tally.total_answered) == (7, 2)


def test_a_terminal_shows_how_far_it_is_and_where_images_leave() -> None:
    console, file = screen(terminal=True)
    tally = Tally(submitted=10)
    with Progress(tally, ["one", "two"], console) as progress:
        tally.add("answered", "one", "roadwork", 3)
        tally.add("failed", "one", None)
        progress.refresh()

    shown = file.getvalue()
    for part in ("4 of 10+", "one 100%   two 0%", "roadwork 3", "failed 1", "time left –"):
        assert part in shown


def test_once_all_are_found_the_total_is_final() -> None:
    console, file = screen(terminal=True)
    tally = Tally(submitted=1234, found_all=True)
    with Progress(tally, ["one"], console) as progress:
        progress.refresh()

    assert "0 of 1,234\n" in file.getvalue().replace("\r", "").replace(" \n", "\n")


def test_nothing_is_drawn_where_there_is_no_terminal() -> None:
    console, file = screen(terminal=False)
    with Progress(Tally(submitted=10), ["one"], console) as progress:
        progress.refresh()
        progress.refresh()

    assert file.getvalue() == ""


@pytest.mark.parametrize("terminal", [False, True])
def test_what_children_say_is_shown_as_it_is(*, terminal: bool) -> None:
    console, file = screen(terminal=terminal)
    line = "worker 0: [bold]photos/[a].jpg[/bold] " + "long " * 40
    with Progress(Tally(), ["one"], console) as progress:
        progress.say(line)

    assert line in file.getvalue()


def test_the_rate_is_answers_per_second_of_late() -> None:
    console, _ = screen(terminal=False)
    tally = Tally()
    progress = Progress(tally, ["one"], console)
    progress.refresh()
    assert progress.rate == 0.0
    tally.add("answered", "one", "none", 100)
    progress.refresh()
    assert progress.rate > 0.0
