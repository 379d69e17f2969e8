"""What is read on signs, as evidence for or against roadwork. Pure.

Texts are compared by their letters and digits alone: case, accents and punctuation do not count,
nor do blanks in longer texts, which readers drop and add. A text that ends a zone is looked for
first, and what it covers is not looked at again: "END ROAD WORK" holds "ROAD WORK" and means its
end.
"""

import unicodedata
from collections.abc import Sequence
from math import exp, log
from typing import NamedTuple

from roadstream.schemas.records.bounds import MOST_TAG
from roadstream.schemas.records.votes import Box
from roadstream.stages.inference import Abstained, Score

# A word boundary survives the removal of blanks as this: it is neither letter nor digit.
_BREAK = "\x00"
# Below so many letters, a text must be words of its own: "obras" is in "cobras", "detour" nowhere.
_LONG = 9
SIGNS = "signs"


class Region(NamedTuple):
    """A piece of text that was read.

    Attributes:
        text: As it was read.
        box: Where; ``None`` if that is not told.
    """

    text: str
    box: Box | None = None


class Sign(NamedTuple):
    """What a text means.

    Attributes:
        text: Letters and digits, words parted by one blank.
        counts_for: Whether it means roadwork, or its end.
    """

    text: str
    counts_for: bool


def letters(text: str) -> str:
    """Return the words of a text: letters and digits in lower case, accents off, blanks between."""
    # Styled letters (𝑨) have no case of their own, and some letters fold to composed ones.
    spelt = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold())
    bare = "".join(
        letter if letter.isalnum() else " " for letter in spelt if not unicodedata.combining(letter)
    )
    return " ".join(bare.split())


class SignRules:
    """Which texts count.

    Args:
        counting_for: Texts that mean roadwork.
        against: Texts that mean none, or its end.
        odds: Log-odds of roadwork where one was read beyond doubt.
    """

    def __init__(self, counting_for: Sequence[str], against: Sequence[str], odds: float) -> None:
        signs = [Sign(letters(text), counts_for=True) for text in counting_for]
        signs += [Sign(letters(text), counts_for=False) for text in against]
        # Longer texts first, so that what ends a zone covers what would begin it.
        self._signs = sorted((s for s in signs if s.text), key=lambda s: (-len(s.text), s.text))
        self._odds = odds

    def found(self, text: str) -> list[Sign]:
        """Return which texts it holds; each place counts for one of them alone."""
        left = letters(text)
        found: list[Sign] = []
        for sign in self._signs:
            kept = _without(left, sign.text)
            if kept != left:
                found.append(sign)
                left = kept
        return found

    def judge(self, regions: Sequence[Region], sureness: float) -> Score | Abstained:
        """Return what the texts in a picture say, with what counted as tags.

        The tag ``text`` is the text that counted, ``zone`` what it means: a zone that ``begins`` or
        ``ends``. Where nothing counted, the tag ``signs`` says why: ``none``, ``other`` or ``both``
        was read.

        Args:
            regions: In the order in which they were read; a sign's lines may be regions each.
            sureness: Probability that they were read right, in [0, 1].
        """
        text = " ".join(region.text.strip() for region in regions if region.text.strip())
        if not letters(text):
            return Abstained("no text was read", {SIGNS: "none"})
        found = self.found(text)
        sides = {sign.counts_for for sign in found}
        if not sides:
            return Abstained(f"read, but of no roadwork: {text}", {SIGNS: "other"})
        if len(sides) == 2:
            return Abstained(f"read both of roadwork and of its end: {text}", {SIGNS: "both"})
        begins = sides == {True}
        raw = read_odds(self._odds, sureness)
        boxes = [region.box for region in regions if region.box and _part_of(region.text, found)]
        # The first one is the longest, and so the most telling.
        tags = {
            "text": found[0].text.upper()[:MOST_TAG],
            "zone": "begins" if begins else "ends",
        }
        return Score(raw if begins else -raw, boxes, text, tags)


def read_odds(odds: float, sureness: float) -> float:
    """Return the log-odds of what a text says, if it was read right with that probability.

    A text that was read wrong says nothing: ``p = c·σ(odds) + (1 − c)/2``.
    """
    told = 1.0 / (1.0 + exp(-odds))
    p = min(1.0, max(0.0, sureness)) * (told - 0.5) + 0.5
    return log(p) - log(1.0 - p)


def _without(text: str, sign: str) -> str:
    """Return a text without the places that hold a sign's."""
    words = f" {text} ".replace(f" {sign} ", f" {_BREAK} ").strip()
    solid = sign.replace(" ", "")
    if words != text or len(solid) < _LONG:
        return words
    # Without blanks, as readers run words together; a break keeps what it parted apart.
    run = text.replace(" ", "")
    return run.replace(solid, _BREAK) if solid in run else text


def _part_of(text: str, found: Sequence[Sign]) -> bool:
    """Tell whether a region is one of the lines that a sign was read from, or holds it."""
    bare = letters(text).replace(" ", "")
    solid = [sign.text.replace(" ", "") for sign in found]
    return bool(bare) and any(bare in one or one in bare for one in solid)
