"""PyTorch out of memory, for real: in a process whose address space is limited."""

import subprocess
import sys
from pathlib import Path

from tests.kits.checkpoints import backbones

ROOT = Path(__file__).parents[3]
CHILD = """
import resource
import sys
from pathlib import Path

import numpy as np

from roadstream.stages.inference import Picture, Pictures, infer_isolated
from tests.kits.torch_kit import engine_of

size = (512, 352)
engine = engine_of(Path(sys.argv[1]), size=size, roadwork=["cones"])
engine.load()
random = np.random.default_rng(0)
shape = (size[1], size[0], 3)
seen = [Picture(random.integers(0, 255, shape, np.uint8)) for _ in range(4)]
clean = np.array([score.raw for score in engine.infer(Pictures(seen))])
pages = int(Path("/proc/self/statm").read_text().split()[0])
limit = pages * resource.getpagesize() + (96 << 20)
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
findings = infer_isolated(engine, Pictures(seen * 10))
assert findings.fits is not None, "the limit is too generous for this test"
found = np.array([score.raw for score in findings.found])
assert np.allclose(found, np.tile(clean, 10), atol=1e-4), (found, clean)
print(findings.fits, findings.runs)
"""


def test_a_batch_that_pytorch_has_no_memory_for_is_halved(tmp_path: Path) -> None:
    backbones.timm_model(tmp_path / "model", "test_convnext", ["road", "cones"])
    child = subprocess.run(
        [sys.executable, "-c", CHILD, str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert child.returncode == 0, child.stderr[-2000:]
    fits, runs = map(int, child.stdout.split())
    assert 1 <= fits < 40
    assert runs > 1
