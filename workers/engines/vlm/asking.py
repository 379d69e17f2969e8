"""What an engine for vision-language models does before it asks and after it is answered."""

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from roadstream.schemas.cascade.model import Cascade, Member
from roadstream.schemas.errors import ImageError
from roadstream.schemas.records.votes import Box
from roadstream.schemas.settings.prompts import Prompt, load_prompt
from roadstream.schemas.settings.vlm import VlmSettings
from roadstream.stages.inference import Abstained, Picture, Pictures, Pixels, Score
from roadstream.stages.rules.points import places, pointed
from roadstream.stages.rules.yes_no import AnswerWords, Reading, decided
from roadstream.stages.voting.evidence import strongest
from roadstream.streams.clock import Clock, SystemClock
from roadstream.workers.engines.vlm.drawing import drawn
from roadstream.workers.engines.vlm.fitting import Limits, fitted
from roadstream.workers.engines.vlm.sessions import Sessions
from roadstream.workers.engines.vlm.telling import MOST_LISTED, told

MOST_WRITTEN = 20_000
"""Characters of what a model writes in which points are looked for."""
_FULL = {"percent": (100.0, 100.0), "thousandths": (1000.0, 1000.0)}
LATE = ImageError("expired", "the deadline passed before the model answered")


class Question(NamedTuple):
    """What is asked about one picture.

    Attributes:
        text: The question.
        pictures: uint8 RGB [h, w, 3] each; the last one counts.
        boxes: What the member is told of boxes of earlier tiers.
        drawn: Whether they are drawn into the last picture.
        patience: Seconds until its deadline, not positive once it has passed; ``None`` if it has
            none.
    """

    text: str
    pictures: list[Pixels]
    patience: float | None
    boxes: Sequence[Box] = ()
    drawn: bool = False


class Asking:
    """Makes questions of pictures, and scores of readings, as a member's settings say.

    Args:
        cascade: For what file names are relative to.
        member: For its name and size.
        settings: Its settings.
        clock: Tells how long a picture has until its deadline.
    """

    def __init__(
        self, cascade: Cascade, member: Member, settings: VlmSettings, clock: Clock | None = None
    ) -> None:
        self._cascade, self._member, self._settings = cascade, member, settings
        self._clock = clock or SystemClock()
        largest = settings.max_pixels or member.width * member.height
        smallest = min(settings.min_pixels, largest)
        self.limits = Limits(smallest, largest, settings.multiple)
        self._sessions = Sessions(settings.frames, settings.sessions)
        self._prompt: Prompt | None = None

    def load(self) -> Prompt:
        """Read the prompt.

        Raises:
            ConfigError: It is not there, or is none.
        """
        where = f"{self._cascade.name}: member {self._member.name}: settings.prompt"
        cascade = self._cascade
        files = cascade.snapshot.files
        prompt = load_prompt(self._settings.prompt, cascade.folder, where, files)
        self._prompt = prompt if self._settings.system_turn else prompt.in_one_turn()
        return self._prompt

    @property
    def prompt(self) -> Prompt:
        """The prompt, once loaded."""
        assert self._prompt is not None, "load() comes first"
        return self._prompt

    @property
    def words(self) -> AnswerWords:
        """The words that answer it."""
        prompt = self.prompt
        yes, no = ([word.casefold() for word in words] for words in (prompt.yes, prompt.no))
        return AnswerWords(tuple(yes), tuple(no))

    def prepare(self, batch: Pictures) -> None:
        """Resize a batch's pictures."""
        fitted(batch, self.limits)

    def questions(self, batch: Pictures) -> list[Question]:
        """Return what is asked about each picture of a batch."""
        shown = self._sessions.with_earlier(batch, fitted(batch, self.limits))
        return [
            self._question(picture, pixels) for picture, pixels in zip(batch, shown, strict=True)
        ]

    def _question(self, picture: Picture, pixels: list[Pixels]) -> Question:
        """Return the prompt's question, and behind it what the member is told besides."""
        evidence = picture.evidence.only(self._settings.evidence)
        draws = self._settings.boxes == "drawn" and bool(evidence.boxes)
        if draws:
            boxes = strongest(evidence.boxes)[:MOST_LISTED]
            evidence = msgspec.structs.replace(evidence, boxes=boxes)
            pixels = [*pixels[:-1], drawn(pixels[-1], boxes)]
        asked, found = self.prompt.question(len(pixels)), told(evidence, drawn=draws)
        text = f"{asked}\n\n{found}" if found else asked
        patience = self._patience(picture)
        return Question(text, pixels, patience, evidence.boxes, draws and bool(evidence.boxes))

    @property
    def written(self) -> int:
        """Characters of what a model writes before its answer that are wanted, its end first."""
        settings = self._settings
        return settings.reasoning_kept if settings.points is None else MOST_WRITTEN

    def score(self, reading: Reading, question: Question, written: str = "") -> Score | Abstained:
        """Return a reading as a score, or an abstention if too much leaked.

        Args:
            reading: The answer.
            question: What it answers.
            written: What the model wrote before it, if it did.
        """
        settings = self._settings
        kept = written[-settings.reasoning_kept :] if settings.reasoning_kept else ""
        scored = decided(reading, settings.max_leak, text=kept)
        if settings.points is None or isinstance(scored, Abstained):
            return scored
        height, width = question.pictures[-1].shape[:2]
        full = _FULL.get(settings.points, (width, height))
        found = places(written[-MOST_WRITTEN:], full, len(question.pictures))
        return pointed(scored, found, question.boxes)

    def _patience(self, picture: Picture) -> float | None:
        head = picture.head
        if head is None or head.deadline_at is None:
            return None
        return head.deadline_at - self._clock.now()


def shortest(questions: Sequence[Question], otherwise: float) -> float:
    """Return the seconds that none of the questions is too late after, at most ``otherwise``."""
    left = [one.patience for one in questions if one.patience is not None]
    return max(0.0, min([otherwise, *left]))
