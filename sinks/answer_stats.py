"""What a consensus member counts of its answers."""

from collections.abc import Collection

from schemas.records import LANES, Answer, Label, Lane, Status
from streams.histogram import ARCHIVE_BOUNDS, LATENCY_BOUNDS, PROBABILITY_BOUNDS, Histogram

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

    def count(self, answers: Collection[Answer]) -> None:
        """Count answers; some at once, as this is a part of what an image costs."""
        given = self.given
        for answer in answers:
            given[answer.status, answer.label] += 1
        self.probability.observe_all([p for a in answers if (p := a.probability) is not None])
        self.joining.observe_all([a.joining for a in answers if a.joining])
        for lane in LANES:
            self.latency[lane].observe_all(
                [a.took for a in answers if a.head.lane == lane and a.head.submitted_at > 0]
            )
