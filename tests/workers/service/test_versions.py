"""Versions of the cascade come and go on a running system, and no image is judged by two."""

from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import msgspec
import pytest
from structlog.testing import capture_logs

from roadstream.schemas import codec
from roadstream.schemas.cascade.loading import load_cascade
from roadstream.schemas.cascade.model import Cascade
from roadstream.schemas.errors import UsageError
from roadstream.schemas.records.image import Head, Image, Inline
from roadstream.schemas.records.votes import Escalation, PriorVote, VotesPack
from roadstream.schemas.topics import CASCADES, VOTES, all_topics
from roadstream.schemas.topics import tier as tier_topic
from roadstream.streams.log import Log, Output
from roadstream.streams.memory.log import MemoryLog
from roadstream.streams.topics.versions import Versions, register_version
from roadstream.workers.job.submit import Submitter
from roadstream.workers.service import versions as module
from roadstream.workers.service.access.roll import roll, roll_back
from roadstream.workers.service.runtime import WorkOptions, run_workers
from roadstream.workers.tier.limits import WorkerLimits
from roadstream.workers.tier.versions import place
from tests.kits.tier_bench import DEADLINE, until

PARTITIONS = 2
TIER = """
[[tiers]]
name = "{0}"
[[tiers.members]]
name = "m-{0}"
engine = "{1}"
"""
LIMITS = WorkerLimits(poll_timeout=0.02, version_patience=0.3)


def written(
    folder: Path, threshold: float, tiers: Sequence[str] = ("one", "two"), engine: str = "noop"
) -> Cascade:
    """Return a version of the cascade, told from others by its threshold."""
    path = folder / f"{threshold}.toml"
    path.write_text(
        f'name = "c"\nthreshold = {threshold}\n'
        + "".join(TIER.format(name, engine) for name in tiers)
    )
    return load_cascade(str(path))


async def a_log(cascade: Cascade) -> MemoryLog:
    log = MemoryLog()
    await log.create_topics(all_topics(cascade.tier_names), PARTITIONS)
    await register_version(log, cascade, 1.0)
    return log


async def submit(log: Log, numbers: range, session: str | None = None) -> None:
    async with log.producer() as producer:
        heads = [Head(image_id=f"{i}", session_id=session and f"{session}{i}") for i in numbers]
        pictures = [Image(head, Inline(b"x")) for head in heads]
        await Submitter(producer, None, PARTITIONS).submit(pictures)


@asynccontextmanager
async def working(log: Log, cascade: Cascade, tiers: Sequence[str] = ()) -> AsyncIterator[None]:
    stopping = anyio.Event()
    options = WorkOptions(tiers=list(tiers), limits=LIMITS)
    with anyio.fail_after(DEADLINE):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run_workers, log, cascade, options, stopping)
            yield
            stopping.set()


async def packs(log: Log, images: int) -> list[VotesPack]:
    """Wait until that many votes for images are there; return the packs."""
    found: list[VotesPack] = []
    async with log.reader(VOTES, "beginning") as reader:
        with anyio.fail_after(DEADLINE):
            while sum(len(one.images) for one in found) < images:
                polled = await reader.poll(max_records=1000, timeout=0.2)
                found += [codec.decode_votes(r.value or b"") for rs in polled.values() for r in rs]
    return found


def judged_by(found: list[VotesPack]) -> dict[str, set[str]]:
    """Return, by image, the versions of its votes."""
    by_image: dict[str, set[str]] = defaultdict(set)
    for pack in found:
        for said in pack.images:
            by_image[said.head.image_id].add(pack.cascade_hash)
    return by_image


