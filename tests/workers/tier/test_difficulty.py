"""The first tier says how hard an image is, and routes go by it."""

from collections.abc import Sequence

import numpy as np
from msgspec.structs import replace

from roadstream.schemas.cascade.model import Cascade
from roadstream.schemas.cascade.routes import Route
from roadstream.schemas.cascade.rules import Difficulty
from roadstream.schemas.records.image import Inline
from roadstream.schemas.records.votes import Box, ImageVotes
from roadstream.stages.decoding.decode import encode_jpeg
from roadstream.stages.inference import Abstained, Engine, EngineResult, Pictures, Score
from roadstream.workers.tier.judge import Judge
from tests.kits.builders import cascade, member, tier
from tests.kits.tier_bench import judged
from tests.workers.tier.test_judge import items

EASY = Route(to="exit", tags_any=["difficulty=1", "difficulty=2"])
BOXES = [Box(0.1 * n, 0.0, 0.1 * n + 0.05, 0.5, 0.5, "cone") for n in range(9)]
CALM, TORN = Score(-3.0, []), Score(3.0, BOXES)
ROAD = np.tile(np.linspace(20, 235, 96).astype(np.uint8)[None, :, None], (64, 1, 3))
CLUTTER = np.random.default_rng(1).integers(0, 60, (64, 96, 3), np.uint8)


class Sayer(Engine):
    """Says the same of every picture."""

    def __init__(self, says: EngineResult, needs_pixels: bool, only_at_size: bool) -> None:
        self._says, self.needs_pixels, self.only_at_size = says, needs_pixels, only_at_size

    def load(self) -> None:
        """Nothing to load."""

    def infer(self, batch: Pictures) -> Sequence[EngineResult]:
        return [self._says] * len(batch)

    def close(self) -> None:
        """Nothing to give back."""


def chosen(rule: Difficulty | None = None) -> Cascade:
    first = tier("one", member("a"), member("b"), routes=[EASY])
    return replace(cascade(first, tier("two")), rules=[rule or Difficulty()])


def said(
    a: EngineResult,
    b: EngineResult,
    *,
    pixels: np.ndarray = ROAD,
    rule: Difficulty | None = None,
    needs_pixels: bool = True,
    only_at_size: bool = False,
) -> ImageVotes:
    """Return the first tier's votes on a picture."""
    engines: dict[str, Engine] = {
        name: Sayer(says, needs_pixels, only_at_size) for name, says in (("a", a), ("b", b))
    }
    payload = Inline(encode_jpeg(pixels, quality=100))
    return judged(Judge(chosen(rule), "one", engines), items(payload)).votes[0]


def test_an_easy_image_leaves_and_a_hard_one_goes_on() -> None:
    easy, hard = said(CALM, CALM), said(CALM, TORN, pixels=CLUTTER)

    assert easy.given == {"difficulty": "1"}
    assert (easy.next_tier, easy.reason) == (
        None, "any of the tags difficulty=1, difficulty=2",
    )  # fmt: skip
    assert hard.given in ({"difficulty": "4"}, {"difficulty": "5"})
    assert hard.next_tier == "two"


def test_the_tier_that_keeps_only_the_members_sizes_measures_these() -> None:
    only_pixels = Difficulty(bounds=(0.1, 0.2, 0.3, 0.4), weights={"variance": 0, "objects": 0})

    votes = said(CALM, CALM, pixels=CLUTTER, rule=only_pixels, only_at_size=True)

    assert votes.given is not None
    assert votes.given["difficulty"] > "1"


def test_without_pixels_the_members_alone_decide() -> None:
    found = [said(CALM, CALM, pixels=one, needs_pixels=False).given for one in (ROAD, CLUTTER)]

    assert found == [{"difficulty": "1"}] * 2


def test_the_weather_that_a_member_tells_makes_an_image_harder() -> None:
    weather = Difficulty(weights={"weather": 1000.0})

    in_fog = said(CALM, Abstained("", {"weather": "fog"}), rule=weather)

    assert in_fog.given == {"difficulty": "5"}


def test_a_rule_that_is_switched_off_says_nothing() -> None:
    votes = said(CALM, TORN, rule=Difficulty(enabled=False))

    assert votes.given is None
    assert votes.next_tier == "two"
