"""Writes the report: one HTML page about a file of answers, which needs nothing but itself."""

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from string import Template
from typing import NamedTuple

import msgspec

from roadstream.sinks.columns import AnswerRow
from roadstream.sinks.files.atomic import atomic_file
from roadstream.sinks.files.readers import read_answers
from roadstream.sinks.report.cards import LoadImage, Sheet
from roadstream.sinks.report.charts import histogram, scale, span
from roadstream.sinks.report.markup import Html, escape, join, percent, seconds
from roadstream.sinks.report.summary import Member, Stage, Summary


class Section(NamedTuple):
    """A part of the page, and the link to it."""

    link: Html
    page: Html


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
    template = Template(
        resources.files("roadstream.sinks.report").joinpath("report.html").read_text("utf-8")
    )
    sheet = Sheet(options.load_image)
    sections = [
        _overview(summary),
        _latency(summary),
        _members(summary),
        _pictures("roadwork", "Most confident roadwork", summary, sheet),
        _pictures("uncertain", "Least certain", summary, sheet),
        _failures(summary, sheet),
    ]
    shown = [section for section in sections if section is not None]
    return template.substitute(
        title=escape(options.title, 120),
        subtitle=_subtitle(source, summary, options),
        tiles=_tiles(summary, options),
        links=join([section.link for section in shown]),
        sections=join([section.page for section in shown]),
        panels=sheet.panels(),
    )


def _subtitle(source: str, summary: Summary, options: ReportOptions) -> Html:
    parts = [escape(source, 120)]
    parts += [Html(f"cascade {escape(name, 60)}") for name in summary.cascades if name]
    parts += [Html(f"threshold {escape(each)}") for each in summary.thresholds]
    if options.made_at is not None:
        made = datetime.fromtimestamp(options.made_at, UTC)
        parts.append(escape(f"{made:%Y-%m-%d %H:%M} UTC"))
    return Html(" · ".join(parts[:6]))


def _tiles(summary: Summary, options: ReportOptions) -> Html:
    total, judged = summary.answers, sum(summary.labels.values())
    roadwork, partial = summary.labels["roadwork"], summary.statuses["partial"]
    failed, degraded = summary.statuses["failed"], summary.flags["degraded"]
    tiles = [
        _tile(f"{total:,}", "images"),
        _tile(f"{roadwork:,}", f"roadwork, {percent(roadwork, judged)}", "roadwork"),
        _tile(f"{judged - roadwork:,}", "none", "none"),
        _tile(f"{summary.statuses['answered']:,}", "answered in full"),
        _tile(f"{partial:,}", "partial", "partial" if partial else ""),
        _tile(f"{failed:,}", "failed", "failed" if failed else ""),
    ]
    if degraded:
        tiles.append(_tile(f"{degraded:,}", "degraded", "partial"))
    if options.images_per_second is not None:
        tiles.append(_tile(f"{options.images_per_second:,.3g}", "images per second"))
    return join(tiles)


def _tile(value: str, name: str, style: str = "") -> Html:
    return Html(f'<li class="tile {style}"><b>{value}</b><span>{escape(name)}</span></li>')


def _section(name: str, title: str, body: Html, note: str = "") -> Section:
    small = f'<p class="quiet">{escape(note)}</p>' if note else ""
    page = f'<section id="{name}"><h2>{escape(title)}</h2>{small}{body}</section>'
    return Section(Html(f'<a href="#{name}">{escape(title)}</a>'), Html(page))


def _overview(summary: Summary) -> Section:
    tiers = summary.tiers(summary.exits)
    labels = [("none", "g-none"), ("roadwork", "g-roadwork")]
    groups = [(tier, f"g{place % 6}") for place, tier in enumerate(tiers)]
    body = [
        Html(
            f'<div class="box-card wide"><h3>Where images left</h3>{_exits(summary, tiers)}</div>'
        ),
        Html('<div class="box-card"><h3>Probability of roadwork</h3>'),
        histogram(summary.probability, labels, "Images by probability of roadwork, by label"),
        Html('</div><div class="box-card"><h3>Confidence of the answer</h3>'),
        histogram(summary.confidence, groups, "Images by confidence, by the tier they left at"),
        Html("</div>"),
    ]
    return _section("overview", "Answers", Html(f'<div class="grid">{join(body)}</div>'))


def _exits(summary: Summary, tiers: Sequence[str]) -> Html:
    judged = sum(summary.labels.values())
    lines = []
    for place, tier in enumerate(tiers):
        counts = summary.exits[tier]
        left = sum(counts.values())
        share = left / judged if judged else 0.0
        lines.append(
            f"<tr><td>{escape(tier, 40)}</td>"
            f'<td class="bar"><span class="g{place % 6}" style="width:{share:.2%}"></span></td>'
            f'<td class="n">{left:,}</td><td class="n">{percent(left, judged)}</td>'
            f'<td class="n">{percent(counts["roadwork"], left)}</td></tr>'
        )
    return _table(("Tier", "~", "#Images", "#Share", "#Roadwork"), lines)


