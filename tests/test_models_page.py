"""The pages on models say what the code does: its families, and which have a tiny checkpoint."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from roadstream.schemas.engines import ENGINES
from roadstream.schemas.settings.torch import TorchSettings
from roadstream.workers.engines.torch.families.registry import FAMILIES, MODEL_TYPES

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "guide" / "models.md").read_text()
SYSTEMS_PAGE = (ROOT / "docs" / "reference" / "systems.md").read_text()
CHECKPOINTS = ROOT / "tests" / "kits" / "checkpoints"
# What fixtures share, and models for vLLM alone; and the package that writes its own.
_SHARED = {"common", "vlm_common", "vlms", "ovis2", "molmo2"}
_WRITTEN_ELSEWHERE = {
    "ultralytics": ROOT / "tests" / "workers" / "engines" / "ultralytics_cases.py"
}
_CODE = re.compile(r"`([^`]+)`")


def section(title: str) -> str:
    found = re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE)
    assert found, title
    return found.group(1)


def rows(text: str) -> Iterator[dict[str, str]]:
    """Yield the rows of all tables in a text, by column."""
    head: list[str] = []
    for line in text.splitlines():
        if not line.startswith("|"):
            head = []
            continue
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not head:
            head = cells
        elif not set(cells[0]) <= set("-: "):
            yield dict(zip(head, cells, strict=True))


def fixtures() -> set[str]:
    """Return the names of the writers of tiny checkpoints."""
    found: set[str] = set()
    for path in CHECKPOINTS.glob("*.py"):
        if path.stem in _SHARED:
            continue
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                takes = [arg.arg for arg in node.args.args]
                if takes and takes[0] in ("folder", "path"):
                    found.add(node.name)
    return found


MODELS = {
    "none": "none",
    "file": "file",
    "folder": "folder",
    "hub": "folder or hub id",
    "server": "name on the server",
}
TABLE = [row for row in rows(section("Families of the torch engine")) if "family" in row]
SYSTEMS = list(rows(SYSTEMS_PAGE))


def test_every_family_has_a_row_and_every_row_a_family() -> None:
    assert sorted(_CODE.findall(row["family"])[0] for row in TABLE) == sorted(FAMILIES)


@pytest.mark.parametrize("model_type", sorted(MODEL_TYPES))
def test_every_architecture_that_is_read_by_its_name_stands_in_its_familys_row(
    model_type: str,
) -> None:
    [row] = [row for row in TABLE if row["family"] == f"`{MODEL_TYPES[model_type]}`"]

    assert f"`{model_type}`" in row["reads (`model_type`, or class)"]


def test_every_fixture_stands_in_a_row_and_every_row_names_fixtures_that_are_there() -> None:
    named = {name for row in TABLE for name in _CODE.findall(row["fixture"])}

    assert named == fixtures()


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row["family"])
def test_every_familys_checkpoint_is_used_by_a_test(row: dict[str, str]) -> None:
    family = _CODE.findall(row["family"])[0]
    if family in _WRITTEN_ELSEWHERE:
        assert "def test_" in _WRITTEN_ELSEWHERE[family].read_text()
        return
    tests = [path.read_text() for path in (ROOT / "tests").rglob("test_*.py")]
    for name in _CODE.findall(row["fixture"]):
        # As a name of its own, as an attribute of its module, or looked up by name.
        used = re.compile(rf'\b{name}\b(?!")|"{name}"')
        assert any(used.search(text) for text in tests), name


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row["family"])
def test_the_settings_of_a_family_are_settings(row: dict[str, str]) -> None:
    named = set(_CODE.findall(row["settings of its own"]))

    assert named <= set(TorchSettings.__struct_fields__)


def test_the_table_of_engines_is_that_of_the_code() -> None:
    assert list(rows(section("Engines"))) == [
        {
            "engine": f"`{entry.name}`",
            "runs": entry.runs,
            "`model`": MODELS[entry.model],
            "`sizes`": "yes" if entry.several_sizes else "no",
            "needs": f"`roadstream[{entry.extra}]`" if entry.extra else "–",
        }
        for entry in ENGINES.values()
    ]


@pytest.mark.parametrize("row", SYSTEMS, ids=lambda row: row["system"])
def test_a_system_runs_on_an_engine_that_is_there_or_says_why_not(row: dict[str, str]) -> None:
    how, tested = row["engine / family"], row["tested"]

    assert tested in ("yes", "no")
    if how == "none":
        assert tested == "no"
        assert row["instead, or why not"]
        return
    for family in re.findall(r"torch / ((?:`\w+`(?:, )?)+)", how):
        assert set(_CODE.findall(family)) <= set(FAMILIES)
    engines = set(re.findall(rf"\b({'|'.join(ENGINES)})\b", how))
    assert engines or how == "the consensus sink"
    if tested == "no":
        assert row["instead, or why not"]


def test_every_source_that_is_cited_is_listed_and_the_other_way_round() -> None:
    systems, _, sources = SYSTEMS_PAGE.partition("\n## Sources\n")
    cited = {
        int(number)
        for numbers in re.findall(r"\[(\d+(?:, \d+)*)\]", systems)
        for number in numbers.split(", ")
    }
    listed = {int(number) for number in re.findall(r"^- \[(\d+)\] ", sources, re.MULTILINE)}

    assert cited == listed


def test_all_seven_levels_are_there() -> None:
    levels = re.findall(r"^## Level (\d)", SYSTEMS_PAGE, re.MULTILINE)

    assert levels == [str(level) for level in range(7)]
