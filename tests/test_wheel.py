"""The wheel, in an environment of its own, does the main job: what is tested is what ships."""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from roadstream.sinks.files.readers import read_answers

REPOSITORY = Path(__file__).parent.parent
UV = shutil.which("uv") or str(Path(sys.executable).with_name("uv"))
ROOMS = ("schemas", "streams", "stages", "sinks", "workers", "cascades", "bench")
# What another distribution, or the folder in which somebody works, may well hold.
HOSTILE = (*ROOMS, "roadstream", "queue", "signal", "numpy", "msgspec", "anyio")


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


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run(UV, "build", "--wheel", "--out-dir", folder, folder=REPOSITORY)
    return next(folder.glob("*.whl"))


def contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_wheel_holds_one_package_with_all_that_the_repository_has_of_it(wheel: Path) -> None:
    names = contents(wheel).keys()
    listed = run("git", "ls-files", *ROOMS, folder=REPOSITORY).split()
    there = [path for path in listed if not path.startswith("bench/results/")]
    assert {name.partition("/")[0] for name in names if ".dist-info/" not in name} == {"roadstream"}
    assert {f"roadstream/{path}" for path in there if (REPOSITORY / path).exists()} <= set(names)
    assert {"roadstream/__init__.py", "roadstream/py.typed"} <= set(names)


def test_wheel_from_the_source_distribution_is_the_one_from_the_tree(
    wheel: Path, tmp_path: Path
) -> None:
    run(UV, "build", "--sdist", "--out-dir", tmp_path, folder=REPOSITORY)
    (source,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(source) as archive:
        archive.extractall(tmp_path / "source", filter="data")
    (unpacked,) = (tmp_path / "source").iterdir()
    run(UV, "build", "--wheel", "--out-dir", tmp_path, folder=unpacked)
    (again,) = tmp_path.glob("*.whl")
    assert contents(again) == contents(wheel)


@pytest.mark.timeout(300)
def test_wheel_renders_scores_and_reports_beside_modules_of_the_same_names(
    wheel: Path, tmp_path: Path
) -> None:
    run(UV, "venv", "--python", sys.executable, tmp_path / "env", folder=tmp_path)
    python = tmp_path / "env" / "bin" / "python"
    run(UV, "pip", "install", "--python", python, wheel, folder=tmp_path)
    (site,) = (tmp_path / "env" / "lib").glob("python*/site-packages")
    for name in HOSTILE:
        (tmp_path / f"{name}.py").write_text("raise RuntimeError(__file__)")
    for name in ROOMS:  # of another distribution
        (site / f"{name}.py").write_text("raise RuntimeError(__file__)")
    roadstream = tmp_path / "env" / "bin" / "roadstream"
    run(roadstream, "render", "drive", "--frames", "3", folder=tmp_path)
    run(roadstream, "score", "drive", "--workers=1", "--report", folder=tmp_path)

    rows = list(read_answers(tmp_path / "answers.parquet"))
    assert [row["status"] for row in rows] == ["answered"] * 3
    assert (tmp_path / "answers.html").stat().st_size > 10_000

    run(UV, "pip", "uninstall", "--python", python, "roadstream", folder=tmp_path)
    assert all((site / f"{name}.py").exists() for name in ROOMS)
