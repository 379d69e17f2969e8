"""The report says what the answers say, stays small, and runs nothing that a name contains."""

import math
import re
import subprocess
import sys
import tracemalloc
from collections.abc import Collection, Iterable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2 import UndefinedError
from numpy.typing import NDArray

from roadstream.schemas.errors import OutputError, UsageError
from roadstream.schemas.records.answer import Answer, Latency, Status, TierLatency, Vote
from roadstream.schemas.records.image import Head
from roadstream.schemas.records.votes import Box
from roadstream.sinks.columns import row
from roadstream.sinks.report.markup import environment, seconds
from roadstream.sinks.report.page import ReportOptions, write_report
from roadstream.sinks.report.sheet import LARGEST, thumbnail
from roadstream.sinks.report.summary import LEAST, MOST, MOST_NAMES, SHOWN, Durations, Summary
from roadstream.sinks.sink import open_writer
from tests.kits.builders import answered

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>\n\u202e&amp;${title}{{title}}"
PLAIN = environment().from_string("{{ text }}")
CUT = environment().from_string("{{ text|cut(20) }}")
NOISE = np.random.default_rng(0).integers(0, 256, (900, 1200, 3), dtype=np.uint8)


def answer(
    number: int,
    probability: float | None = 0.9,
    *,
    text: str = "",
    boxes: int = 0,
    votes: int = 1,
    status: Status = "answered",
) -> Answer:
    box = Box(0.1, 0.2, 0.5, 0.6, 0.9, f"cone{text}")
    failed = probability is None
    return answered(
        head=Head(image_id=f"{number}{text}", uri=f"drive/{number}{text}.jpg", session_id=text),
        status="failed" if failed else status,
        label=None if probability is None else "roadwork" if probability >= 0.5 else "none",
        probability=probability,
        confidence=None if probability is None else abs(2 * probability - 1),
        exit_tier=None if failed else f"fast{text}",
        votes=[]
        if probability is None
        else [
            Vote(
                tier=f"fast{text}",
                member=f"net{text}",
                model_version=f"1{text}",
                raw=1.5,
                probability=probability,
                weight=1.0,
                latency=0.02,
                batch_size=8,
                boxes=[box] * boxes,
                tags={"weather": f"rain{text}"},
            )
        ]
        * votes,
        error=f"truncated: ends{text} early" if failed else None,
        missing=[f"other{text}"] if text else [],
        missing_tiers=[f"power{text}"] if text else [],
        reasons={f"fast{text}": f"sure{text}"},
        cascade=f"lite{text}",
        latency=Latency(
            total=0.5, joining=0.01, tiers=[TierLatency(f"fast{text}", 0.3, 0.02, 0.04)]
        ),
    )


def report(folder: Path, answers: Iterable[Answer], **options: object) -> str:
    with open_writer(folder / "answers.parquet") as writer:
        writer.write(list(answers))
    out = folder / "report.html"
    write_report(folder / "answers.parquet", out, ReportOptions(**options))  # type: ignore[arg-type]
    return out.read_text("utf-8")


