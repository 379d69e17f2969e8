"""Brings answers and labels together by uri, row by row."""

from array import array
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from roadstream.schemas.errors import UsageError
from roadstream.sinks.columns import AnswerRow, VoteRow
from roadstream.sinks.evaluation.labels import LabelLine, Labels, Match, same_file, split_time
from roadstream.sinks.evaluation.metrics import Bools, Reals

OPEN = -1
"""Stands for a label that says neither yes nor no, and for an answer that left at no tier."""


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """How many answers and labels found each other.

    Attributes:
        answers: Rows of the answers file; the next four add up to it.
        judged: Labelled pictures with a probability; all scores are over these.
        failed: Labelled pictures without one.
        left_open: Answers whose label says −1 or nothing.
        without_label: Answers that no label belongs to.
        failed_in_all: Failed answers of the file, labelled or not.
        labels: Lines of the label file.
        labels_without_answer: Lines that say yes or no and that no answer belongs to.
    """

    answers: int
    judged: int
    failed: int
    left_open: int
    without_label: int
    failed_in_all: int
    labels: int
    labels_without_answer: int


class MemberKey(NamedTuple):
    """A member of a tier; in the shadow it votes without being counted."""

    tier: str
    member: str
    shadow: bool


class MemberVotes(msgspec.Struct, frozen=True):
    """One member's labelled votes, in row order; probability in [0, 1]."""

    truth: Bools
    probability: Reals


class EvaluationInput(msgspec.Struct, frozen=True, kw_only=True):
    """Answers with their labels, in row order.

    Attributes:
        counts: What was joined and what was left out.
        truth: Whether each labelled picture shows roadwork.
        called: Whether its answer says so; False for a failed one.
        probability: Its probability in [0, 1]; NaN for a failed one.
        exit_tier: Position in ``exits`` of the tier it left at; −1 for none.
        exits: Tiers from first to last, and how many answers of the file left at each.
        members: The labelled votes of each member, in tier order.
    """

    counts: Counts
    truth: Bools
    called: Bools
    probability: Reals
    exit_tier: NDArray[np.int64]
    exits: dict[str, int]
    members: dict[MemberKey, MemberVotes]


class _Tiers:
    """The tiers seen, how deep they lie, and how many answers left at each."""

    def __init__(self) -> None:
        self.depth: dict[str, int] = {}
        self.exits: dict[str, int] = {}
        self._numbers: dict[str, int] = {}

    def add(self, row: AnswerRow) -> int:
        """Count a row; return the number of the tier it left at, or ``OPEN``."""
        for depth, tier in enumerate(row["latency"]["tiers"]):
            name = tier["tier"]
            self.depth[name] = max(depth, self.depth.get(name, 0))
        tier_name = row["exit_tier"]
        if tier_name is None:
            return OPEN
        if row["status"] != "failed":
            self.exits[tier_name] = self.exits.get(tier_name, 0) + 1
        return self._numbers.setdefault(tier_name, len(self._numbers))

    def order(self) -> list[str]:
        """Return the tiers that answers left at, first tier first."""
        return sorted(self._numbers, key=self.rank)

    def rank(self, tier: str) -> tuple[int, str]:
        """Return what tiers are sorted by."""
        return self.depth.get(tier, len(self.depth)), tier

    def positions(self) -> dict[int, int]:
        """Return the place in ``order`` of each number given out."""
        return {OPEN: OPEN} | {self._numbers[name]: n for n, name in enumerate(self.order())}


class _Claims:
    """Which labelled file belongs to which uri, so that a short name cannot serve two pictures.

    A uri that is the labelled name, letter by letter, takes precedence over those that only end
    with it.
    """

    def __init__(self) -> None:
        self.exact: set[str] = set()
        self._first: dict[str, str] = {}
        self._quarrels: dict[str, str] = {}

    def add(self, match: Match, uri: str) -> None:
        """Note that a uri found a label."""
        name, file = match.label.file, split_time(uri)[0]
        if match.exact:
            self.exact.add(name)
        elif not same_file(self._first.setdefault(name, file), file):
            self._quarrels.setdefault(name, file)

    def check(self, labels: Labels) -> None:
        """Raise ``UsageError`` for a name that fits several pictures and equals none."""
        for name, second in self._quarrels.items():
            if name not in self.exact:
                raise UsageError(
                    f"{labels.source}: {name} could be {self._first[name]} and {second}; "
                    f"expected names that say more of the path"
                )


