"""The contact sheet of a report: a card per picture, and a panel with the votes behind it."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from roadstream.sinks.columns import AnswerRow, BoxRow, VoteRow
from roadstream.sinks.report.markup import Html, escape, join, number, seconds
from roadstream.sinks.report.summary import fault_of
from roadstream.sinks.report.thumbnails import thumbnail

LoadImage = Callable[[str], NDArray[np.uint8] | None]
"""Returns the upright RGB picture of a uri, or ``None`` when it cannot be shown; never raises."""

MOST_BOXES = 32
"""Boxes drawn on a picture, the most confident ones."""
MOST_VOTES = 32
MOST_TEXT = 400
"""Votes listed for a picture."""
BLANK = (320, 180)
"""Size of the placeholder for a picture that cannot be shown."""


class Sheet:
    """Makes cards and their panels; a picture that is on two sheets is embedded once."""

    def __init__(self, load_image: LoadImage) -> None:
        self._load_image = load_image
        self._known: dict[str, tuple[int, tuple[int, int]]] = {}
        self._panels: list[Html] = []

    def card(self, row: AnswerRow) -> Html:
        """Return the card of an answer: its picture with boxes, verdict and name."""
        known = self._known.get(row["image_id"])
        place, size = known or (len(self._known), BLANK)
        drawing = Html(f'<use href="#p{place}"/>')
        if known is None:
            drawing, size = self._drawing(row, place)
            self._known[row["image_id"]] = (place, size)
            self._panels.append(_panel(row, place, size))
        return Html(
            f'<li><button type="button" class="card" popovertarget="v{place}">'
            f"{_frame(drawing, size, _name(row))}"
            f'<span class="verdict">{_verdict(row)}</span>'
            f'<span class="uri">{_short_name(row)}</span>{_reason(row)}'
            "</button></li>"
        )

    def panels(self) -> Html:
        """Return the panels of all cards made so far."""
        return join(self._panels)

    def _drawing(self, row: AnswerRow, place: int) -> tuple[Html, tuple[int, int]]:
        pixels = self._load_image(row["uri"])
        if pixels is None or not pixels.size:
            return _placeholder(row, place), BLANK
        small = thumbnail(pixels)
        size = small.width, small.height
        image = f'<image href="{small.uri}" width="{small.width}" height="{small.height}"/>'
        boxes = join([_box(box, finder, size) for box, finder in _boxes(row)])
        return Html(f'<g id="p{place}">{image}{boxes}</g>'), size


def _name(row: AnswerRow) -> str:
    return row["uri"] or row["image_id"]


def _short_name(row: AnswerRow) -> Html:
    """Return the file's name, and under it the tier it left at and its folder."""
    path, _, file = _name(row).rpartition("/")
    above, _, folder = path.rpartition("/")
    place = f"…/{folder}" if above else folder
    under = [f"<bdi>{escape(part, 40)}</bdi>" for part in (row["exit_tier"], place) if part]
    return Html(f"<bdi>{escape(file, 56)}</bdi><small>{' · '.join(under)}</small>")


def _frame(drawing: Html, size: tuple[int, int], label: str) -> Html:
    return Html(
        f'<svg class="picture" viewBox="0 0 {size[0]} {size[1]}" role="img" '
        f'aria-label="{escape(label, 90)}">{drawing}</svg>'
    )


def _placeholder(row: AnswerRow, place: int) -> Html:
    text = fault_of(row).replace("_", " ") if row["status"] == "failed" else "not shown here"
    return Html(
        f'<g id="p{place}" class="blank"><rect width="320" height="180"/>'
        '<path d="M136 96 l16-18 12 13 8-8 14 17 z M178 70 a5 5 0 1 1 -.1 0 z"/>'
        f'<text x="160" y="128" text-anchor="middle">{escape(text, 40)}</text></g>'
    )


def _boxes(row: AnswerRow) -> list[tuple[BoxRow, str]]:
    """Return the boxes to draw and who found them: fused ones where a tier has such."""
    fused = {box["tier"] for box in row["boxes"]}
    found: list[tuple[BoxRow, str]] = [(box, box["tier"]) for box in row["boxes"]]
    for vote in row["votes"]:
        if vote["tier"] not in fused:
            found += [(box, vote["member"]) for box in vote["boxes"]]
    found.sort(key=lambda pair: -pair[0]["confidence"])
    return found[:MOST_BOXES]


def _box(box: BoxRow, finder: str, size: tuple[int, int]) -> Html:
    left, right = sorted(min(max(box[x], 0.0), 1.0) * size[0] for x in ("x1", "x2"))
    top, bottom = sorted(min(max(box[y], 0.0), 1.0) * size[1] for y in ("y1", "y2"))
    shape = (
        f'x="{left:.1f}" y="{top:.1f}" width="{max(right - left, 1):.1f}" '
        f'height="{max(bottom - top, 1):.1f}"'
    )
    title = escape(f"{box['label'] or 'box'} {box['confidence']:.2f} · {finder}", 80)
    # Beside the box where the picture has room.
    x, side = (left, "start") if left + right < size[0] else (right, "end")
    y = top - 2 if top > size[1] / 2 else bottom + 8
    name = f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{side}">{escape(box["label"], 24)}</text>'
    return Html(f'<g class="box"><title>{title}</title><rect {shape}/><rect {shape}/>{name}</g>')


