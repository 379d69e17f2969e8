"""What an engine for vision-language models does before it asks and after it is answered."""

from collections.abc import Sequence
from typing import NamedTuple

from roadstream.schemas.cascade.model import Cascade, Member
from roadstream.schemas.errors import ImageError
from roadstream.schemas.settings.prompts import Prompt, load_prompt
from roadstream.schemas.settings.vlm import VlmSettings
from roadstream.stages.inference import Abstained, Picture, Pictures, Pixels, Score
from roadstream.stages.rules.yes_no import AnswerWords, Reading, decided
from roadstream.streams.clock import Clock, SystemClock
from roadstream.workers.engines.vlm.fitting import Limits, fitted
from roadstream.workers.engines.vlm.sessions import Sessions
from roadstream.workers.engines.vlm.telling import told

LATE = ImageError("expired", "the deadline passed before the model answered")


class Question(NamedTuple):
    """What is asked about one picture.

    Attributes:
        text: The question.
        pictures: uint8 RGB [h, w, 3] each; the last one counts.
        patience: Seconds until its deadline, not positive once it has passed; ``None`` if it has
            none.
    """

    text: str
    pictures: list[Pixels]
    patience: float | None


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
        self._prompt = load_prompt(self._settings.prompt, cascade.folder, where, files)
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
            Question(self._text(picture, len(pixels)), pixels, self._patience(picture))
            for picture, pixels in zip(batch, shown, strict=True)
        ]

    def _text(self, picture: Picture, frames: int) -> str:
        """Return the prompt's question, and behind it what the member is told besides."""
        asked = self.prompt.question(frames)
        found = told(picture.evidence.only(self._settings.evidence))
        return f"{asked}\n\n{found}" if found else asked

    def score(self, reading: Reading, text: str = "") -> Score | Abstained:
        """Return a reading as a score, or an abstention if too much leaked."""
        return decided(reading, self._settings.max_leak, text=text)

    def _patience(self, picture: Picture) -> float | None:
        head = picture.head
        if head is None or head.deadline_at is None:
            return None
        return head.deadline_at - self._clock.now()


def shortest(questions: Sequence[Question], otherwise: float) -> float:
    """Return the seconds that none of the questions is too late after, at most ``otherwise``."""
    left = [one.patience for one in questions if one.patience is not None]
    return max(0.0, min([otherwise, *left]))
