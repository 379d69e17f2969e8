"""Installs the packages of ``examples/``, each into a folder of its own."""

import shutil
import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "examples"
UV = shutil.which("uv") or str(Path(sys.executable).with_name("uv"))


def installed(name: str, folder: Path) -> Path:
    """Install a copy of an example; return the folder of packages that it is in."""
    shutil.copytree(EXAMPLES / name, folder / "source")
    command = [UV, "pip", "install", "--quiet", "--no-deps", "--target", "site", "./source"]
    subprocess.run(command, cwd=folder, check=True, timeout=100)
    return folder / "site"
