"""Whatever decodes can be written, read back, shown and measured, its extremes included."""

import csv
import io
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console

from roadstream.schemas import codec
from roadstream.schemas.errors import RecordError, UsageError
from roadstream.schemas.records.answer import Answer
from roadstream.schemas.records.dead_letters import DeadLetter, DeadLetterSettled
from roadstream.schemas.records.image import Head, Image, Inline
from roadstream.schemas.records.votes import Escalation, VotesPack
from roadstream.schemas.topics import VOTES, images
from roadstream.schemas.topics import tier as tier_topic
from roadstream.sinks import dead_letters
from roadstream.sinks.columns import row
from roadstream.sinks.evaluation.measure import evaluate, join_labels
from roadstream.sinks.evaluation.table import render
from roadstream.sinks.files.readers import read_answers
from roadstream.sinks.report.page import ReportOptions, write_report
from roadstream.sinks.sink import FORMATS, open_writer
from roadstream.workers.commands.evaluate import load_image
from tests.kits.examples import examples
from tests.kits.records_kit import around, evened, packed, within

SLOW = settings(
    deadline=None, max_examples=examples(40), suppress_health_check=[HealthCheck.too_slow]
)


@st.composite
def answers(draw: st.DrawFn) -> list[Answer]:
    drawn = draw(st.lists(within(Answer).map(evened), min_size=1, max_size=3))
    return [codec.decode_answer(packed(one)) for one in drawn]


@SLOW
@given(answers())
def test_any_answer_is_written_and_read_back_as_it_is(some: list[Answer]) -> None:
    with TemporaryDirectory() as folder:
        for suffix in FORMATS:
            path = Path(folder, f"a{suffix}")
            with open_writer(path) as writer:
                writer.write(some)
            assert list(read_answers(path)) == [row(one) for one in some]


@SLOW
@given(answers())
def test_any_answer_is_shown_in_the_report_and_measured(some: list[Answer]) -> None:
    with TemporaryDirectory() as folder:
        file, labels = Path(folder, "a.jsonl"), Path(folder, "l.csv")
        with open_writer(file) as writer:
            writer.write(some)
        write_report(
            file, Path(folder, "a.html"), ReportOptions(load_image=load_image, made_at=1.7e9)
        )
        with labels.open("w", newline="") as out:
            names = {answer.head.uri for answer in some}
            csv.writer(out).writerows([("file", "label"), *((uri, "1") for uri in names)])
        try:
            found = evaluate(join_labels(file, labels, None, None, None))
        except UsageError as error:  # a name that belongs to none, such as one without letters
            assert "expected" in str(error)  # noqa: PT017
        else:
            Console(file=io.StringIO()).print(render(found))


LETTERS = {
    VOTES: (VotesPack, evened),
    images("live"): (Image, None),
    tier_topic("two", "live"): (Escalation, None),
}


@SLOW
@given(within(DeadLetter), st.sampled_from([*LETTERS]), st.data())
def test_any_dead_letter_is_listed_shown_and_replayed(
    drawn: dict[str, Any], topic: str, data: st.DataObject
) -> None:
    kind, made = LETTERS[topic]
    held = data.draw(around(kind) | (within(kind).map(made) if made else within(kind)))
    letter = codec.decode_dead_letter(packed(drawn | {"topic": topic, "value": packed(held)}))
    dead_letters.contents(letter)
    try:
        sent = dead_letters.replay(letter, 7, 1.7e9)
    except RecordError:
        return
    if sent.image_id is not None:
        again = dead_letters.replay(letter, 8, 1.7e9).image_id
        assert again != sent.image_id
        decode = codec.decode_votes if topic == VOTES else codec.decode_image
        decode(sent.output.value or b"")


@given(around(DeadLetter) | around(DeadLetterSettled))
def test_what_is_no_dead_letter_is_a_record_error(drawn: Any) -> None:
    try:
        codec.decode(codec.decode_dead_letter_or_settled, packed(drawn), "t", 0, 1)
    except RecordError as error:
        assert str(error).startswith("t[0]@1: ")  # noqa: PT017 (either may happen)


@pytest.mark.parametrize("time", ["²", "9" * 400, "nan", "1e9", "-1", "", "٣"])
def test_a_uri_with_a_time_that_is_none_shows_no_picture(time: str) -> None:
    assert load_image(f"nothing-there.mp4#t={time}") is None


def test_a_replayed_image_whose_id_is_as_long_as_one_may_be_keeps_its_letters_number() -> None:
    image = Image(Head(image_id="x" * 4096), Inline(b""))
    letter = codec.decode_dead_letter(
        packed(
            {
                "schema": "dead_letter.v1", "topic": images("live"), "partition": 0, "offset": 0,
                "key": None, "value": codec.encode(image), "error": "", "group": "g",
                "failed_at": 0, "reason": "model_failed",
            }
        )
    )  # fmt: skip
    for number in (7, 2**63 - 1):
        sent = dead_letters.replay(letter, number, 1.7e9)
        replayed = codec.decode_image(sent.output.value or b"").head.image_id
        assert replayed == sent.image_id
        assert replayed.endswith(f"x~replay-{number}")


@pytest.mark.parametrize("place", ["9" * 5000 + "@1", "1@" + "9" * 5000, "1@-1", "٣@٣", "1@"])
def test_a_place_that_no_log_has_is_wrong_usage(place: str) -> None:
    with pytest.raises(UsageError, match="expected a place such as"):
        dead_letters.parse_position(place)
