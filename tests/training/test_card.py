"""The pages on quality: made from files of results alone, and never out of date."""

import csv
import json
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from roadstream.schemas.errors import ConfigError
from tests.training.synthetic import TEMPLATE, pictures
from training import calibrate, card, sources
from training.judged import read_judged, write_judged
from training.measured import CROP, Results, load_results
from training.quality import Bin
from training.sources import Source
from training.svg import Axis, Series, chart, reliability_chart

ROOT = Path(__file__).parents[2]
SOURCES = [Source("owner/family0", "CC0-1.0", 1, 2), Source("owner/family1", "MIT", 3, 4)]


@pytest.fixture(scope="module")
def found() -> calibrate.Calibrated:
    """A cascade that was fitted on made-up pictures."""
    return calibrate.calibrate(pictures(150), TEMPLATE, {"first": 1.0, "second": 9.0})


@pytest.fixture
def folder(tmp_path: Path, found: calibrate.Calibrated) -> Path:
    """A folder of its results."""
    calibrate.write_results(found, tmp_path)
    (tmp_path / "small.toml").write_text(found.text)
    with (tmp_path / "sources.csv").open("w", newline="") as lines:
        csv.writer(lines).writerows([Source._fields, *SOURCES])
    return tmp_path


def load(folder: Path) -> Results:
    return load_results(folder, str(folder / "small.toml"))


def test_committed_pages_are_what_the_committed_results_make() -> None:
    results = load_results(ROOT / "training" / "results", str(ROOT / "cascades" / "lite.toml"))

    for page, parts in card.PARTS.items():
        text = (ROOT / page).read_text(encoding="utf-8")
        made = text
        for name, make in parts.items():
            made = card.refill(made, name, make(results), page.name)
        assert made == text, f"{page.name}: run python -m training.card"


def test_every_part_is_made_from_what_calibration_writes(folder: Path) -> None:
    results = load(folder)

    made = {name: make(results) for parts in card.PARTS.values() for name, make in parts.items()}

    assert made["summary"].startswith("On 150 pictures of 50 scenes from 3 sources")
    assert "| `first` |" in made["tiers"]
    assert "of the compute" in made["cost"]
    assert "| `quick` | `first` | 512 × 352 |" in made["members"]
    assert made["ablations"] == made["learning"] == made["versions"] == card.NOT_MEASURED


def test_ablations_curve_and_versions_are_shown_when_they_are_there(folder: Path) -> None:
    (folder / "ablations.csv").write_text("change,MCC\nno haze,0.61\n")
    (folder / "learning_curve.csv").write_text("scenes,mcc,auc\n40,0.5,0.8\n160,0.7,0.9\n")
    (folder / "versions.json").write_text(json.dumps({"torch": "2.9"}))
    results = load(folder)

    assert "| no haze | 0.61 |" in card.ablations_table(results)
    assert "| 160 | 0.7 | 0.9 |" in card.learning_part(results)
    assert card.versions_line(results) == "torch 2.9"
    assert card.learning_chart(results).count("<circle") == 4


def test_crops_count_in_a_row_of_their_own_and_nowhere_else(folder: Path) -> None:
    judged = read_judged(folder / "lite.csv")
    crops = [replace(one, conditions=(CROP,)) for one in judged[:15]]
    write_judged(folder / "lite.csv", [*crops, *judged[15:]])

    results = load(folder)

    assert len(results.main) == 135
    rows = [line for line in card.runs_table(results).splitlines() if "crops of signs" in line]
    assert len(rows) == 1
    assert "| 15 | 5 |" in rows[0]


def test_a_folder_without_any_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"expected one of lite\.csv, everything\.csv"):
        load_results(tmp_path, "lite")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("no marker", "expected one marker <!-- begin a -->, got 0"),
        ("<!-- begin a --><!-- end --><!-- begin a --><!-- end -->", "got 2"),
        ("<!-- begin a -->", "expected <!-- end --> after"),
    ],
)
def test_a_page_with_damaged_markers_is_left_alone(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        card.refill(text, "a", "new", "page.md")


def test_refilling_keeps_the_prose_and_can_be_repeated() -> None:
    text = "before <!-- begin a -->\nold\n<!-- end --> after"

    once = card.refill(text, "a", "new", "page.md")

    assert once == "before <!-- begin a -->\nnew\n<!-- end --> after"
    assert card.refill(once, "a", "new", "page.md") == once


def test_a_licence_that_asks_for_attribution_needs_one() -> None:
    with pytest.raises(ConfigError, match=r"nobody/known \(CC-BY-4.0 \(x\)\): expected its attrib"):
        sources.attribution([Source("nobody/known", "CC-BY-4.0 (x)", 1, 0)])


def test_everybody_who_asks_for_it_is_named_in_the_model_card() -> None:
    text = (ROOT / card.CARD).read_text(encoding="utf-8")

    for source in sources.read_sources():
        assert source.repo in text
        if source.licence.startswith(sources.ATTRIBUTED):
            assert sources.ATTRIBUTION[source.repo][1:] in text


def test_sources_are_counted_by_licence_without_the_ambiguous(tmp_path: Path) -> None:
    (tmp_path / "manifest.csv").write_text(
        "file,label,source_repo,licence\n"
        "positives/a.jpg,1,o/r,MIT\nnegatives/b.jpg,0,o/r,MIT\nambiguous/c.jpg,-1,o/x,MIT\n"
    )

    assert sources.collect_sources(tmp_path) == [Source("o/r", "MIT", 1, 1)]


def test_charts_are_well_formed_whatever_they_are_called() -> None:
    drawn = chart("a < b & c", Axis("x", 0, 10), Axis("y"), [Series("s<", [(0, 0), (10, 1)])])

    tree = ElementTree.fromstring(drawn)
    spots = [(c.get("cx"), c.get("cy")) for c in tree.iter("{http://www.w3.org/2000/svg}circle")]
    assert spots == [("56.0", "314.0"), ("464.0", "34.0")]


def test_the_reliability_chart_has_a_point_per_bin_and_a_diagonal() -> None:
    bins = [Bin(0.1, 0.2, 0.5, 5), Bin(0.9, 0.8, 0.5, 5)]

    drawn = reliability_chart(bins, bins[:1])

    assert drawn.count("<circle") == 3
    assert drawn.count("stroke-dasharray") == 1
