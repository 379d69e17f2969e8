"""`make test` and `make test-engines` together run every test once, and `.ci/run` runs both."""

import re
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def test_files_of_make_test_engines_are_listed_once_and_are_there(
    pytestconfig: pytest.Config,
) -> None:
    listed = pytestconfig.getini("engines")
    assert listed == sorted(set(listed))
    assert [path for path in listed if not path.is_file()] == []


def test_a_stage_is_run_by_one_target_and_each_target_by_ci() -> None:
    runs = re.findall(r"^([a-z-]+):|--stage (\w+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    stages = {stage: target for (target, _), (_, stage) in pairwise(runs) if target and stage}
    assert stages == {"test": "test", "engines": "test-engines"}
    commands = re.findall(r"^make .*", (ROOT / ".ci" / "run").read_text(), re.MULTILINE)
    assert commands == [f"make {target}" for target in stages.values()]
