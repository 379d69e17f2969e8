"""The wheel, in an environment of its own, does the main job: what is tested is what ships."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from roadstream.sinks.readers import read_answers

REPOSITORY = Path(__file__).parent.parent


def run(*command: str | Path, folder: Path) -> str:
    environment = {k: v for k, v in os.environ.items() if k not in {"VIRTUAL_ENV", "PYTHONPATH"}}
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


@pytest.mark.timeout(300)
def test_wheel_renders_scores_and_reports_from_an_empty_folder(tmp_path: Path) -> None:
    uv = shutil.which("uv") or str(Path(sys.executable).with_name("uv"))
    run(uv, "build", "--wheel", "--out-dir", tmp_path / "dist", folder=REPOSITORY)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    for room in ("schemas", "streams", "stages", "sinks", "workers", "cascades"):
        assert f"{room}/py.typed" in names
    assert not any(name.startswith(("tests/", "bench/", "training/")) for name in names)

    run(uv, "venv", "--python", sys.executable, tmp_path / "env", folder=tmp_path)
    python = tmp_path / "env" / "bin" / "python"
    run(uv, "pip", "install", "--python", python, wheel, folder=tmp_path)
    roadstream = tmp_path / "env" / "bin" / "roadstream"
    run(roadstream, "render", "drive", "--frames", "3", folder=tmp_path)
    run(roadstream, "score", "drive", "--report", folder=tmp_path)

    rows = list(read_answers(tmp_path / "answers.parquet"))
    assert [row["status"] for row in rows] == ["answered"] * 3
    assert (tmp_path / "answers.html").stat().st_size > 10_000
