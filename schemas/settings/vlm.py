"""What the settings of all engines for vision-language models have in common."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from msgspec import Meta

from roadstream.schemas.records.bounds import Share
from roadstream.schemas.settings.base import EngineSettings, TagsGiven
from roadstream.schemas.settings.named_files import named_file

Pixels = Annotated[int, Meta(ge=1024, le=1 << 26)]
Tokens = Annotated[int, Meta(ge=0, le=65_536)]
Frames = Annotated[int, Meta(ge=0, le=31)]
POINTS = frozenset({"confirmed", "elsewhere", "none"})
"""Whether a place that a model wrote is in a box of earlier tiers, elsewhere, or there is none."""
Seconds = Annotated[float, Meta(gt=0, le=86_400)]


class VlmSettings(EngineSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of a model that is shown pictures and asked a question, wherever it runs.

    Attributes:
        prompt: Name of a prompt that ships, or a TOML file relative to the cascade file.
        boxes: How it is told of boxes that earlier tiers found, where ``evidence`` names them: in
            words, or drawn into the picture, outlined and numbered.
        points: What the places are counted in that the model writes before it answers: percent or
            thousandths of the picture's sides, or pixels of the picture as it is shown. They become
            boxes of its vote, and the tag ``points``. Absent: none are looked for.
        system_turn: Whether what the prompt says first, its ``system``, is a turn of its own; if
            not, it stands before the question, for chat templates that refuse such a turn.
        max_leak: Abstains if more than this share of the probability is on neither yes nor no.
        max_pixels: Larger pictures are shrunk to so many pixels; absent: the member's width ×
            height. It decides how many visual tokens a picture costs, and so what an answer costs.
        min_pixels: Smaller pictures are enlarged to so many pixels.
        multiple: Sides are rounded to multiples of so many pixels, so that the model's own
            preprocessing has nothing left to resize.
        frames: How many earlier frames of the same session are shown before a picture.
        sessions: Sessions whose frames are remembered; the one unseen for longest is forgotten.
        reasoning_tokens: Tokens that the model may reason for before it answers; 0: not at all.
        reasoning_end: Text that ends the reasoning.
        reasoning_cut: What is done when the tokens are spent without an end: the reasoning is
            closed and the answer read, or the member abstains.
        reasoning_kept: Characters of the reasoning that are kept in the vote, its end first.
        reasoning_temperature: 0 takes the likeliest token each time.
        template: Arguments for the model's chat template, such as ``enable_thinking``.
        request_timeout: Seconds after which an engine that says nothing is taken to be dead.
    """

    prompt: str = "active-roadwork"
    boxes: Literal["told", "drawn"] = "told"
    points: Literal["percent", "thousandths", "pixels"] | None = None
    system_turn: bool = True
    max_leak: Share = 0.5
    max_pixels: Pixels | None = None
    min_pixels: Pixels = 1024
    multiple: Annotated[int, Meta(ge=1, le=256)] = 32
    frames: Frames = 0
    sessions: Annotated[int, Meta(ge=1, le=4096)] = 64
    reasoning_tokens: Tokens = 0
    reasoning_end: Annotated[str, Meta(min_length=1, max_length=64)] = "</think>"
    reasoning_cut: Literal["close", "abstain"] = "close"
    reasoning_kept: Annotated[int, Meta(ge=0, le=20_000)] = 2000
    reasoning_temperature: Annotated[float, Meta(ge=0, le=2)] = 0.0
    template: dict[str, Any] = {}
    request_timeout: Seconds = 300.0

    def files(self) -> list[str]:
        """Return the prompt."""
        return [named_file("prompts", self.prompt)]

    def prompt_names(self) -> list[str]:
        """Return the prompt."""
        return [self.prompt]

    def mistakes(self) -> Iterator[tuple[str, str, str]]:
        """Yield what is wrong between them."""
        if self.boxes == "drawn" and "boxes" not in self.evidence:
            yield "evidence", "boxes, which are to be drawn", ", ".join(self.evidence) or "nothing"
        if self.points is not None and not self.reasoning_tokens:
            yield "reasoning_tokens", "a number above 0, as points are written first", "0"

    def given_tags(self) -> TagsGiven:
        """Return the tags that a member with them may give."""
        return {} if self.points is None else {"points": POINTS}
