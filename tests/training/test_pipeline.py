"""Training from end to end on a dozen drawn pictures, and what is said of bad input."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from msgspec.structs import replace

from roadstream.schemas.cascade.loading import load_cascade
from roadstream.schemas.errors import ConfigError
from roadstream.schemas.settings.local import OnnxSettings
from roadstream.stages.inference import Picture, Pictures
from roadstream.workers.engines.onnx import OnnxEngine
from roadstream.workers.engines.options import EngineOptions
from tests.training.roads import FAMILIES, lay_out
from training.corpus import KINDS, decode, folds_of, load_pictures
from training.pipeline import Plan, train_all

ROOT = Path(__file__).parents[2]
VIEWS = 24


class Trained:
    """Folders of one small training, made once for all tests of this file."""

    def __init__(self, home: Path) -> None:
        self.data, self.work, self.out = home / "data", home / "work", home / "out"

    def plan(self) -> Plan:
        return Plan(self.data, self.work, VIEWS, 72)


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "training", *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},  # threads that wait for each other beside tests
        text=True,
        capture_output=True,
        check=False,
    )


@pytest.fixture
def data(tmp_path: Path) -> Path:
    lay_out(tmp_path)
    return tmp_path


@pytest.mark.timeout(600)
def test_a_folder_becomes_a_cascade_and_an_interrupted_run_goes_on(tmp_path: Path) -> None:
    made = Trained(tmp_path)
    lay_out(made.data)
    options = ["--work", made.work, "--out", made.out, "--views", VIEWS, "--processes", 1]

    done = command(made.data, *options)

    assert done.returncode == 0, done.stderr
    models_find_things_by_name(made)
    figures_and_pages_are_where_they_were_asked_to_go(made)
    only_what_is_missing_is_made_again_and_the_same(made)
    a_work_folder_of_other_pictures_is_refused(made)


def models_find_things_by_name(made: Trained) -> None:
    cascade = load_cascade(str(made.out / "cascades" / "lite.toml"))
    members = [each for tier in cascade.tiers for each in tier.members if each.engine == "onnx"]
    picture = Picture(decode(made.data / f"positives/{FAMILIES[0]}__0.png"))
    found = []
    for member in members:
        sensitive = replace(member, settings=OnnxSettings(box_threshold=0.001))
        engine = OnnxEngine(cascade, sensitive, EngineOptions())
        engine.load()
        (score,) = engine.infer(Pictures([picture]))
        assert np.isfinite(score.raw)
        found += score.boxes
    assert found
    assert {box.label for box in found} <= set(KINDS)


def figures_and_pages_are_where_they_were_asked_to_go(made: Trained) -> None:
    there = {str(path.relative_to(made.out)) for path in made.out.rglob("*")}
    assert {"docs/quality.md", "training/MODEL_CARD.md", "training/results/lite.csv"} <= there
    assert "training/results/tags.json" in there
    assert (
        "114 changed pictures come from 19 of dry days"
        in (made.out / "docs/quality.md").read_text()
    )
    assert "On 16 pictures of 16 scenes" in (made.out / "docs/quality.md").read_text()
    assert "owner/mycity" in (made.out / "training/MODEL_CARD.md").read_text()


def only_what_is_missing_is_made_again_and_the_same(made: Trained) -> None:
    (views,) = made.plan().parts()
    notes, neck = views.with_suffix(".json"), made.work / "neck-german-drives.pt"
    fine = Path(f"{views}.fine.npy")
    before = [notes.read_bytes(), fine.read_bytes()]
    for path in (notes, neck):
        path.unlink()
    kept = {p: p.stat().st_mtime_ns for p in made.work.iterdir() if views.name not in p.name}
    del kept[made.work / "made_of.txt"]

    train_all(made.plan(), folds_of(load_pictures(made.data)), processes=1)

    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert neck.exists()
    assert [notes.read_bytes(), fine.read_bytes()] == before


def a_work_folder_of_other_pictures_is_refused(made: Trained) -> None:
    other = Plan(made.data, made.work, VIEWS + 1, 72)
    with pytest.raises(ConfigError, match=r"work: expected a folder made of these pictures.*views"):
        other.claim()


def test_known_sources_keep_their_folds_and_others_get_their_own(data: Path) -> None:
    folds = folds_of(load_pictures(data))

    assert set(folds) == {"cones-and-signs", "us-drives", "german-drives", "others-1"}
    assert folds["others-1"] == ("mycity",)


def test_too_few_scenes_beside_a_fold_are_refused_with_what_to_do(data: Path) -> None:
    pictures = [one for one in load_pictures(data) if one.family in FAMILIES[:2]]

    with pytest.raises(ConfigError, match=r"5 or more scenes .* in positives/ .*add pictures of"):
        folds_of(pictures)


def test_rows_of_other_folders_are_passed_over(data: Path) -> None:
    with (data / "manifest.csv").open("a") as lines:
        lines.write("videos/a.mp4,,,,,\n")

    assert len(load_pictures(data)) == 16


def replaced(file: str, old: str, new: str) -> Callable[[Path], None]:
    def change(data: Path) -> None:
        text = (data / file).read_text()
        assert old in text
        (data / file).write_text(text.replace(old, new, 1))

    return change


def added(file: str, row: str) -> Callable[[Path], None]:
    def change(data: Path) -> None:
        with (data / file).open("a") as lines:
            lines.write(row + "\n")

    return change


BOX = "positives/gtsdb__0.png"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda data: (data / "manifest.csv").unlink(), r"manifest\.csv: .* No such file"),
        (lambda data: (data / "boxes.csv").unlink(), r"boxes\.csv: .* No such file"),
        (replaced("manifest.csv", "split_group", "scene"), r"manifest\.csv:1: expected columns"),
        (lambda data: (data / BOX).unlink(), r"manifest\.csv:10: file: .* none at " + BOX),
        (replaced("manifest.csv", ".png,1,", ".png,0,"), r"manifest\.csv:2: label: expected 1"),
        (replaced("manifest.csv", ",rfcones-1-0,", ",,"), r"manifest\.csv:2: split_group"),
        (added("manifest.csv", f"{BOX},1,g,r,l,c"), r"manifest\.csv:18: file: expected every"),
        (added("manifest.csv", "positives/a.png,1,g,r,l,c"), r":18: file: expected a name like"),
        (added("manifest.csv", "positives/a__b.png,1"), r"manifest\.csv:18: expected cells"),
        (added("boxes.csv", f"{BOX},kone,0,0,1,1"), r"boxes\.csv:\d+: class: .* got 'kone'"),
        (added("boxes.csv", f"{BOX},cone,0,0,1,x"), r"boxes\.csv:\d+: expected numbers for x1"),
        (added("boxes.csv", f"{BOX},cone,0,0,640,1"), r"boxes\.csv:\d+: expected 0 ≤ x1 < x2 ≤ 1"),
        (added("boxes.csv", f"{BOX},cone,.5,0,.5,1"), r"boxes\.csv:\d+: expected 0 ≤ x1 < x2 ≤ 1"),
        (added("boxes.csv", f"{BOX},cone,0,0,nan,1"), r"boxes\.csv:\d+: expected 0 ≤ x1 < x2 ≤ 1"),
        (added("boxes.csv", "positives/b.png,cone,0,0,1,1"), r":\d+: file: expected a file of man"),
    ],
)
def test_bad_input_is_named_with_file_and_line(
    data: Path, change: Callable[[Path], None], said: str
) -> None:
    change(data)

    with pytest.raises(ConfigError, match=said):
        load_pictures(data)


def test_a_picture_that_is_none_ends_the_command_in_one_line(data: Path) -> None:
    (data / "positives/gtsdb__0.png").write_text("no picture")

    done = command(data, "--work", data / "work", "--out", data / "out")

    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(str(data / "positives/gtsdb__0.png"))
    assert len(done.stderr.splitlines()) == 1
    assert cv2.imread(str(data / "positives/gtsdb__1.png")) is not None