def _verdict(row: AnswerRow) -> Html:
    if row["status"] == "failed":
        return Html('<b class="tag failed">failed</b>')
    label = "roadwork" if row["label"] == "roadwork" else "none"
    partial = Html(' <b class="tag partial">partial</b>') if row["status"] == "partial" else ""
    return Html(
        f'<b class="tag {label}">{label}</b>{partial} <span>{number(row["probability"])}</span>'
    )


def _reason(row: AnswerRow) -> Html:
    if not row["error"]:
        return Html("")
    return Html(f'<span class="reason">{escape(row["error"], 160)}</span>')


def _panel(row: AnswerRow, place: int, size: tuple[int, int]) -> Html:
    """Return the panel that a card opens; its picture is the card's own, drawn larger."""
    picture = _frame(Html(f'<use href="#p{place}"/>'), size, _name(row)) if size != BLANK else ""
    return Html(
        f'<div popover id="v{place}" class="panel" role="dialog" '
        f'aria-label="Votes of {escape(_name(row), 90)}">'
        f'<header><div class="verdict">{_verdict(row)}</div><button type="button" class="close" '
        f'popovertarget="v{place}" popovertargetaction="hide" autofocus>Close</button></header>'
        f"{picture}"
        f'<p class="path"><bdi>{escape(_name(row), 1000)}</bdi></p>'
        f"{_error(row)}{_facts(row)}{_votes(row)}{_times(row)}</div>"
    )


def _error(row: AnswerRow) -> Html:
    text = row["error"]
    return Html(f'<p class="error">{escape(text, 1000)}</p>' if text else "")


def _facts(row: AnswerRow) -> Html:
    facts: list[tuple[str, object]] = [
        ("probability", number(row["probability"])),
        ("confidence", number(row["confidence"])),
        ("threshold", number(row["threshold"], 2) if row["status"] != "failed" else None),
        ("disagreement", number(row["disagreement"], 2)),
        ("left at", row["exit_tier"]),
        ("flags", ", ".join(row["flags"])),
        ("did not vote", ", ".join(row["missing"])),
        ("session", row["session_id"]),
        ("frame", row["frame_index"]),
        ("image", row["image_id"]),
    ]
    items = [
        f"<div><dt>{name}</dt><dd><bdi>{escape(value, 120)}</bdi></dd></div>"
        for name, value in facts
        if value not in (None, "", "–")
    ]
    return Html(f'<dl class="facts">{"".join(items)}</dl>')


def _votes(row: AnswerRow) -> Html:
    votes = [(vote, False) for vote in row["votes"]]
    votes += [(vote, True) for vote in row["shadow_votes"]]
    if not votes:
        return Html('<p class="quiet">No member voted.</p>')
    lines = join([_vote(vote, shadow=shadow) for vote, shadow in votes[:MOST_VOTES]])
    more = len(votes) - MOST_VOTES
    rest = f'<p class="quiet">and {more} more</p>' if more > 0 else ""
    return Html(
        '<div class="scroll"><table><thead><tr><th>Tier</th><th>Member</th>'
        '<th class="n">Probability</th><th class="n">Raw</th><th class="n">Weight</th>'
        '<th class="n">Boxes</th><th class="n">Latency</th><th class="n">Batch</th></tr></thead>'
        f"<tbody>{lines}</tbody></table></div>{rest}"
    )


def _vote(vote: VoteRow, *, shadow: bool) -> Html:
    probability = vote["probability"] or 0.0
    side = "roadwork" if probability >= 0.5 else "none"
    notes = [note for note, holds in _notes(vote, shadow=shadow) if holds]
    small = f" <small>{', '.join(notes)}</small>" if notes else ""
    if text := vote.get("text"):  # answers written before votes had texts lack it
        small += f"<br><small><bdi>{escape(text, MOST_TEXT)}</bdi></small>"
    return Html(
        f"<tr><td>{escape(vote['tier'], 40)}</td>"
        f"<td>{escape(vote['member'], 60)} <small>{escape(vote['model_version'], 24)}</small>"
        f'{small}</td><td class="n"><span class="meter {side}">'
        f'<i style="width:{min(max(probability, 0.0), 1.0):.1%}"></i></span>'
        f"{number(vote['probability'])}</td>"
        f'<td class="n">{number(vote["raw"])}</td><td class="n">{vote["weight"]:g}</td>'
        f'<td class="n">{len(vote["boxes"]) or "–"}</td>'
        f'<td class="n">{seconds(vote["latency"])}</td><td class="n">{vote["batch_size"]}</td></tr>'
    )


def _notes(vote: VoteRow, *, shadow: bool) -> list[tuple[str, bool]]:
    return [("shadow", shadow), ("not calibrated", not vote["calibrated"])]


def _times(row: AnswerRow) -> Html:
    latency = row["latency"]
    lines = "".join(
        f'<tr><td>{escape(tier["tier"], 40)}</td><td class="n">{seconds(tier["queued"])}</td>'
        f'<td class="n">{seconds(tier["decoding"])}</td>'
        f'<td class="n">{seconds(tier["inferring"])}</td></tr>'
        for tier in latency["tiers"][:MOST_VOTES]
    )
    table = (
        '<div class="scroll"><table><thead><tr><th>Tier</th><th class="n">Queued</th>'
        '<th class="n">Decoding</th><th class="n">Inferring</th></tr></thead>'
        f"<tbody>{lines}</tbody></table></div>"
    )
    return Html(
        f'{table if lines else ""}<p class="quiet">In all {seconds(latency["total"])}, '
        f"of which {seconds(latency['joining'])} joining the votes.</p>"
    )
