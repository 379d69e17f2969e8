"""The logs that the contract tests run on."""

import uuid
from pathlib import Path

import pytest

from roadstream.streams.log import Log
from tests.kits.contract import ALL, ATOMIC, make_log


@pytest.fixture(params=ALL)
def log(request: pytest.FixtureRequest, tmp_path: Path) -> Log:
    return make_log(request.param, request, tmp_path)


@pytest.fixture(params=ATOMIC)
def atomic_log(request: pytest.FixtureRequest, tmp_path: Path) -> Log:
    return make_log(request.param, request, tmp_path)


@pytest.fixture
def topic() -> str:
    """A topic, and a group of the same name, that no other test uses."""
    return f"c-{uuid.uuid4().hex[:12]}"
