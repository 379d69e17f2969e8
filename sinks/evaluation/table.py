"""Prints an evaluation as tables that fit 80 columns, on a terminal and in a file."""

from collections.abc import Iterable

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from roadstream.sinks.evaluation.label_join import Counts
from roadstream.sinks.evaluation.measure import Evaluation
from roadstream.sinks.evaluation.metrics import Confusion, Scores
from roadstream.sinks.evaluation.reward import Reward

Cell = str | float | None
"""A text as it is, a rate, or a dash."""


def render(evaluation: Evaluation) -> Group:
    """Return the counts, scores, confusion, tiers, members and reward, to be printed by rich."""
    parts: list[RenderableType] = [
        _counts(evaluation.counts),
        _overall(evaluation.overall),
        _confusion(evaluation.overall.confusion),
    ]
    if evaluation.tiers:
        parts.append(_tiers(evaluation))
    if evaluation.members:
        parts.append(_members(evaluation))
    parts.append(_reward(evaluation.reward))
    return Group(*(piece for part in parts for piece in (part, Text())))


def _counts(counts: Counts) -> Text:
    text = Text()
    text.append(f"{counts.judged:,}", style="bold")
    text.append(f" of {counts.answers:,} answers have a label and a probability.")
    left_out = (
        (counts.failed, "labelled failed"),
        (counts.left_open, "with an open label (-1 or empty)"),
        (counts.without_label, "without a label"),
    )
    named = [f"{number:,} {what}" for number, what in left_out if number]
    if named:
        text.append(f"\nLeft out: {', '.join(named)}.")
    if counts.failed_in_all:
        text.append(f"\nFailed in the whole file: {counts.failed_in_all:,}.", style="yellow")
    if counts.labels_without_answer:
        lines = f"{counts.labels_without_answer:,} of {counts.labels:,}"
        text.append(f"\nLabels without an answer: {lines}.")
    return text


def _overall(scores: Scores) -> Table:
    values = {
        "MCC": scores.mcc,
        "F1": scores.f1,
        "precision": scores.precision,
        "recall": scores.recall,
        "accuracy": scores.accuracy,
        "AUC": scores.auc,
        "ECE": scores.ece,
        "Brier": scores.brier,
    }
    return _table("Overall", [], values, [values.values()])


def _confusion(confusion: Confusion) -> Table:
    rows = (
        ("is roadwork", f"{confusion.true_positive:,}", f"{confusion.false_negative:,}"),
        ("is none", f"{confusion.false_positive:,}", f"{confusion.true_negative:,}"),
    )
    return _table("Confusion", [""], ["called roadwork", "called none"], rows)


def _tiers(evaluation: Evaluation) -> Table:
    rows = (
        (tier.tier, f"{tier.exits:,}", f"{tier.share:.1%}", *_decided(tier.scores), tier.scores.ece)
        for tier in evaluation.tiers
    )
    numbers = ("left", "share", "judged", "MCC", "F1", "accuracy", "ECE")
    return _table("By exit tier", ["tier"], numbers, rows)


def _members(evaluation: Evaluation) -> Table:
    rows = (
        (
            member.tier,
            f"{member.member} (shadow)" if member.shadow else member.member,
            *_decided(member.scores),
            member.scores.auc,
            member.scores.ece,
        )
        for member in evaluation.members
    )
    numbers = ("votes", "MCC", "F1", "accuracy", "AUC", "ECE")
    return _table("By member, its own vote from 0.5", ["tier", "member"], numbers, rows)


def _reward(reward: Reward) -> Table:
    title = "Subnet 72 reward for these answers, in row order"
    numbers = ("challenges", "silent", "mean reward", "last reward", "final score")
    counts = (f"{reward.challenges:,}", f"{reward.silent:,}")
    return _table(title, [], numbers, [(*counts, reward.mean, reward.last, reward.score)])


def _table(
    title: str, names: Iterable[str], numbers: Iterable[str], rows: Iterable[Iterable[Cell]]
) -> Table:
    """Return a table with columns of names, and then of numbers."""
    table = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        show_edge=False,
        padding=(0, 1),
    )
    for name in names:
        table.add_column(name, overflow="fold")
    for name in numbers:
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*(Text(cell if isinstance(cell, str) else _rate(cell)) for cell in row))
    return table


def _rate(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _decided(scores: Scores) -> tuple[Cell, ...]:
    """Return the number of images, and what is only to be said of some."""
    measured = (scores.mcc, scores.f1, scores.accuracy) if scores.images else (None,) * 3
    return f"{scores.images:,}", *measured
