"""Writes the report: one HTML page about a file of answers, which needs nothing but itself."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from roadstream.sinks.files.atomic import atomic_file
from roadstream.sinks.files.readers import read_answers
from roadstream.sinks.report.charts import Group, chart, spans
from roadstream.sinks.report.markup import cut, environment, percent
from roadstream.sinks.report.sheet import ContactSheet, LoadImage
from roadstream.sinks.report.summary import Summary, most_common

MOST_WAYS, MOST_TAGS = 12, 16
"""Rows of the tables of ways and of tags."""


class Tile(NamedTuple):
    """A total at the head of the page, and the CSS class of its colour."""

    value: str
    name: str
    style: str = ""


def _no_image(uri: str) -> None:
    """Show placeholders only."""


class ReportOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What a report cannot know from the answers.

    Attributes:
        load_image: Returns the upright RGB picture (uint8, height × width × 3) of a uri, or
            ``None`` when it cannot be shown; it must not raise. Called at most 72 times.
        images_per_second: Rate of the run, if known.
        made_at: Epoch seconds to be printed; nothing is when ``None``.
        title: Heading of the page.
    """

    load_image: LoadImage = _no_image
    images_per_second: float | None = None
    made_at: float | None = None
    title: str = "Roadwork report"


PLAIN = ReportOptions()


def write_report(answers_path: Path, out_path: Path, options: ReportOptions = PLAIN) -> None:
    """Write a page about a file of answers; it holds no script and refers to nothing outside.

    The answers are read once, in bounded memory. The page is at most about 4 MB: 72 pictures, with
    at most 32 boxes and 32 votes each. It appears whole or, on an error, not at all.

    Raises:
        UsageError: There is no file of answers, or the place to write to is wrong.
        RunError: The answers cannot be read.
        OutputError: The page cannot be written.
    """
    with atomic_file(out_path) as file:
        summary = Summary()
        for row in read_answers(answers_path):
            summary.add(row)
        file.write(_page(answers_path.name, summary, options).encode())


def _page(source: str, summary: Summary, options: ReportOptions) -> str:
    sheet = ContactSheet(options.load_image)
    tiers = [
        Group(name, f"g{place % 6}") for place, name in enumerate(summary.tiers(summary.exits))
    ]
    labels = [Group("none", "g-none"), Group("roadwork", "g-roadwork")]
    stages = summary.ordered_stages()
    context: dict[str, Any] = {
        "options": options,
        "summary": summary,
        "subtitle": _subtitle(source, summary, options),
        "tiles": _tiles(summary, options),
        "judged": summary.labels.total(),
        "failed": summary.statuses["failed"],
        "tiers": tiers,
        "probability": chart(summary.probability, labels),
        "confidence": chart(summary.confidence, tiers),
        "ways": most_common(summary.ways, MOST_WAYS),
        "tags": most_common(summary.tags, MOST_TAGS),
        "missing": summary.missing_most(),
        "stages": list(zip(stages, stages.values(), spans(stages.values()), strict=True)),
        "members": summary.ordered_members(),
        "roadwork": sheet.cards(summary.roadwork.rows()),
        "uncertain": sheet.cards(summary.uncertain.rows()),
        "failures": sheet.cards(summary.failures()),
        "pictures": sheet.pictures.values(),
    }
    return environment().get_template("report.html").render(context)


def _subtitle(source: str, summary: Summary, options: ReportOptions) -> list[str]:
    parts = [cut(source, 120)]
    parts += [f"cascade {cut(name, 60)}" for name in summary.cascades if name]
    parts += [f"threshold {each}" for each in summary.thresholds]
    if options.made_at is not None:
        parts.append(f"{datetime.fromtimestamp(options.made_at, UTC):%Y-%m-%d %H:%M} UTC")
    return parts[:6]


def _tiles(summary: Summary, options: ReportOptions) -> list[Tile]:
    total, judged = summary.answers, summary.labels.total()
    roadwork, partial = summary.labels["roadwork"], summary.statuses["partial"]
    failed, degraded = summary.statuses["failed"], summary.flags["degraded"]
    tiles = [
        Tile(f"{total:,}", "images"),
        Tile(f"{roadwork:,}", f"roadwork, {percent(roadwork, judged)}", "roadwork"),
        Tile(f"{judged - roadwork:,}", "none", "none"),
        Tile(f"{summary.statuses['answered']:,}", "answered in full"),
        Tile(f"{partial:,}", "partial", "partial" if partial else ""),
        Tile(f"{failed:,}", "failed", "failed" if failed else ""),
    ]
    if degraded:
        tiles.append(Tile(f"{degraded:,}", "degraded", "partial"))
    if options.images_per_second is not None:
        tiles.append(Tile(f"{options.images_per_second:,.3g}", "images per second"))
    return tiles
