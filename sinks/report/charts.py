"""Histograms and ranges as inline SVG, without a library and without a script."""

import math
from collections.abc import Sequence

from roadstream.sinks.report.markup import Html, escape, join, seconds
from roadstream.sinks.report.percentiles import Durations
from roadstream.sinks.report.summary import BINS, Histogram

HEIGHT = 100.0
WIDTH = 400.0
GAP = 2.0


def histogram(values: Histogram, groups: Sequence[tuple[str, str]], title: str) -> Html:
    """Draw stacked bars over [0, 1].

    Args:
        values: The counts.
        groups: Names and CSS classes of the groups, from the bottom of a bar to its top.
        title: What it shows, for those who cannot see it.
    """
    tallest = max((sum(counts.values()) for counts in values.bins), default=0) or 1
    bars = [_bar(values, groups, place, tallest) for place in range(BINS)]
    return Html(
        f'<figure class="chart"><div class="plot"><span class="most">{tallest:,} images</span>'
        f'<svg viewBox="0 0 {WIDTH:g} {HEIGHT:g}" preserveAspectRatio="none" role="img" '
        f'aria-label="{escape(title)}">{join(bars)}</svg></div>'
        '<div class="axis" aria-hidden="true"><span>0</span><span>0.25</span><span>0.5</span>'
        f"<span>0.75</span><span>1</span></div>{_legend(groups)}</figure>"
    )


def _bar(values: Histogram, groups: Sequence[tuple[str, str]], place: int, tallest: int) -> Html:
    counts = values.bins[place]
    total = sum(counts.values())
    if not total:
        return Html("")
    left, wide, base = place * WIDTH / BINS + GAP / 2, WIDTH / BINS - GAP, HEIGHT
    pieces = []
    for name, style in groups:
        high = counts[name] / tallest * HEIGHT
        base -= high
        if high:
            pieces.append(
                f'<rect class="{style}" x="{left:g}" y="{base:.3f}" width="{wide:g}" '
                f'height="{high:.3f}"/>'
            )
    named = ", ".join(f"{counts[name]:,} {name}" for name, _ in groups if counts[name])
    label = escape(f"{place / BINS:.2f}–{(place + 1) / BINS:.2f}: {named}")
    return Html(f"<g><title>{label}</title>{''.join(pieces)}</g>")


def _legend(groups: Sequence[tuple[str, str]]) -> Html:
    items = [f'<li><i class="{style}"></i>{escape(name, 40)}</li>' for name, style in groups]
    return Html(f'<ul class="legend">{"".join(items)}</ul>')


def scale(durations: Sequence[Durations]) -> tuple[float, float]:
    """Return the least p50 and largest p99 of many durations, at least a factor 10 apart."""
    low = min((each.percentile(0.5) for each in durations), default=1e-3)
    high = max((each.percentile(0.99) for each in durations), default=1e-2)
    return low, max(high, low * 10)


def span(durations: Durations, limits: tuple[float, float]) -> Html:
    """Draw p50, p90 and p99 as marks on a line, on a logarithmic scale between ``limits``."""
    points = [_place(durations.percentile(share), limits) for share in (0.5, 0.9, 0.99)]
    title = " · ".join(
        f"p{share * 100:g} {seconds(durations.percentile(share))}" for share in (0.5, 0.9, 0.99)
    )
    width = max(points[2] - points[0], 0.5)
    return Html(
        f'<svg class="span" viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">'
        f"<title>{title}</title>"
        f'<rect class="rail" x="0" y="4.5" width="100" height="1"/>'
        f'<rect class="far" x="{points[0]:.1f}" y="3" width="{width:.1f}" height="4"/>'
        f'<rect class="near" x="{points[0]:.1f}" y="3" '
        f'width="{max(points[1] - points[0], 0.5):.1f}" height="4"/></svg>'
    )


def _place(value: float, limits: tuple[float, float]) -> float:
    low, high = limits
    return 100 * min(max(math.log(max(value, low) / low) / math.log(high / low), 0.0), 1.0)