async def test_a_version_that_is_rolled_judges_what_begins_from_then_on(tmp_path: Path) -> None:
    old, new = written(tmp_path, 0.5), written(tmp_path, 0.6)
    log = await a_log(old)
    async with working(log, old):
        await submit(log, range(20))
        await packs(log, 40)
        await roll(log, new, None, 2.0)
        seen = 20
        while True:  # until it is taken up, what comes is judged by the old one
            await submit(log, range(seen, seen + 5))
            seen += 5
            found = judged_by(await packs(log, 2 * seen))
            if found[str(seen - 1)] == {new.hash}:
                break
            await anyio.sleep(0.05)

    assert {frozenset(found[f"{i}"]) for i in range(20)} == {frozenset({old.hash})}
    assert all(len(versions) == 1 for versions in found.values())


async def test_an_image_under_way_is_judged_to_its_end_by_its_version(tmp_path: Path) -> None:
    old, new = written(tmp_path, 0.5), written(tmp_path, 0.6)
    log = await a_log(old)
    async with working(log, old, ["one"]):
        await submit(log, range(10))
        await packs(log, 10)
    await roll(log, new, None, 2.0)

    async with working(log, old, ["two"]):  # begins with the new one, as the log says
        found = judged_by(await packs(log, 20))

    assert set(map(frozenset, found.values())) == {frozenset({old.hash})}


async def test_a_candidate_judges_its_share_of_sessions(tmp_path: Path) -> None:
    old, new = written(tmp_path, 0.5), written(tmp_path, 0.6)
    log = await a_log(old)
    await roll(log, new, 0.3, 2.0)
    async with working(log, old):
        with anyio.fail_after(DEADLINE):
            seen, found = 0, dict[str, set[str]]()
            while {new.hash} not in found.values():
                await submit(log, range(seen, seen + 20), "s")
                seen += 20
                found = judged_by(await packs(log, 2 * seen))
        await submit(log, range(seen, seen + 200), "s")
        found = judged_by(await packs(log, 2 * seen + 400))

    for i in range(seen, seen + 200):
        expected = new if place(Head(image_id="", session_id=f"s{i}")) < 0.3 else old
        assert found[f"{i}"] == {expected.hash}


async def test_rolling_back_brings_the_version_before_back(tmp_path: Path) -> None:
    old, new, newest = (written(tmp_path, t) for t in (0.5, 0.6, 0.7))
    log = await a_log(old)
    first = await roll(log, new, None, 2.0)
    await roll(log, newest, 0.5, 3.0)

    assert await roll_back(log, 4.0) == msgspec.structs.replace(first, rolled_at=4.0)
    assert (await roll_back(log, 5.0)).main == old.hash
    with pytest.raises(UsageError, match="nothing to roll back to"):
        await roll_back(log, 6.0)


async def test_a_version_with_another_tier_gets_its_topics_and_its_worker(tmp_path: Path) -> None:
    old, new = written(tmp_path, 0.5), written(tmp_path, 0.6, ["one", "two", "three"])
    log = await a_log(old)
    async with working(log, old):
        await submit(log, range(4))
        await packs(log, 8)
        await roll(log, new, None, 2.0)
        await anyio.sleep(0.1)
        seen = 4
        while True:
            await submit(log, range(seen, seen + 1))
            seen += 1
            found = await packs(log, 2 * seen)
            if any(pack.tier == "three" for pack in found):
                break
            await anyio.sleep(0.1)

    assert all(len(versions) == 1 for versions in judged_by(found).values())


async def test_a_version_whose_first_tier_has_another_name_is_refused(tmp_path: Path) -> None:
    old, new = written(tmp_path, 0.5), written(tmp_path, 0.6, ["two", "one"])
    log = await a_log(old)

    with pytest.raises(UsageError, match=r"expected one as the name of the first tier.*got two"):
        await roll(log, new, None, 2.0)

    assert (await read(log)).roll is None


async def read(log: Log) -> Versions:
    versions = Versions(log)
    await versions.refresh()
    return versions


