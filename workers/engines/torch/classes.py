"""Which outputs of a classifier mean roadwork or a tag, and what is told of a picture by them."""

from collections.abc import Mapping, Sequence
from difflib import SequenceMatcher
from typing import NamedTuple

from roadstream.schemas.cascade.structure import joined
from roadstream.schemas.settings.torch import TorchSettings
from roadstream.stages.inference import EngineResult
from roadstream.workers.engines.torch.checkpoint import Checkpoint
from roadstream.workers.engines.torch.scoring import (
    Floats,
    any_of,
    clipped,
    likelihoods,
    one_of,
    shares,
)
from roadstream.workers.engines.torch.tagging import NO_TAGGING, Tagging

SHOWN = 12


class Verdict(NamedTuple):
    """How logits become findings.

    Attributes:
        columns: The classes that mean roadwork; empty where there is one output, which does;
            ``None`` where tags are all that is told.
        several: Whether classes do not exclude each other (sigmoid).
        tagging: What is told of the values of tags.
        values: The classes of each value of each tag.
    """

    columns: list[int] | None
    several: bool
    tagging: Tagging = NO_TAGGING
    values: Sequence[Sequence[Sequence[int]]] = ()

    @classmethod
    def of(
        cls, checkpoint: Checkpoint, settings: TorchSettings, names: Sequence[str], *, several: bool
    ) -> "Verdict":
        """Return that of a checkpoint with classes of these names.

        Raises:
            ConfigError: The settings name none of them, one that is not there, or all of them, or
                give another number of classes.
        """
        if settings.classes:
            if len(settings.classes) != len(names):
                raise checkpoint.problem(
                    "classes", f"{len(names)} names", f"{len(settings.classes)}"
                )
            names = settings.classes
        if settings.activation is not None:
            several = settings.activation == "sigmoid"
        several = several or len(names) == 1
        columns = _roadwork(checkpoint, settings, names, several=several)
        values = _values(checkpoint, settings.tags, names)
        return cls(columns, several, Tagging.of(settings), values)

    def scores(self, logits: Floats) -> Sequence[EngineResult]:
        """Return a finding per row of logits [N, classes]."""
        likely = likelihoods if self.several else shares
        told = [likely(logits, columns) for columns in self.values]
        return self.tagging.findings(told, self.raws(logits))

    def raws(self, logits: Floats) -> list[float] | None:
        """Return the log-odds of roadwork [N]; ``None`` where tags are all that is told."""
        if self.columns is None:
            return None
        if not self.columns:
            return clipped(logits[:, 0])
        return (any_of if self.several else one_of)(logits, self.columns)


def _roadwork(
    checkpoint: Checkpoint, settings: TorchSettings, names: Sequence[str], *, several: bool
) -> list[int] | None:
    if settings.tags and not settings.roadwork:
        return None
    if len(names) == 1:
        return []
    columns = columns_of(checkpoint, settings.roadwork, names)
    if len(columns) == len(names) and not several:
        got = "all of them, so that the answer is always yes"
        raise checkpoint.problem("roadwork", f"some of {shown(names)}", got)
    return columns


def _values(
    checkpoint: Checkpoint, tags: Mapping[str, Mapping[str, list[str]]], names: Sequence[str]
) -> list[list[list[int]]]:
    """Return the classes of each value of each tag.

    Raises:
        ConfigError: A class is not there, or stands for two values of a tag.
    """
    found = []
    for tag, values in tags.items():
        taken: dict[int, str] = {}
        columns = []
        for value, wanted in values.items():
            key = joined(joined("tags", tag), value)
            columns.append(columns_of(checkpoint, wanted, names, key))
            for column in columns[-1]:
                if (other := taken.setdefault(column, value)) != value:
                    got = f"{names[column]}, which means {other}"
                    raise checkpoint.problem(key, "classes that mean no other value", got)
        found.append(columns)
    return found


def columns_of(
    checkpoint: Checkpoint, wanted: Sequence[str], names: Sequence[str], key: str = "roadwork"
) -> list[int]:
    """Return where the classes stand that a setting names, in the order of the checkpoint.

    Names are compared without regard to case; a number that is no name is a column.

    Raises:
        ConfigError: None are wanted, or one is not among the names.
    """
    if not wanted:
        raise checkpoint.problem(key, f"some of {shown(names)}", "nothing")
    known = {name.casefold() for name in names}
    meant, columns = {one.casefold() for one in wanted}, set[int]()
    for one in wanted:
        if one.casefold() in known:
            continue
        if not (one.isdecimal() and int(one) < len(names)):
            alike = sorted(names, key=lambda name: _likeness(one, name), reverse=True)
            raise checkpoint.problem(key, f"names among {shown(alike)}", repr(one))
        columns.add(int(one))
    return [i for i, name in enumerate(names) if name.casefold() in meant or i in columns]


def _likeness(one: str, other: str) -> float:
    a, b = one.casefold(), other.casefold()
    return SequenceMatcher(None, a, b).ratio() + (a in b or b in a)


def shown(names: Sequence[str]) -> str:
    """Return names for an error, not too many."""
    more = f", … ({len(names)} in all)" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
