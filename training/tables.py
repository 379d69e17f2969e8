"""Markdown tables of figures, for the model card and the page on quality."""

from collections.abc import Iterable, Mapping, Sequence

from training.quality import Figures
from training.slices import Sight, Wrong

MEASURES = ("accuracy", "recall", "specificity", "mcc", "f1", "auc", "ece", "brier")


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Lay out a Markdown table; floats have three decimals, ``None`` stays empty."""
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    lines += [f"| {' | '.join(_cell(each) for each in row)} |" for row in rows]
    return "\n".join(lines)


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3f}".replace("-", "−")
    return "" if value is None else str(value).replace("|", "\\|")


def figures_table(name: str, parts: Mapping[str, Figures]) -> str:
    """Lay out figures, a row per part; measures that no part has are left out."""
    used = [key for key in MEASURES if any(getattr(p, key) is not None for p in parts.values())]
    rows = [
        [key, part.pictures, part.scenes, part.roadwork, *(getattr(part, m) for m in used)]
        for key, part in parts.items()
    ]
    return table([name, "pictures", "scenes", "roadwork", *used], rows)


def sights_table(found: Mapping[str, Sight]) -> str:
    """Lay out how often roadwork with a kind of object is found, most pictures first."""
    rows = [
        [kind, each.pictures, each.scenes, each.recall, each.alone, each.alone_recall]
        for kind, each in sorted(found.items(), key=lambda item: -item[1].pictures)
    ]
    head = ("object", "pictures", "scenes", "found", "pictures with no other kind", "found of them")
    return table(head, rows)


def wrong_table(name: str, found: Sequence[Wrong], most: int | None = None) -> str:
    """Lay out what goes wrong: how many of how many, in how many scenes."""
    rows = [[w.name, w.wrong, w.pictures, w.share, w.scenes] for w in found[:most]]
    return table((name, "wrong", "of pictures", "share", "of scenes"), rows)


def interval(value: float | None, bounds: tuple[float, float] | None) -> str | None:
    """Return a figure with its 95 % interval: ``0.689 (0.54–0.82)``."""
    if value is None or bounds is None:
        return _cell(value)
    low, high = (f"{bound:.2f}".replace("-", "−") for bound in bounds)
    return f"{_cell(value)} ({low}–{high})"