class LabelJoin:
    """Collects answers with their labels: some tens of bytes for each, and for each vote.

    Attributes:
        first: The first uri seen, for messages.
    """

    def __init__(self, labels: Labels) -> None:
        self.first: str | None = None
        self._labels = labels
        self._answers = self._failed = 0
        self._tiers = _Tiers()
        self._claims = _Claims()
        self._found: list[LabelLine] = []
        # Lines that name one picture, by the line that was taken.
        self._alike: dict[int, tuple[int, ...]] = {}
        self._exact = array("b")
        self._called = array("b")
        self._probability = array("d")
        self._exit = array("q")
        self._votes: dict[MemberKey, tuple[array[int], array[float]]] = {}

    def add(self, row: AnswerRow) -> None:
        """Take the next answer.

        Raises:
            UsageError: Several labelled files fit its uri.
        """
        self.first = self.first or row["uri"]
        self._answers += 1
        self._failed += row["status"] == "failed"
        tier = self._tiers.add(row)
        match = self._labels.find(row["uri"])
        if match is None:
            return
        self._claims.add(match, row["uri"])
        if len(match.lines) > 1:
            self._alike[match.label.line] = match.lines
        probability = row["probability"]
        for vote in row["votes"]:
            self._add_vote(vote, shadow=False)
        for vote in row["shadow_votes"]:
            self._add_vote(vote, shadow=True)
        self._found.append(match.label)
        self._exact.append(match.exact)
        self._called.append(row["label"] == "roadwork")
        self._probability.append(float("nan") if probability is None else probability)
        self._exit.append(tier)

    def _add_vote(self, vote: VoteRow, *, shadow: bool) -> None:
        if vote["probability"] is not None:
            key = MemberKey(vote["tier"], vote["member"], shadow)
            rows, probabilities = self._votes.setdefault(key, (array("q"), array("d")))
            rows.append(len(self._found))
            probabilities.append(vote["probability"])

    def result(self) -> EvaluationInput:
        """Return everything joined.

        Raises:
            UsageError: A labelled name fits several pictures and equals none.
        """
        self._claims.check(self._labels)
        meaning = np.array([_number(label.roadwork) for label in self._found], dtype=np.int8)
        exact = np.array(self._exact, dtype=np.bool_)
        claimed = np.array([label.file in self._claims.exact for label in self._found], np.bool_)
        mine = exact | ~claimed
        kept = mine & (meaning != OPEN)
        positions = self._tiers.positions()
        probability = np.array(self._probability, dtype=np.float64)[kept]
        return EvaluationInput(
            counts=self._counts(mine, kept, int(np.isnan(probability).sum())),
            truth=meaning[kept] == 1,
            called=np.array(self._called, dtype=np.bool_)[kept],
            probability=probability,
            exit_tier=np.array([positions[tier] for tier in self._exit], dtype=np.int64)[kept],
            exits={tier: self._tiers.exits.get(tier, 0) for tier in self._tiers.order()},
            members=self._members(kept, meaning == 1),
        )

    def _counts(self, mine: Bools, kept: Bools, failed: int) -> Counts:
        taken = {label.line for label, keep in zip(self._found, kept, strict=True) if keep}
        used = {line for one in taken for line in self._alike.get(one, (one,))}
        return Counts(
            answers=self._answers,
            judged=int(kept.sum()) - failed,
            failed=failed,
            left_open=int(mine.sum() - kept.sum()),
            without_label=self._answers - int(mine.sum()),
            failed_in_all=self._failed,
            labels=self._labels.lines,
            labels_without_answer=self._labels.decided - len(used),
        )

    def _members(self, kept: Bools, truth: Bools) -> dict[MemberKey, MemberVotes]:
        members: dict[MemberKey, MemberVotes] = {}
        for key in sorted(self._votes, key=lambda key: (self._tiers.rank(key.tier), key)):
            rows = np.array(self._votes[key][0], dtype=np.int64)
            probability = np.array(self._votes[key][1], dtype=np.float64)
            chosen = kept[rows]
            members[key] = MemberVotes(truth[rows][chosen], probability[chosen])
        return members


def _number(roadwork: bool | None) -> int:
    return OPEN if roadwork is None else int(roadwork)
