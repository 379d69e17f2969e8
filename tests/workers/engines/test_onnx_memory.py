"""onnxruntime out of memory, for real: in a process whose address space is limited."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
HALVED = """
import resource
import sys
from pathlib import Path

import msgspec
import numpy as np

from roadstream.schemas.cascade.loading import load_cascade
from roadstream.schemas.settings.local import OnnxSettings
from roadstream.stages.inference import Picture, Pictures, infer_isolated
from roadstream.workers.engines.options import EngineOptions
from roadstream.workers.engines.registry import build_engine

chosen = load_cascade(Path("cascades/lite.toml"))
member = next(m for t in chosen.tiers for m in t.members if m.engine == "onnx")
member = msgspec.structs.replace(member, settings=OnnxSettings(pictures_per_run=64))
engine = build_engine(chosen, member, EngineOptions())
engine.load()
random = np.random.default_rng(0)
shape = (member.height, member.width, 3)
seen = [Picture(random.integers(0, 255, shape, np.uint8)) for _ in range(4)]
clean = [score.raw for score in engine.infer(Pictures(seen))]
pages = int(Path("/proc/self/statm").read_text().split()[0])
limit = pages * resource.getpagesize() + (48 << 20)
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
findings = infer_isolated(engine, Pictures(seen * 10))
assert findings.fits is not None, "the limit is too generous for this test"
assert [score.raw for score in findings.found] == clean * 10
print(findings.fits, findings.runs)
"""


PEAK = """
import resource
import sys

import numpy as np

from roadstream.schemas.cascade.loading import load_cascade
from roadstream.stages.inference import Picture, Pictures
from roadstream.workers.engines.options import EngineOptions
from roadstream.workers.engines.registry import build_engine

chosen, batch = load_cascade("lite"), int(sys.argv[1])
closer = chosen.tier("closer").members[0]
engine = build_engine(chosen, closer, EngineOptions())
engine.load()
pixels = np.zeros((closer.height, closer.width, 3), np.uint8)
for size in range(1, batch + 1):
    engine.infer(Pictures([Picture(pixels) for _ in range(size)]))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10)
"""


def run(code: str, *arguments: str) -> str:
    child = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert child.returncode == 0, child.stderr[-2000:]
    return child.stdout


def test_a_batch_that_onnxruntime_has_no_memory_for_is_halved() -> None:
    fits, runs = map(int, run(HALVED).split())
    assert 1 <= fits < 40
    assert runs > 1


def test_larger_batches_take_no_more_memory_than_their_pictures() -> None:
    one, four = int(run(PEAK, "1")), int(run(PEAK, "4"))
    assert four < one + 25  # MiB; a run of four together would take 600 more
