"""A yes-or-no answer read from the log-probabilities of one token. Pure; shared by all VLMs.

A model says YES in many spellings, so the probabilities of all of them are added. What is left over
leaks to tokens that answer nothing: too much of it, and the member abstains instead of guessing.
"""

from collections.abc import Iterable, Mapping, Sequence
from math import exp, inf, isnan, log, log1p
from typing import NamedTuple

from roadstream.schemas.errors import EngineError
from roadstream.schemas.records.votes import Box
from roadstream.stages.inference import Abstained, Score

MAX_LOG_ODDS = 16.0
"""Raw scores are clipped to ± this: beyond it float32 log-probabilities say nothing."""

# What tokenizers put before a word that follows a space: GPT-2's byte for it, and SentencePiece's.
_SPACES = "\u0120\u2581"


class AnswerWords(NamedTuple):
    """The words that count as an answer, in lower case."""

    yes: tuple[str, ...] = ("yes",)
    no: tuple[str, ...] = ("no",)

    def side(self, token: str) -> bool | None:
        """Return True for a spelling of yes, False for one of no, None for any other token."""
        word = token.strip().strip(_SPACES).casefold()
        return True if word in self.yes else False if word in self.no else None


class AnswerTokens(NamedTuple):
    """Ids of the tokens that spell an answer."""

    yes: tuple[int, ...]
    no: tuple[int, ...]

    @property
    def ids(self) -> list[int]:
        """All of them, yes first."""
        return [*self.yes, *self.no]


class Reading(NamedTuple):
    """What an answer token says.

    Attributes:
        raw: ``log p(yes) − log p(no)``, clipped to ± 16.
        leak: Probability of every other token, in [0, 1].
    """

    raw: float
    leak: float


def answer_tokens(vocabulary: Mapping[str, int], words: AnswerWords) -> AnswerTokens:
    """Find the tokens that spell an answer, with and without a space before, in any case.

    Args:
        vocabulary: Id per token, spelled as the tokenizer does (``get_vocab()``).
        words: What counts as an answer.

    Raises:
        EngineError: The tokenizer has no single token for one of the two.
    """
    found: dict[bool, list[int]] = {True: [], False: []}
    for token, number in vocabulary.items():
        side = words.side(token)
        if side is not None:
            found[side].append(number)
    for side, spelled in ((True, words.yes), (False, words.no)):
        if not found[side]:
            raise EngineError(
                f"expected a tokenizer with a token for one of {', '.join(spelled)}, got none"
            )
    return AnswerTokens(tuple(sorted(found[True])), tuple(sorted(found[False])))


def read_tokens(logprobs: Mapping[int, float], tokens: AnswerTokens) -> Reading:
    """Read an answer from the log-probabilities of tokens by id, at least those of ``tokens``.

    Raises:
        EngineError: One of ``tokens`` has no log-probability, or it is none.
    """
    try:
        yes = [logprobs[number] for number in tokens.yes]
        no = [logprobs[number] for number in tokens.no]
    except KeyError as error:
        raise EngineError(f"expected a log-probability of token {error}, got none") from None
    return _reading(log_sum(yes), log_sum(no))


def read_words(top: Iterable[tuple[str, float]], words: AnswerWords) -> Reading:
    """Read an answer from the likeliest tokens as text, where an engine tells no others.

    A side of which no spelling is among them is taken to be as likely as it can be: as the least
    likely token that is told, and no more than all that is untold. So the score errs towards 0.

    Args:
        top: Token and log-probability.
        words: What counts as an answer.
    """
    sides: dict[bool | None, list[float]] = {True: [], False: [], None: []}
    for token, logprob in top:
        sides[words.side(token)].append(logprob)
    told = [*sides[True], *sides[False], *sides[None]]
    if not told:
        return Reading(0.0, 1.0)
    untold = log(max(1.0 - exp(min(0.0, log_sum(told))), exp(-MAX_LOG_ODDS)))
    bound = min([untold, *told])
    seen = bool(sides[True]) or bool(sides[False])
    yes = log_sum(sides[True]) if sides[True] else bound
    no = log_sum(sides[False]) if sides[False] else bound
    reading = _reading(yes, no)
    return reading if seen else Reading(reading.raw, 1.0)


def decided(
    reading: Reading, max_leak: float, *, boxes: Sequence[Box] = (), text: str = ""
) -> Score | Abstained:
    """Return the reading as a score, or an abstention if more than ``max_leak`` leaked."""
    if reading.leak > max_leak:
        return Abstained(
            f"{reading.leak:.3f} of the probability is on neither yes nor no, at most {max_leak:g}"
            " may be"
        )
    return Score(reading.raw, list(boxes), text)


def log_sum(logprobs: Sequence[float]) -> float:
    """Return the logarithm of the sum of probabilities given by their logarithms."""
    top = max(logprobs, default=-inf)
    if top == -inf:
        return -inf
    return top + log(sum(exp(one - top) for one in logprobs))


def _reading(yes: float, no: float) -> Reading:
    if isnan(yes) or isnan(no) or max(yes, no) > _ROUNDING:
        raise EngineError(f"expected log-probabilities, got {yes} for yes and {no} for no")
    answered = min(0.0, log_sum([yes, no]))
    if answered == -inf:
        return Reading(0.0, 1.0)
    raw = max(-MAX_LOG_ODDS, min(MAX_LOG_ODDS, yes - no))
    return Reading(raw, 1.0 - exp(answered))


# A sum of float32 probabilities may exceed 1 by its rounding, and bfloat16 ones by more.
_ROUNDING = log1p(0.02)
