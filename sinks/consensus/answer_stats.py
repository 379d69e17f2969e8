"""What a consensus member counts of its answers."""

from roadstream.schemas.histogram import (
    ARCHIVE_BOUNDS,
    LATENCY_BOUNDS,
    PROBABILITY_BOUNDS,
    Histogram,
)
from roadstream.schemas.records.answer import Answer, Label, Status
from roadstream.schemas.records.image import Lane

# All that there are, so that each is shown from the beginning, as 0.
_KINDS: tuple[tuple[Status, Label | None], ...] = (
    ("answered", "roadwork"),
    ("answered", "none"),
    ("partial", "roadwork"),
    ("partial", "none"),
    ("failed", None),
)


class AnswerStats:
    """Counters of the answers that were given since the process began.

    Attributes:
        given: Answers by status and label.
        probability: Probabilities of roadwork, in [0, 1], of the answers that have one.
        joining: Seconds from an image's first votes to its answer, of images that had to wait.
        latency: Per lane, seconds from submission to answer, of images that tell when they were
            submitted.
    """

    def __init__(self) -> None:
        self.given = dict.fromkeys(_KINDS, 0)
        self.probability = Histogram(PROBABILITY_BOUNDS)
        self.joining = Histogram()
        self.latency: dict[Lane, Histogram] = {
            "live": Histogram(LATENCY_BOUNDS),
            "archive": Histogram(ARCHIVE_BOUNDS),
        }

    @property
    def total(self) -> int:
        """Number of answers given."""
        return sum(self.given.values())

    def count(self, answer: Answer) -> None:
        """Count an answer."""
        self.given[answer.status, answer.label] += 1
        if answer.probability is not None:
            self.probability.observe(answer.probability)
        if answer.joining:
            self.joining.observe(answer.joining)
        head = answer.head
        if head.submitted_at > 0:
            self.latency[head.lane].observe(answer.took)
