"""A yes-or-no answer from log-probabilities: in any spelling, with what leaks, or abstained."""

from math import exp, inf, log, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roadstream.schemas.errors import EngineError
from roadstream.stages.inference import Abstained, Score
from roadstream.stages.rules.yes_no import (
    MAX_LOG_ODDS,
    AnswerTokens,
    AnswerWords,
    Reading,
    answer_tokens,
    decided,
    log_sum,
    read_tokens,
    read_words,
)

WORDS = AnswerWords()
VOCABULARY = {
    "Yes": 1,
    "\u0120yes": 2,
    "\u2581YES": 3,
    "No": 4,
    "\u0120no": 5,
    "not": 6,
    "yesterday": 7,
}
TOKENS = AnswerTokens((1, 2, 3), (4, 5))


def test_every_spelling_is_found_and_no_other_word() -> None:
    assert answer_tokens(VOCABULARY, WORDS) == TOKENS


def test_other_words_may_answer() -> None:
    words = AnswerWords(("ja",), ("nein",))

    assert answer_tokens({"Ja": 1, "Nein": 2, "Yes": 3}, words) == AnswerTokens((1,), (2,))


@pytest.mark.parametrize("missing", ["yes", "no"])
def test_a_tokenizer_without_the_word_is_refused(missing: str) -> None:
    vocabulary = {token: i for token, i in VOCABULARY.items() if missing not in token.lower()}

    with pytest.raises(EngineError, match=f"a token for one of {missing}, got none"):
        answer_tokens(vocabulary, WORDS)


def test_the_spellings_of_a_side_add_up() -> None:
    shares = {1: 0.3, 2: 0.2, 3: 0.1, 4: 0.15, 5: 0.05}

    reading = read_tokens({token: log(p) for token, p in shares.items()}, TOKENS)

    assert reading.raw == pytest.approx(log(0.6 / 0.2))
    assert reading.leak == pytest.approx(0.2)


def test_what_is_impossible_is_clipped() -> None:
    reading = read_tokens({1: 0.0, 2: -inf, 3: -inf, 4: -inf, 5: -inf}, TOKENS)

    assert reading == Reading(MAX_LOG_ODDS, 0.0)


def test_neither_is_a_whole_leak() -> None:
    assert read_tokens(dict.fromkeys((1, 2, 3, 4, 5), -inf), TOKENS) == Reading(0.0, 1.0)


@pytest.mark.parametrize("value", [nan, 0.5])
def test_what_is_no_log_probability_is_refused(value: float) -> None:
    with pytest.raises(EngineError, match="expected log-probabilities"):
        read_tokens({1: value, 2: -9, 3: -9, 4: -1, 5: -9}, TOKENS)


def test_a_token_that_was_not_told_is_refused() -> None:
    with pytest.raises(EngineError, match="a log-probability of token 3, got none"):
        read_tokens({1: -1.0, 2: -2.0}, TOKENS)


def test_words_are_read_as_tokens_are() -> None:
    top = [("Yes", log(0.6)), (" no", log(0.25)), ("The", log(0.1))]

    reading = read_words(top, WORDS)

    assert reading.raw == pytest.approx(log(0.6 / 0.25))
    assert reading.leak == pytest.approx(0.15)


def test_a_side_that_is_not_told_is_as_likely_as_it_can_be() -> None:
    top = [("Yes", log(0.9)), ("The", log(0.06))]

    # 0.04 is untold, which is less than the least that is told.
    assert read_words(top, WORDS).raw == pytest.approx(log(0.9 / 0.04))
    # Here 0.1 is untold, but no token of it is likelier than 0.02.
    assert read_words([("No", log(0.88)), ("A", log(0.02))], WORDS).raw == pytest.approx(
        -log(0.88 / 0.02)
    )


def test_words_that_answer_nothing_leak_all() -> None:
    assert read_words([("The", -0.1), ("A", -3.0)], WORDS).leak == 1.0
    assert read_words([], WORDS) == Reading(0.0, 1.0)


def test_too_much_of_a_leak_abstains() -> None:
    assert decided(Reading(2.0, 0.5), 0.5, text="why") == Score(2.0, [], "why")
    found = decided(Reading(2.0, 0.51), 0.5)
    assert isinstance(found, Abstained)
    assert found.reason == "0.510 of the probability is on neither yes nor no, at most 0.5 may be"


@given(st.lists(st.floats(-50, 0), min_size=1, max_size=20))
def test_log_sum_is_the_logarithm_of_the_sum(logprobs: list[float]) -> None:
    assert log_sum(logprobs) == pytest.approx(log(sum(exp(one) for one in logprobs)), abs=1e-9)


@given(st.lists(st.floats(0.001, 1), min_size=6, max_size=6))
def test_a_reading_is_bounded_and_mirrors(shares: list[float]) -> None:
    total = sum(shares)
    logprobs = {i + 1: log(p / total) for i, p in enumerate(shares)}

    reading = read_tokens(logprobs, TOKENS)
    mirrored = read_tokens(logprobs, AnswerTokens(TOKENS.no, TOKENS.yes))

    assert -MAX_LOG_ODDS <= reading.raw <= MAX_LOG_ODDS
    assert mirrored.raw == pytest.approx(-reading.raw)
    assert reading.leak == pytest.approx(shares[5] / total, abs=1e-9)