class Page(HTMLParser):
    """Collects what a browser would build: elements, their attributes, and the text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.open: list[str] = []
        self.words = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes.extend(attrs)
        if tag not in ("meta", "br", "img"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes.extend(attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data

    def values(self, name: str) -> list[str]:
        return [value or "" for key, value in self.attributes if key == name]


def picture(uri: str) -> NDArray[np.uint8]:
    return np.full((72, 128, 3), 127, dtype=np.uint8)


def test_page_refers_to_nothing_outside_and_runs_nothing(tmp_path: Path) -> None:
    page = report(tmp_path, [answer(n, n / 10) for n in range(10)], load_image=picture)

    parsed = Page(page)

    assert "http" not in page.replace("http-equiv", "")
    assert "src=" not in page
    assert "url(" not in page
    assert not {"script", "link", "img", "iframe", "object", "base"} & set(parsed.tags)
    assert all(href.startswith(("#", "data:image/jpeg;")) for href in parsed.values("href"))
    assert "default-src 'none'" in parsed.values("content")[-1]
    assert parsed.open == []


def test_every_button_opens_a_panel_that_is_there(tmp_path: Path) -> None:
    parsed = Page(report(tmp_path, [answer(n, n / 10) for n in range(10)], load_image=picture))

    identities = parsed.values("id")

    assert len(identities) == len(set(identities))
    assert set(parsed.values("popovertarget")) <= set(identities)
    assert {href[1:] for href in parsed.values("href") if href[0] == "#"} <= set(identities)


def test_hostile_texts_stay_texts(tmp_path: Path) -> None:
    answers = [answer(1, 0.9, text=HOSTILE, boxes=2), answer(2, None, text=HOSTILE)]

    page = report(tmp_path, answers, load_image=picture, title=HOSTILE)
    parsed = Page(page)

    assert not {"script", "img"} & set(parsed.tags)
    assert not [name for name, _ in parsed.attributes if name.startswith("on")]
    assert (
        "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>\\n\\u202e&amp;" in parsed.words
    )
    assert "\u202e" not in page
    assert parsed.open == []


@given(st.text())
def test_a_value_is_printable_and_without_markup(text: str) -> None:
    safe = PLAIN.render(text=text)
    short = CUT.render(text=text)

    assert safe.isprintable()
    assert not re.search(r"[<>\"']", safe + short)
    assert len(short) < 23 * 12
    assert short == safe if len(text) <= 20 else " … " in short


def test_a_name_that_a_template_expects_in_vain_is_an_error() -> None:
    with pytest.raises(UndefinedError):
        PLAIN.render(texts="")


def test_nothing_but_a_report_that_is_written_imports_jinja() -> None:
    modules = "roadstream.sinks.report.page, roadstream.workers.commands.evaluate"
    code = f"import sys, {modules}; print('jinja2' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "False\n"


def test_totals_tiers_and_rate_are_said(tmp_path: Path) -> None:
    answers = [answer(n, 0.9) for n in range(3)]
    answers += [answer(10, 0.1, status="partial"), answer(11, None)]

    words = Page(report(tmp_path, answers, images_per_second=123.4, made_at=0.0)).words
    squeezed = re.sub(r"\s+", " ", words)

    for said in ("5images", "3roadwork, 75.0%", "1none", "1partial", "1failed", "123images per"):
        assert said in squeezed
    assert "1970-01-01 00:00 UTC" in words
    assert "truncated: ends early" in words
    assert "fast4100.0%75.0%" in squeezed


def test_the_ways_of_images_their_tags_and_what_was_missing_are_counted(tmp_path: Path) -> None:
    answers = [answer(n, 0.9) for n in range(3)] + [answer(n, 0.2, text=".b") for n in range(3, 5)]

    words = " ".join(Page(report(tmp_path, answers, load_image=picture)).words.split())

    assert "Ways that images took, and why" in words
    assert "fast: sure360.0%100.0%" in words.replace(" ", "").replace("fast:", "fast: ")
    assert "weather=rain360.0%100.0%" in words.replace(" ", "")
    assert "tierpower.b240.0%" in words.replace(" ", "")
    assert "memberother.b240.0%" in words.replace(" ", "")


def test_a_panel_says_why_an_image_took_its_way_who_lost_and_what_is_missing(
    tmp_path: Path,
) -> None:
    votes = [Vote("one", "yes", "1", 2.0, 0.9, 1.0, 0.1, 1, tags={"light": "night"})]
    votes += [Vote("one", "no", "1", -1.0, 0.3, 1.0, 0.1, 1)]
    said = answered(
        head=Head(image_id="a", uri="a.jpg"),
        status="partial",
        label="roadwork",
        probability=0.7,
        confidence=0.4,
        exit_tier="one",
        disagreement=1.5,
        votes=votes,
        reasons={"one": "confidence < 0.5"},
        missing_tiers=["power"],
        flags=["partial", "degraded"],
        effects=["the zone ends: log-odds -1.5", *(f"effect {n}" for n in range(40))],
    )

    words = Page(report(tmp_path, [said], load_image=picture)).words

    for expected in (
        "way one: confidence < 0.5",
        "light=night",
        "voted otherwiseno",
        "missing tierspower",
        "disagreement1.50",
        "the zone ends: log-odds -1.5",
        "and 9 more",
    ):
        assert expected in words, expected


def test_page_about_no_answers_is_a_page(tmp_path: Path) -> None:
    parsed = Page(report(tmp_path, []))

    assert "0images" in parsed.words
    assert "None." in parsed.words
    assert parsed.open == []


def test_boxes_are_drawn_where_they_are(tmp_path: Path) -> None:
    page = report(tmp_path, [answer(1, boxes=1)], load_image=picture)

    assert '<rect x="12.8" y="14.4" width="51.2" height="28.8"/>' in page
    assert "cone 0.90 · net" in page
    assert '<text x="12.8" y="51.2" text-anchor="start">cone</text>' in page


def test_picture_that_cannot_be_loaded_has_a_placeholder(tmp_path: Path) -> None:
    words = Page(report(tmp_path, [answer(1), answer(2, None)])).words

    assert "not shown here" in words
    assert "truncated" in words


def test_largest_page_stays_small(tmp_path: Path) -> None:
    answers = [answer(n, p, boxes=30, votes=70) for n, p in enumerate([0.99] * 24 + [0.5] * 24)]
    failures = [answer(100 + n, None, text="x" * 3000) for n in range(24)]

    page = report(tmp_path, answers + failures, load_image=lambda uri: NOISE)

    assert len(page.encode()) < 4_000_000
    assert "and 38 more" in page


@pytest.mark.parametrize("shape", [(1, 1), (1, 5000), (5000, 3), (900, 1200)])
def test_thumbnail_is_small_whatever_the_picture(shape: tuple[int, int]) -> None:
    pixels = NOISE[: shape[0], : shape[1]] if shape == (900, 1200) else np.zeros((*shape, 3), "u1")

    small = thumbnail(pixels)

    assert len(small.uri) < LARGEST * 4 / 3 + 40
    assert 1 <= small.width <= 400
    assert 1 <= small.height <= 400


def test_sheets_hold_the_most_confident_and_the_least_certain() -> None:
    summary = Summary()
    for number in range(1000):
        summary.add(row(answer(number, number / 1000)))

    confident = [found["probability"] for found in summary.roadwork.rows()]
    uncertain = {found["probability"] for found in summary.uncertain.rows()}

    assert confident == [(999 - n) / 1000 for n in range(SHOWN)]
    assert uncertain == {(488 + n) / 1000 for n in range(SHOWN)} or uncertain == {
        (489 + n) / 1000 for n in range(SHOWN)
    }


def test_rare_failures_are_shown_beside_common_ones() -> None:
    summary = Summary()
    for number in range(100):
        summary.add(row(answer(number, None)))
    rare = answered(
        head=Head(image_id="rare"),
        status="failed",
        error="missing: gone",
        latency=Latency(total=0.0, joining=0.0, tiers=[]),
    )
    summary.add(row(rare))

    shown = summary.failures()

    assert len(shown) == SHOWN
    assert shown[1]["image_id"] == "rare"
    assert summary.faults == {"truncated": 100, "missing": 1}


def test_summary_memory_is_bounded_whatever_is_in_the_rows() -> None:
    summary = Summary()
    for number in range(2000):
        summary.add(row(answer(number, 0.6, text=str(number))))
    tracemalloc.start()
    for number in range(2000, 6000):
        summary.add(row(answer(number, 0.6, text=str(number))))
    grown = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()

    assert grown < 100_000
    counted: list[Collection[object]] = [summary.exits, summary.members, summary.missing]
    counted += [summary.cascades, summary.missing_tiers, summary.tags, summary.ways]
    for names in counted:
        assert len(names) <= MOST_NAMES + 1


@given(st.lists(st.floats(LEAST, MOST), min_size=1, max_size=50), st.floats(0.0, 1.0))
def test_percentiles_are_right_within_one_percent(values: list[float], share: float) -> None:
    durations = Durations()
    for value in values:
        durations.add(value)

    exact = sorted(values)[max(1, math.ceil(share * len(values))) - 1]

    assert durations.percentile(share) == pytest.approx(exact, rel=0.0101)


def test_durations_out_of_range_count_at_the_ends() -> None:
    durations = Durations()
    for value in (-1.0, 0.0, math.inf):
        durations.add(value)

    assert durations.percentile(0.0) == LEAST
    assert durations.percentile(1.0) == pytest.approx(MOST, rel=0.0101)
    with pytest.raises(ValueError, match="no durations"):
        Durations().percentile(0.5)


@pytest.mark.parametrize(
    ("duration", "text"),
    [(2e-6, "2 µs"), (0.0123, "12.3 ms"), (1.5, "1.5 s"), (600.0, "10 min"), (36000.0, "10 h")],
)
def test_durations_are_printed_with_a_fitting_unit(duration: float, text: str) -> None:
    assert seconds(duration) == text


def test_failure_keeps_the_previous_report(tmp_path: Path) -> None:
    out = tmp_path / "report.html"
    out.write_text("before")
    (tmp_path / "answers.jsonl").write_text("{}")

    with pytest.raises(UsageError, match="no column image_id"):
        write_report(tmp_path / "answers.jsonl", out)
    with pytest.raises(UsageError, match="expected an existing folder"):
        write_report(tmp_path / "answers.jsonl", tmp_path / "none" / "report.html")

    assert out.read_text() == "before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["answers.jsonl", "report.html"]


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs Linux")
def test_report_to_a_place_that_takes_no_files_is_an_output_error(tmp_path: Path) -> None:
    with open_writer(tmp_path / "answers.jsonl") as writer:
        writer.write([answer(1)])

    with pytest.raises(OutputError, match="expected a file that can be written"):
        write_report(tmp_path / "answers.jsonl", Path("/proc/self/report.html"))


def test_sinks_that_need_no_parquet_do_not_import_it() -> None:
    modules = "roadstream.sinks.report.page, roadstream.sinks.evaluation.measure"
    code = f"import sys, {modules}; print('pyarrow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "False\n"
