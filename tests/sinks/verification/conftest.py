"""What tests of several modules here ask for."""

from pathlib import Path

import pytest

from tests.kits.sound_run import SoundRun


@pytest.fixture
def run(tmp_path: Path) -> SoundRun:
    """Return a run in which nothing went wrong, to be spoilt."""
    return SoundRun(tmp_path)
