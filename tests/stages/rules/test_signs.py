"""What texts on signs say of roadwork."""

from math import log

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roadstream.schemas.records.votes import Box
from roadstream.schemas.settings.signs import SIGNS_AGAINST, SIGNS_FOR
from roadstream.stages.inference import Abstained, Score
from roadstream.stages.rules.signs import Region, SignRules, letters, read_odds

RULES = SignRules(SIGNS_FOR, SIGNS_AGAINST, odds=3.0)


def judged(*texts: str, sureness: float = 1.0) -> Score | Abstained:
    return RULES.judge([Region(text) for text in texts], sureness)


@pytest.mark.parametrize(
    "texts",
    [
        ["ROAD WORK AHEAD"],
        ["ROAD", "WORK", "AHEAD"],
        ["Roadworks, 2 miles"],
        ["STRAßENARBEITEN"],
        ["DÉVIATION"],
        ["MEN WORKING"],
        ["CONSTRUCTIONAHEAD 500 FT"],
        ["SPEED LIMIT 35", "WORK ZONE"],
    ],
)
def test_texts_that_mean_roadwork(texts: list[str]) -> None:
    found = judged(*texts)

    assert isinstance(found, Score)
    assert found.raw == pytest.approx(3.0)
    assert found.text == " ".join(texts)


@pytest.mark.parametrize(
    "texts",
    [
        ["END ROAD WORK"],
        ["END", "ROAD WORK"],
        ["ENDROADWORK"],
        ["End of road works"],
        ["Ende der Baustelle"],
        ["FIN DES TRAVAUX"],
        ["Koniec robót drogowych"],
    ],
)
def test_texts_that_end_a_zone_count_against_it(texts: list[str]) -> None:
    found = judged(*texts)

    assert isinstance(found, Score)
    assert found.raw == pytest.approx(-3.0)


@pytest.mark.parametrize(
    ("texts", "reason", "signs"),
    [
        ([], "no text was read", "none"),
        (["", " . "], "no text was read", "none"),
        (["SPEED LIMIT 35"], "read, but of no roadwork: SPEED LIMIT 35", "other"),
        (["ROAD HOME"], "read, but of no roadwork: ROAD HOME", "other"),
        (["cobras"], "read, but of no roadwork: cobras", "other"),
        (
            ["ROAD WORK AHEAD", "END ROAD WORK"],
            "read both of roadwork and of its end: ROAD WORK AHEAD END ROAD WORK",
            "both",
        ),
    ],
)
def test_texts_that_say_nothing_give_no_vote_and_say_why_as_a_tag(
    texts: list[str], reason: str, signs: str
) -> None:
    assert judged(*texts) == Abstained(reason, {"signs": signs})


def test_boxes_are_those_of_the_lines_that_say_it() -> None:
    boxes = [Box(0.1 * i, 0.1, 0.1 * i + 0.05, 0.2, 0.9, text) for i, text in enumerate("abc")]
    lines = [Region("ROAD", boxes[0]), Region("WORK", boxes[1]), Region("SPEED LIMIT", boxes[2])]

    found = RULES.judge(lines, 1.0)

    assert isinstance(found, Score)
    assert found.boxes == boxes[:2]


def test_a_text_that_was_read_unsurely_says_less() -> None:
    sure, half, not_at_all = (read_odds(3.0, sureness) for sureness in (1.0, 0.5, 0.0))

    assert sure == pytest.approx(3.0)
    assert half == pytest.approx(log(0.7262871 / 0.2737129), abs=1e-5)
    assert not_at_all == 0.0


@pytest.mark.parametrize(
    ("texts", "tag", "zone"),
    [
        (["Road", "work ahead, 2 miles"], "ROAD WORK", "begins"),
        (["END CONSTRUCTION"], "END CONSTRUCTION", "ends"),
        (["STRAßENARBEITEN", "UMLEITUNG"], "STRASSENARBEITEN", "begins"),
    ],
)
def test_the_text_that_counted_and_what_it_means_are_tags(
    texts: list[str], tag: str, zone: str
) -> None:
    found = judged(*texts)

    assert isinstance(found, Score)
    assert found.tags == {"text": tag, "zone": zone}


def test_members_name_their_own_texts() -> None:
    rules = SignRules(["Chantier interdit"], [], odds=2.0)

    found = rules.judge([Region("CHANTIER INTERDIT AU PUBLIC")], 1.0)

    assert isinstance(found, Score)
    assert found.raw == pytest.approx(2.0)


@given(st.text(max_size=60), st.floats(0, 1))
def test_any_text_is_judged(text: str, sureness: float) -> None:
    found = judged(text, sureness=sureness)

    assert isinstance(found, Abstained) or abs(found.raw) <= 3.0 + 1e-9
    assert letters(letters(text)) == letters(text)


@given(st.sampled_from(SIGNS_AGAINST))
def test_every_text_that_ends_a_zone_outweighs_what_it_holds(text: str) -> None:
    found = judged(text.upper())

    assert isinstance(found, Score)
    assert found.raw < 0
