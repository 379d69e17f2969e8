"""Prints an evaluation as tables that fit 80 columns, on a terminal and in a file."""

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from roadstream.sinks.evaluation.label_join import Counts
from roadstream.sinks.evaluation.measure import Evaluation
from roadstream.sinks.evaluation.metrics import Confusion, Scores
from roadstream.sinks.evaluation.reward import Reward


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
    names = ("MCC", "F1", "precision", "recall", "accuracy", "AUC", "ECE", "Brier")
    values = (
        *(scores.mcc, scores.f1, scores.precision, scores.recall),
        *(scores.accuracy, scores.auc, scores.ece, scores.brier),
    )
    table = _table("Overall")
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    table.add_row(*(_rate(value) for value in values))
    return table


def _confusion(confusion: Confusion) -> Table:
    table = _table("Confusion")
    table.add_column("")
    table.add_column("called roadwork", justify="right")
    table.add_column("called none", justify="right")
    table.add_row("is roadwork", f"{confusion.true_positive:,}", f"{confusion.false_negative:,}")
    table.add_row("is none", f"{confusion.false_positive:,}", f"{confusion.true_negative:,}")
    return table


def _tiers(evaluation: Evaluation) -> Table:
    table = _table("By exit tier")
    table.add_column("tier", overflow="fold")
    for name in ("left", "share", "judged", "MCC", "F1", "accuracy", "ECE"):
        table.add_column(name, justify="right", no_wrap=True)
    for tier in evaluation.tiers:
        scores = tier.scores
        table.add_row(
            Text(tier.tier),
            f"{tier.exits:,}",
            f"{tier.share:.1%}",
            f"{scores.images:,}",
            *(_if_any(scores, value) for value in (scores.mcc, scores.f1, scores.accuracy)),
            _rate(scores.ece),
        )
    return table


def _members(evaluation: Evaluation) -> Table:
    table = _table("By member, its own vote from 0.5")
    table.add_column("tier", overflow="fold")
    table.add_column("member", overflow="fold")
    for name in ("votes", "MCC", "F1", "accuracy", "AUC", "ECE"):
        table.add_column(name, justify="right", no_wrap=True)
    for member in evaluation.members:
        scores = member.scores
        table.add_row(
            Text(member.tier),
            Text(f"{member.member} (shadow)" if member.shadow else member.member),
            f"{scores.images:,}",
            *(_if_any(scores, value) for value in (scores.mcc, scores.f1, scores.accuracy)),
            _rate(scores.auc),
            _rate(scores.ece),
        )
    return table


def _reward(reward: Reward) -> Table:
    table = _table("Subnet 72 reward for these answers, in row order")
    for name in ("challenges", "silent", "mean reward", "last reward", "final score"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_row(
        f"{reward.challenges:,}",
        f"{reward.silent:,}",
        _rate(reward.mean),
        _rate(reward.last),
        _rate(reward.score),
    )
    return table


def _table(title: str) -> Table:
    return Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        show_edge=False,
        padding=(0, 1),
    )


def _rate(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _if_any(scores: Scores, value: float) -> str:
    return _rate(value if scores.images else None)
