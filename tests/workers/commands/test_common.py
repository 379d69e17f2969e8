"""What commands share: how they log."""

import json
from collections.abc import Iterator

import pytest
import structlog

import roadstream.workers.observe.logging as voice
from roadstream.workers.commands.common import run_async


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    before = voice._renderer.text, voice._renderer.colours
    yield
    voice._renderer.text, voice._renderer.colours = before


def test_a_supervised_process_writes_json_whatever_its_environment_asks(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def begin() -> None:
        structlog.get_logger().info("begun")

    monkeypatch.setenv("ROADSTREAM_SUPERVISED", "service")
    run_async("info", begin, log_format="text")
    assert json.loads(capsys.readouterr().err)["event"] == "begun"