def _table(heads: Iterable[str], lines: Sequence[str]) -> Html:
    """Return a table; heads of columns of numbers start with #, those of bars with ~."""
    styles = {"#": "n", "~": "bar"}
    cells = "".join(
        f'<th class="{styles.get(head[:1], "")}">{head.lstrip("#~")}</th>' for head in heads
    )
    if not lines:
        return Html('<p class="quiet">None.</p>')
    return Html(
        f'<div class="scroll"><table><thead><tr>{cells}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def _latency(summary: Summary) -> Section:
    tiers = summary.tiers(summary.depth)
    order = [Stage("", "total")]
    order += [Stage(tier, name) for tier in tiers for name in ("queued", "decoding", "inferring")]
    order.append(Stage("", "joining"))
    stages = [stage for stage in order if stage in summary.stages]
    limits = scale([summary.stages[stage] for stage in stages])
    lines = []
    for stage in stages:
        times = summary.stages[stage]
        marks = [seconds(times.percentile(share)) for share in (0.5, 0.9, 0.99)]
        cells = "".join(f'<td class="n">{mark}</td>' for mark in marks)
        lines.append(
            f"<tr><td>{escape(stage.tier or 'overall', 40)}</td><td>{stage.name}</td>"
            f'<td class="bar">{span(times, limits)}</td>{cells}'
            f'<td class="n">{times.count:,}</td></tr>'
        )
    heads = ("Tier", "Stage", "~p50 to p90 to p99", "#p50", "#p90", "#p99", "#Images")
    note = "Percentiles are right within 1 %; bars are on a logarithmic scale."
    return _section("latency", "Where time went", _boxed(_table(heads, lines)), note)


def _boxed(body: Html) -> Html:
    return Html(f'<div class="box-card">{body}</div>')


def _members(summary: Summary) -> Section | None:
    if not summary.members:
        return None
    tiers = {tier: n for n, tier in enumerate(summary.tiers(summary.depth))}
    members = sorted(summary.members.values(), key=lambda m: (tiers.get(m.tier, 99), m.shadow))
    lines = [_member(member) for member in members]
    heads = ("Tier", "Member", "#Votes", "#Says roadwork", "#With the answer", "#p50", "#p99")
    note = "A vote says roadwork from 0.5; latencies are those of whole batches."
    missing = "".join(
        f"<li>{escape(name, 60)} was missing from {count:,} answers</li>"
        for name, count in summary.missing.most_common(10)
    )
    body = Html(f'{_table(heads, lines)}<ul class="plain">{missing}</ul>')
    return _section("members", "Members", _boxed(body), note)


def _member(member: Member) -> str:
    notes = [("shadow", member.shadow), ("not calibrated", not member.calibrated)]
    small = ", ".join(note for note, holds in notes if holds)
    return (
        f"<tr><td>{escape(member.tier, 40)}</td><td>{escape(member.name, 60)} "
        f'<small>{small}</small></td><td class="n">{member.votes:,}</td>'
        f'<td class="n">{percent(member.roadwork, member.votes)}</td>'
        f'<td class="n">{percent(member.agreeing, member.votes)}</td>'
        f'<td class="n">{seconds(member.inference.percentile(0.5))}</td>'
        f'<td class="n">{seconds(member.inference.percentile(0.99))}</td></tr>'
    )


def _pictures(name: str, title: str, summary: Summary, sheet: Sheet) -> Section:
    roadwork = name == "roadwork"
    rows = (summary.roadwork if roadwork else summary.uncertain).rows()
    whole = summary.labels["roadwork"] if roadwork else sum(summary.labels.values())
    note = f"{len(rows)} of {whole:,} images; open one for the votes behind it."
    return _section(name, title, _cards(rows, sheet), note)


def _cards(rows: Sequence[AnswerRow], sheet: Sheet) -> Html:
    if not rows:
        return Html('<p class="quiet">None.</p>')
    return Html(f'<ul class="cards">{join([sheet.card(row) for row in rows])}</ul>')


def _failures(summary: Summary, sheet: Sheet) -> Section | None:
    failed = summary.statuses["failed"]
    if not failed:
        return None
    rows = summary.failures()
    note = f"{len(rows)} of {failed:,} failed images, of each kind in turn."
    return _section(
        "failures", "Failures", join([_faults(summary.faults), _cards(rows, sheet)]), note
    )


def _faults(faults: Counter[str]) -> Html:
    items = [
        f"<li><b>{count:,}</b> {escape(fault.replace('_', ' '), 40)}</li>"
        for fault, count in faults.most_common()
    ]
    return Html(f'<ul class="faults">{"".join(items)}</ul>')
