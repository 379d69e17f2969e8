"""Which outputs of a classifier mean roadwork, and what log-odds that makes."""

from collections.abc import Sequence
from difflib import SequenceMatcher
from typing import NamedTuple

from roadstream.schemas.settings.torch import TorchSettings
from roadstream.stages.inference import Score
from roadstream.workers.engines.torch.checkpoint import Checkpoint
from roadstream.workers.engines.torch.scoring import Floats, any_of, clipped, one_of

SHOWN = 12


class Verdict(NamedTuple):
    """How logits become a score.

    Attributes:
        columns: The classes that mean roadwork; empty where there is one output, which does.
        several: Whether classes do not exclude each other (sigmoid).
    """

    columns: list[int]
    several: bool

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
        if len(names) == 1:
            return cls([], several=True)
        columns = columns_of(checkpoint, settings.roadwork, names)
        if len(columns) == len(names) and not several:
            got = "all of them, so that the answer is always yes"
            raise checkpoint.problem("roadwork", f"some of {shown(names)}", got)
        return cls(columns, several)

    def scores(self, logits: Floats) -> list[Score]:
        """Return a score per row of logits [N, classes]."""
        if not self.columns:
            raws = clipped(logits[:, 0])
        else:
            raws = (any_of if self.several else one_of)(logits, self.columns)
        return [Score(raw, []) for raw in raws]


def columns_of(checkpoint: Checkpoint, wanted: Sequence[str], names: Sequence[str]) -> list[int]:
    """Return where the classes stand that mean roadwork, in the order of the checkpoint.

    Names are compared without regard to case; a number that is no name is a column.

    Raises:
        ConfigError: None are wanted, or one is not among the names.
    """
    if not wanted:
        raise checkpoint.problem("roadwork", f"some of {shown(names)}", "nothing")
    known = {name.casefold() for name in names}
    meant, columns = {one.casefold() for one in wanted}, set[int]()
    for one in wanted:
        if one.casefold() in known:
            continue
        if not (one.isdecimal() and int(one) < len(names)):
            alike = sorted(names, key=lambda name: _likeness(one, name), reverse=True)
            raise checkpoint.problem("roadwork", f"names among {shown(alike)}", repr(one))
        columns.add(int(one))
    return [i for i, name in enumerate(names) if name.casefold() in meant or i in columns]


def _likeness(one: str, other: str) -> float:
    a, b = one.casefold(), other.casefold()
    return SequenceMatcher(None, a, b).ratio() + (a in b or b in a)


def shown(names: Sequence[str]) -> str:
    """Return names for an error, not too many."""
    more = f", … ({len(names)} in all)" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
