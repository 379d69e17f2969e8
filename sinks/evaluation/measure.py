"""How right a file of answers is: joined with labels, overall, per tier and per member."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np

from roadstream.schemas.errors import UsageError
from roadstream.sinks.evaluation.label_join import (
    Counts,
    EvaluationInput,
    LabelJoin,
    MemberKey,
    MemberVotes,
)
from roadstream.sinks.evaluation.labels import LabelColumns, read_labels
from roadstream.sinks.evaluation.metrics import Bools, Scores, score
from roadstream.sinks.evaluation.reward import SILENCE, Reward, subnet_reward
from roadstream.sinks.files.readers import read_answers

MEMBER_THRESHOLD = 0.5
"""Probability from which a member's own vote counts as roadwork."""


class TierEvaluation(msgspec.Struct, frozen=True, kw_only=True):
    """The answers that left at one tier: how many of the file, their share, and their scores."""

    tier: str
    exits: int
    share: float
    scores: Scores


class MemberEvaluation(msgspec.Struct, frozen=True, kw_only=True):
    """One member's own votes, called roadwork from 0.5, over the labelled pictures it saw."""

    tier: str
    member: str
    shadow: bool
    scores: Scores


class Evaluation(msgspec.Struct, frozen=True, kw_only=True):
    """The verdict on a file of answers; encodes to JSON.

    Attributes:
        counts: What was scored and what was left out.
        overall: Scores of the answers' own labels and probabilities.
        tiers: The same per exit tier, from first to last.
        members: Scores per member.
        reward: What the subnet would pay for the labelled answers in row order: each answers with
            its probability, failed ones with silence.
    """

    counts: Counts
    overall: Scores
    tiers: list[TierEvaluation]
    members: list[MemberEvaluation]
    reward: Reward


def join_labels(
    answers_path: Path,
    labels_path: Path,
    file_column: str | None = None,
    label_column: str | None = None,
    time_column: str | None = None,
) -> EvaluationInput:
    """Read answers and labels and bring them together by uri, as ``Labels`` describes.

    Without column names the first usual one is taken: ``file``, ``uri``, ``image`` or ``path``;
    ``label``, ``roadwork`` or ``y``; ``t_seconds`` if there is one.

    Raises:
        UsageError: A file cannot be understood, a name fits several files, or nothing fits.
        RunError: A file cannot be read.
    """
    labels = read_labels(labels_path, LabelColumns(file_column, label_column, time_column))
    join = LabelJoin(labels)
    for row in read_answers(answers_path):
        join.add(row)
    joined = join.result()
    if joined.counts.answers == joined.counts.without_label:
        raise UsageError(
            f"{labels_path}: expected names that belong to the answers, but none does: "
            f"{labels.first or 'no line'} there, {join.first or 'no row'} in {answers_path}"
        )
    return joined


def evaluate(joined: EvaluationInput) -> Evaluation:
    """Score joined answers; failed ones count in the reward and the counts only."""
    judged = ~np.isnan(joined.probability)
    tier_of = np.array(joined.exit_tier, dtype=np.int64)
    ended = sum(joined.exits.values())
    return Evaluation(
        counts=joined.counts,
        overall=_scores(joined, judged),
        tiers=[
            TierEvaluation(
                tier=tier,
                exits=exits,
                share=exits / ended if ended else 0.0,
                scores=_scores(joined, judged & (tier_of == place)),
            )
            for place, (tier, exits) in enumerate(joined.exits.items())
        ],
        members=[_member(key, votes) for key, votes in joined.members.items()],
        reward=subnet_reward(_challenges(joined)),
    )


def _scores(joined: EvaluationInput, chosen: Bools) -> Scores:
    return score(joined.truth[chosen], joined.called[chosen], joined.probability[chosen])


def _member(key: MemberKey, votes: MemberVotes) -> MemberEvaluation:
    called = votes.probability >= MEMBER_THRESHOLD
    return MemberEvaluation(
        tier=key.tier,
        member=key.member,
        shadow=key.shadow,
        scores=score(votes.truth, called, votes.probability),
    )


def _challenges(joined: EvaluationInput) -> Iterator[tuple[bool, float]]:
    predictions = np.where(np.isnan(joined.probability), SILENCE, joined.probability)
    return zip(joined.truth.tolist(), predictions.tolist(), strict=True)
