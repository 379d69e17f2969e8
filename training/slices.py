"""Judged pictures by source, condition, tier and object, and the kinds of them that go wrong."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

import msgspec

from training.judged import Judged
from training.quality import Figures, figures

Names = Callable[[Judged], Iterable[str]]

NO_BOX = "nothing boxed"
# Said of almost every picture: they tell no kind of picture from another.
USUAL = frozenset({"day", "dashcam", "photo", "416x416 stretched", "640x640 stretched"})


class Sight(msgspec.Struct, frozen=True, kw_only=True):
    """How often roadwork with a kind of object is found; ``alone``: with no other kind boxed."""

    pictures: int
    scenes: int
    recall: float
    alone: int
    alone_recall: float | None


class Wrong(msgspec.Struct, frozen=True, kw_only=True):
    """A kind of picture that goes wrong: ``wrong`` of ``pictures`` in so many scenes."""

    name: str
    wrong: int
    pictures: int
    scenes: int

    @property
    def share(self) -> float:
        """Share that is called what it is not, in [0, 1]."""
        return self.wrong / self.pictures


def sources(one: Judged) -> Iterable[str]:
    """Name the source of a picture, for ``slices``."""
    return (one.repo,)


def families(one: Judged) -> Iterable[str]:
    """Name the source family of a picture, for ``slices``."""
    return (one.family,)


def conditions(one: Judged) -> Iterable[str]:
    """Name the conditions of a picture, for ``slices``."""
    return one.conditions


def tiers(one: Judged) -> Iterable[str]:
    """Name the tier where a picture left, for ``slices``."""
    return (one.tier,)


def kinds(one: Judged) -> Iterable[str]:
    """Name the kinds of objects boxed in a picture with roadwork, for ``slices``."""
    return (one.kinds or (NO_BOX,)) if one.label else ()


def slices(judged: Sequence[Judged], names: Names, least: int = 1) -> dict[str, list[Judged]]:
    """Return the pictures of each name that at least ``least`` have, by name."""
    held: dict[str, list[Judged]] = defaultdict(list)
    for one in judged:
        for name in names(one):
            held[name].append(one)
    return {name: held[name] for name in sorted(held) if len(held[name]) >= least}


def by(
    judged: Sequence[Judged], names: Names, threshold: float = 0.5, least: int = 1
) -> dict[str, Figures]:
    """Measure each slice of the pictures, every picture weighing the same."""
    held = slices(judged, names, least)
    return {name: figures(part, threshold=threshold) for name, part in held.items()}


def sights(judged: Sequence[Judged], threshold: float = 0.5) -> dict[str, Sight]:
    """Return per kind of object how much of the roadwork that shows it is found."""
    return {kind: _sight(kind, part, threshold) for kind, part in slices(judged, kinds).items()}


def _sight(kind: str, part: Sequence[Judged], threshold: float) -> Sight:
    found = [one.probability >= threshold for one in part]
    alone = [hit for hit, one in zip(found, part, strict=True) if not one.kinds - {kind}]
    return Sight(
        pictures=len(part),
        scenes=len({one.group for one in part}),
        recall=sum(found) / len(found),
        alone=len(alone),
        alone_recall=sum(alone) / len(alone) if alone else None,
    )


def is_wrong(one: Judged, threshold: float = 0.5) -> bool:
    """Say whether a picture is called what it is not."""
    return (one.probability >= threshold) != (one.label == 1)


def blind_spots(
    judged: Sequence[Judged], label: int, threshold: float = 0.5, least: int = 3
) -> list[Wrong]:
    """Return kinds of objects, conditions and sources in which pictures of one label go wrong.

    Slices overlap; those of fewer than ``least`` pictures, and without an error, are left out.
    The largest share of errors comes first.
    """
    part = [one for one in judged if one.label == label]
    found = [_wrong(name, held, threshold) for name, held in slices(part, _traits, least).items()]
    return sorted((each for each in found if each.wrong), key=lambda w: (-w.share, -w.wrong))


def _traits(one: Judged) -> Iterable[str]:
    yield f"source {one.repo}"
    yield from (f"condition {name}" for name in one.conditions)
    yield from (f"object {name}" for name in kinds(one))


def worst(judged: Sequence[Judged], threshold: float = 0.5, count: int = 10) -> list[Wrong]:
    """Return the kinds of pictures that hold most of the errors, most first.

    A kind is a source with what is to be seen: the objects boxed in roadwork, the conditions of an
    ordinary road. Kinds do not overlap, so the counts add up.
    """
    found = [_wrong(name, part, threshold) for name, part in slices(judged, _cell).items()]
    found = [each for each in found if each.wrong]
    return sorted(found, key=lambda each: (-each.wrong, -each.share))[:count]


def _cell(one: Judged) -> Iterable[str]:
    if one.label:
        yield f"missed: {', '.join(sorted(kinds(one)))} ({one.repo})"
    else:
        seen = sorted(set(one.conditions) - USUAL) or ["ordinary road"]
        yield f"false alarm: {', '.join(seen)} ({one.repo})"


def _wrong(name: str, part: Sequence[Judged], threshold: float) -> Wrong:
    return Wrong(
        name=name,
        wrong=sum(is_wrong(one, threshold) for one in part),
        pictures=len(part),
        scenes=len({one.group for one in part}),
    )
