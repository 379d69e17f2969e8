"""Machine code of box fusion: what costs numba ten seconds is compiled once for a whole run."""

import fcntl
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.kits.kafka_fixture import SHARED

COMPILE = """
import pickle
from pathlib import Path

import numba

from roadstream.stages.voting import fusion, fusion_kernel, fusion_reader

for module in (fusion_kernel, fusion_reader):
    for compiled in vars(module).values():
        if hasattr(compiled, "py_func"):
            compiled._cache.flush()
for index in Path(fusion_kernel.fuse.stats.cache_path).glob("*.nbi"):
    index.write_bytes(pickle.dumps(numba.__version__) + b"cmodule_that_is_gone\\nName\\n.")
fusion.load_fusion("x")
"""
"""Compiles where machine code was kept that names a module of before, or was cut off."""


def pytest_configure(config: pytest.Config) -> None:
    """Keep machine code apart from that of the source tree: tests say how it comes to be."""
    if SHARED in os.environ:
        folder = os.environ[SHARED]
    else:
        temporary = tempfile.TemporaryDirectory(prefix="roadstream-numba-")
        config.add_cleanup(temporary.cleanup)
        folder = temporary.name
    os.environ["NUMBA_CACHE_DIR"] = str(Path(folder, "numba"))


@pytest.fixture(scope="session")
def compiled_fusion() -> None:
    """Compile the loop of fusion, unless another process of this run has, for all of them."""
    folder = Path(os.environ["NUMBA_CACHE_DIR"])
    folder.mkdir(exist_ok=True)
    with (folder / "compiled").open("ab") as compiled:
        fcntl.flock(compiled, fcntl.LOCK_EX)
        if compiled.tell() == 0:
            subprocess.run([sys.executable, "-P", "-c", COMPILE], check=True)
            compiled.write(b"all")
