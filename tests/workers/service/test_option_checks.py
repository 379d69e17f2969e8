"""Numbers on the command line: what is no number, or beyond any use, is refused by name."""

from pathlib import Path

import pytest

from roadstream.workers.cli import run

ABSURD = ["nan", "inf", "-inf", "1e300", "-1"]
FLOATS = {
    "--deadline": ["produce", "x.jpg", "--lane", "live"],
    "--fps": ["produce", "x.jpg"],
    "--patience": ["produce", "x.jpg"],
    "--drain-timeout": ["work"],
}
INTS = {
    "--workers": (["up"], ["0", "-1", "1025", str(2**70)]),
    "--threads": (["work"], ["0", "-1", "1025", str(2**70)]),
    "--partitions": (["topics", "create"], ["0", "-1", "10001", str(2**70)]),
    "--show": (["verify"], ["-1", str(2**70)]),
    "--frames": (["render", "folder"], ["0", "-1", str(2**70)]),
    "--seed": (["render", "folder"], ["-1", str(2**70)]),
    "--brokers": (["broker"], ["0", "-1", str(2**70)]),
    "--port": (["broker"], ["-1", str(2**70)]),
    "--instances": (["export", "triton", "--out", "x"], ["0", str(2**70)]),
    "--max-batch": (["export", "triton", "--out", "x"], ["0", str(2**70)]),
}
CASES = [
    *((command, option, value) for option, command in FLOATS.items() for value in [*ABSURD]),
    *((command, option, v) for option, (command, values) in INTS.items() for v in values),
    (["score", "x.jpg"], "--workers", str(2**70)),
    (["score", "x.jpg"], "--workers", "1025"),
    *((["score", "x.jpg"], "--fps", value) for value in [*ABSURD, "0"]),
    (["up"], "--partitions", "0"),
    (["up"], "--partitions", str(2**70)),
    (["consensus"], "--drain-timeout", "nan"),
    (["produce", "x.jpg", "--lane", "live"], "--deadline", "0"),
]


@pytest.mark.parametrize(
    ("command", "option", "value"), CASES, ids=[f"{c[0]} {o} {v}" for c, o, v in CASES]
)
def test_a_number_out_of_bounds_is_wrong_usage_that_names_the_option(
    command: list[str],
    option: str,
    value: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.jpg").write_bytes(b"no picture")

    assert run([*command, f"{option}={value}"]) == 2

    said = capsys.readouterr().err
    assert f"{option}: expected " in said
    assert ", got " in said
    assert len(said.strip().splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["x.jpg"]


def test_a_deadline_wants_the_live_lane(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["produce", "x.jpg", "--deadline", "5"]) == 2
    assert "--deadline: expected --lane live with it, got --lane archive" in capsys.readouterr().err
