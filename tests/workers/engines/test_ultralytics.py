"""YOLO detectors of Ultralytics, in a process of its own: the package is in none of ours."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from roadstream.schemas.errors import ConfigError
from tests.kits.checkpoints.common import write_json
from tests.kits.torch_kit import engine_of

ROOT = Path(__file__).parents[3]
CASES = Path(__file__).with_name("ultralytics_cases.py")
INSTALLED = Path(os.environ.get("ROADSTREAM_ULTRALYTICS", ROOT / ".environments" / "ultralytics"))
YAML = """\
nc: 1
names: [traffic cone]
backbone: [[-1, 1, Conv, [64, 3, 2]]]
head: [[[0], 1, Detect, [nc]]]
"""


@pytest.mark.ultralytics
@pytest.mark.timeout(300)
def test_its_detectors_where_it_is_installed(tmp_path: Path) -> None:
    assert (INSTALLED / "ultralytics").is_dir(), f"expected Ultralytics in {INSTALLED}"
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(INSTALLED), str(ROOT)]),
        "YOLO_CONFIG_DIR": str(tmp_path),
        "YOLO_OFFLINE": "true",
        "YOLO_AUTOINSTALL": "false",
    }

    done = subprocess.run(
        # Its warnings are its own.
        [sys.executable, "-m", "pytest", "-q", "-W", "default", "-p", "no:cacheprovider", CASES],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]


def test_without_the_package_it_says_where_to_look(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.yaml").write_text(YAML)
    write_json(folder / "model.safetensors", {})
    settings: dict[str, Any] = {"family": "ultralytics", "roadwork": ["traffic cone"]}

    with pytest.raises(
        ConfigError, match=r"Ultralytics, which docs/guide/models\.md says how to install"
    ):
        engine_of(tmp_path, size=(64, 64), **settings).load()
