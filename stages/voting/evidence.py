"""What an image's earlier tiers found in it, gathered for the tiers behind them. Pure.

It is bounded whatever members say, and whatever another client of the log writes: boxes are cut to
the picture, those that lie outside of it are left out, and of boxes and texts only so many are kept
as ``Evidence`` says. What is empty costs next to nothing.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from operator import attrgetter
from typing import TypeVar

from roadstream.schemas.records.votes import (
    LONGEST_TEXT,
    MOST_BOXES,
    MOST_TEXTS,
    NO_EVIDENCE,
    NO_TAGS,
    Box,
    Evidence,
    ImageVotes,
    MemberRun,
    PriorVote,
    merged_tags,
)
from roadstream.stages.voting.vote import disagreement

T = TypeVar("T")


def evidence_after(
    earlier: Evidence,
    said: ImageVotes,
    runs: Sequence[MemberRun],
    votes: Sequence[PriorVote],
    lowered: Mapping[Box, Box] | None = None,
) -> Evidence:
    """Return what is known of an image after a tier. What shadow members say is not.

    Args:
        earlier: What was known before.
        said: The tier's votes.
        runs: The member runs that they refer to.
        votes: All votes so far that count.
        lowered: Boxes whose confidence rules of the tier changed, with what they became.
    """
    spread = _disagreement(votes)
    boxes, texts, tags = earlier.boxes, earlier.texts, earlier.tags
    if said.boxes is not None or said.fused or lowered:
        found = [*_boxes(said, runs), *boxes]
        boxes = strongest([lowered.get(box, box) for box in found] if lowered else found)
    if said.texts is not None:
        texts = bounded_texts(_counting(runs, said.texts), texts)
    if said.tags is not None or said.given is not None:
        given = [given for _, given in _counting(runs, said.tags or ())]
        tags = merged_tags(tags, [said.given or NO_TAGS, *given])
    if not (boxes or texts or tags or spread):
        return NO_EVIDENCE
    return Evidence(boxes, tags, texts, spread)


def revised(votes: list[PriorVote], probabilities: Mapping[str, float] | None) -> list[PriorVote]:
    """Return votes with the probabilities that a rule gave some members instead of their own."""
    if not probabilities:
        return votes
    return [
        PriorVote(vote.member, vote.weight, probabilities.get(vote.member, vote.probability))
        for vote in votes
    ]


def checked(evidence: Evidence) -> Evidence:
    """Return evidence as a record brings it within its bounds; mostly the same object."""
    if evidence is NO_EVIDENCE:
        return evidence
    boxes, texts = evidence.boxes, evidence.texts
    if boxes and (len(boxes) > MOST_BOXES or not all(map(_inside, boxes))):
        boxes = strongest(boxes)
    if len(texts) > MOST_TEXTS or any(len(text) > LONGEST_TEXT for text in texts.values()):
        texts = bounded_texts(texts.items(), {})
    if boxes is evidence.boxes and texts is evidence.texts:
        return evidence
    return Evidence(boxes, evidence.tags, texts, evidence.disagreement)


def _boxes(said: ImageVotes, runs: Sequence[MemberRun]) -> Iterable[Box]:
    """Yield the boxes that a tier's members agreed on, or else those of each."""
    if said.fused is not None:
        yield from said.fused
        return
    for _, boxes in _counting(runs, said.boxes or ()):
        yield from boxes


def _counting(runs: Sequence[MemberRun], given: Sequence[T]) -> Iterable[tuple[str, T]]:
    """Yield name and what was given of the members that count."""
    for run, one in zip(runs, given, strict=False):
        if run.weight > 0:
            yield run.member, one


def strongest(boxes: Iterable[Box]) -> list[Box]:
    """Return the most confident boxes, at most ``MOST_BOXES``, cut to the picture."""
    inside = filter(_inside, map(_cut, sorted(boxes, key=attrgetter("confidence"), reverse=True)))
    return list(islice(inside, MOST_BOXES))


def _inside(box: Box) -> bool:
    """Return whether a box lies in the picture and has an area."""
    return 0.0 <= box.x1 < box.x2 <= 1.0 and 0.0 <= box.y1 < box.y2 <= 1.0


def _cut(box: Box) -> Box:
    """Return a box cut to the picture, its corners put right where they are swapped."""
    if _inside(box):
        return box
    x1, x2 = sorted(min(max(x, 0.0), 1.0) for x in (box.x1, box.x2))
    y1, y2 = sorted(min(max(y, 0.0), 1.0) for y in (box.y1, box.y2))
    return Box(x1, y1, x2, y2, box.confidence, box.label)


def bounded_texts(latest: Iterable[tuple[str, str]], earlier: Mapping[str, str]) -> dict[str, str]:
    """Return texts by member, the latest first: at most ``MOST_TEXTS``, each cut."""
    found = {name: text[:LONGEST_TEXT] for name, text in latest if text}
    for name, text in earlier.items():
        found.setdefault(name, text[:LONGEST_TEXT])
    return dict(islice(found.items(), MOST_TEXTS))


def _disagreement(votes: Sequence[PriorVote]) -> float:
    """Return the disagreement of votes; of those that are all the same it is not worked out."""
    for vote in votes:
        if vote.probability != votes[0].probability:
            ps = [vote.probability for vote in votes]
            return disagreement(ps, [vote.weight for vote in votes])
    return 0.0