async def test_a_version_that_does_not_load_leaves_the_old_one_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = written(tmp_path, 0.5)
    weights = tmp_path / "w.onnx"
    weights.write_bytes(b"no model")
    path = tmp_path / "new.toml"
    path.write_text(
        'name = "c"\n'
        + TIER.format("one", "onnx")
        + 'model = "w.onnx"\n'
        + TIER.format("two", "noop")
    )
    new = load_cascade(str(path))
    log = await a_log(old)
    with capture_logs() as said:
        async with working(log, old):
            await submit(log, range(4))
            await packs(log, 8)
            await roll(log, new, None, 2.0)
            await until(lambda: any(line["event"] == "version_refused" for line in said))
            await submit(log, range(4, 8))
            found = judged_by(await packs(log, 16))

    (line,) = [line for line in said if line["event"] == "version_refused"]
    assert (line["version"], line["going_on_with"]) == (new.hash, old.hash)
    assert set(map(frozenset, found.values())) == {frozenset({old.hash})}


@pytest.mark.parametrize("known", [True, False])
async def test_images_of_a_version_that_cannot_be_had_end_after_a_while(
    tmp_path: Path, known: bool
) -> None:
    """Weights that are missing, or a version that nobody has told of."""
    old = written(tmp_path, 0.5)
    log = await a_log(old)
    version = "0123456789abcdef"
    if known:
        (tmp_path / "w.onnx").write_bytes(b"no model")
        path = tmp_path / "new.toml"
        path.write_text(
            'name = "c"\n'
            + TIER.format("one", "noop")
            + TIER.format("two", "onnx")
            + 'model = "w.onnx"\n'
        )
        other = load_cascade(str(path))
        (tmp_path / "w.onnx").unlink()
        await register_version(log, other, 2.0)
        version = other.hash
    escalated = [
        Escalation(Head(image_id=f"{i}"), Inline(b"x"), [PriorVote("m-one", 1.0, 0.7)], "", stamp)
        for i, stamp in enumerate([version, old.hash, ""])
    ]
    async with log.producer() as producer:
        topic = tier_topic("two", "archive")
        await producer.publish([Output(topic, b"k", codec.encode(one), 0) for one in escalated])

    async with working(log, old, ["two"]):
        found = await packs(log, 3)

    said = {one.head.image_id: (pack, one) for pack in found for one in pack.images}
    for image in ("1", "2"):
        pack, votes = said[image]
        assert (pack.cascade_hash, votes.error) == (old.hash, None)
        assert votes.probability == pytest.approx([0.982], abs=1e-3)
    pack, votes = said["0"]
    assert pack.cascade_hash == version
    assert (votes.error or "").startswith(f"version_unavailable: {version}: ")
    assert votes.probability == ([None] if known else [])
    assert [run.member for run in pack.runs] == (["m-two"] if known else [])


async def test_what_nobody_uses_is_let_go_of_and_equal_engines_are_shared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "KEPT_FOR", 0.2)
    versions = [written(tmp_path, 0.5 + i / 100) for i in range(8)]
    log = await a_log(versions[0])
    with capture_logs() as said:
        async with working(log, versions[0]):
            for number, version in enumerate(versions[1:]):
                await roll(log, version, None, float(number))
                await submit(log, range(3 * number, 3 * number + 3))
                await packs(log, 6 * number + 6)
            await until(lambda: any(line["event"] == "version_let_go" for line in said))
            found = judged_by(await packs(log, 6 * 7))

    assert all(len(by) == 1 for by in found.values())


async def test_a_version_is_found_where_compaction_has_moved_on(tmp_path: Path) -> None:
    """Then another record is the first from its old place on, perhaps one that nobody can read."""
    told = written(tmp_path, 0.5)
    log = await a_log(told)
    async with log.producer() as producer:
        await producer.publish([Output(CASCADES, b"?", b"garbage", 0)])
    versions = await read(log)
    versions._places[told.hash] = 1

    found = await versions.cascade(told.hash)

    assert found is not None
    assert found.hash == told.hash
