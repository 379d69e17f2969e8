"""Which version of the cascade a worker begins with."""

from pathlib import Path

import anyio
import pytest

from roadstream.schemas.cascade.loading import load_cascade
from roadstream.schemas.cascade.model import Cascade
from roadstream.schemas.topics import all_topics
from roadstream.streams.memory.log import MemoryLog
from roadstream.streams.topics.versions import register_version
from roadstream.workers.service.access.roll import roll
from roadstream.workers.service.loading import EnginePool
from roadstream.workers.service.versions import LoadedVersions

MEMBER = 'name = "c"\n[[tiers]]\nname = "a"\n[[tiers.members]]\nname = "m"\n'
SECOND = '[[tiers.members]]\nname = "n"\nengine = "noop"\n'


def version(folder: Path, number: int, engine: str = "noop") -> Cascade:
    """Write and load a version; one with weights loses them."""
    file, weights = folder / "c.toml", folder / "w.onnx"
    weights.write_bytes(b"no model")
    model = 'model = "w.onnx"\n' if engine == "onnx" else ""
    file.write_text(f'{MEMBER}engine = "{engine}"\n{model}# {number}\n')
    cascade = load_cascade(str(file))
    weights.unlink()
    return cascade


@pytest.mark.parametrize("own", [0, 1, 2])
async def test_where_the_rolled_version_cannot_be_loaded_that_before_judges(
    tmp_path: Path, own: int
) -> None:
    log = MemoryLog()
    made = [version(tmp_path, 0), version(tmp_path, 1), version(tmp_path, 2, "onnx")]
    await log.create_topics(all_topics(["a"]), 1)
    for at, cascade in enumerate(made):
        await roll(log, cascade, None, float(at))
    started_with = made[own] if own < 2 else version(tmp_path, 3)
    pool = EnginePool(1, learns=False)
    versions = LoadedVersions(log, started_with, [], pool)

    assert await versions.start(anyio.Event())

    assert versions.main == made[1].hash
    pool.close()


async def test_tiers_that_the_rolled_version_lacks_are_worked_for_all_the_same(
    tmp_path: Path,
) -> None:
    log, rolled = MemoryLog(), version(tmp_path, 0)
    await log.create_topics(all_topics(["a", "b"]), 1)
    file = tmp_path / "b.toml"
    file.write_text(f'{MEMBER}engine = "noop"\n[[tiers]]\nname = "b"\n{SECOND}')
    own = load_cascade(str(file))
    await register_version(log, own, 1.0)
    await roll(log, rolled, None, 2.0)
    pool = EnginePool(1, learns=False)
    versions = LoadedVersions(log, own, ["b"], pool)

    assert await versions.start(anyio.Event())

    assert (versions.main, versions.tiers) == (rolled.hash, ["b"])
    pool.close()
