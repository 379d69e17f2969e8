"""A Triton member in the stream: its server is killed and comes back, deadlines pass."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest
from anyio import to_thread
from msgspec.structs import replace

from roadstream.schemas import codec
from roadstream.schemas.cascade.model import Cascade
from roadstream.schemas.records.answer import Answer
from roadstream.schemas.topics import ANSWERS, DEAD_LETTERS
from roadstream.stages.breaker import Cooldown, MemberPolicy
from roadstream.stages.inference import Engine
from roadstream.workers.service.deciding import build_consensus
from roadstream.workers.tier.judge import Judge
from tests.kits.builders import cascade, member, tier
from tests.kits.fake_engine import GreyEngine
from tests.kits.tier_bench import OPTIONS, Bench, image, running
from tests.kits.triton_kit import engine_on, triton_member
from tests.kits.triton_server import GATED, GREY, TritonServer

pytestmark = pytest.mark.triton


def of_two(server: TritonServer, model: str) -> Cascade:
    """Return a cascade of one tier: a member on the server, and one here."""
    return cascade(tier("one", triton_member(server, model), member("here"), max_batch=8))


def judge(bench: Bench, engine: Engine, policy: MemberPolicy, timer: list[float]) -> Judge:
    engines = {"m": engine, "here": GreyEngine()}
    options = replace(OPTIONS, breaker=policy, timer=lambda: timer[0])
    return Judge(bench.cascade, "one", engines, options=options)


def state(judging: Judge) -> str:
    return judging.breakers["m"].state


@asynccontextmanager
async def consensus(bench: Bench) -> AsyncIterator[None]:
    """Run the consensus sink; stop it in good order afterwards."""
    stopping = anyio.Event()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(build_consensus(bench.log, bench.cascade).run, stopping)
        yield
        stopping.set()


async def answers(bench: Bench, count: int) -> dict[str, Answer]:
    """Wait for so many answers; return them by image."""
    found = [codec.decode_answer(value) for _, value in await bench.receive(ANSWERS, count)]
    return {answer.head.image_id: answer for answer in found}


async def test_a_server_that_is_killed_takes_out_its_member_until_it_is_back(
    tmp_path: Path,
) -> None:
    server = TritonServer(tmp_path)
    (server.add("gated", GATED, "gated") / "gate").touch()
    await to_thread.run_sync(server.start, "gated")
    timer = [0.0]
    bench = Bench(of_two(server, "gated"))
    await bench.create_topics()
    with engine_on(server, "gated") as engine:
        policy = MemberPolicy(cooldown=Cooldown(first=5.0, longest=5.0))
        judging = judge(bench, engine, policy, timer)
        async with consensus(bench), running(bench.worker(judge=judging)):
            await bench.send("images.archive", *[image(f"before-{i}", 200) for i in range(3)])
            before = await bench.said(3)

            server.kill()
            await bench.send("images.archive", image("first", 200))
            await bench.said(4)
            await bench.send("images.archive", *[image(f"away-{i}", 200) for i in range(3)])
            away = await bench.said(7)
            assert state(judging) == "open"

            await to_thread.run_sync(server.start, "gated")
            sent = 7
            while state(judging) != "closed":
                timer[0] += 6.0
                await bench.send("images.archive", image(f"trial-{sent}", 200))
                sent += 1
                await bench.said(sent)
            await bench.send("images.archive", image("back", 200))
            back = await bench.said(sent + 1)
            decided = await answers(bench, sent + 1)
            assert server.regions(), "the new server was told of no shared memory"
        assert judging.members[0].stats.away == sent - 7
    server.kill()

    assert before["before-0"].raw == [3.0, 4.5]
    assert [away[name].raw for name in ("first", "away-0", "away-2")] == [[None, 4.5]] * 3
    assert not any(said.error for said in away.values())
    assert back["back"].raw == before["before-0"].raw
    flags = {name: answer.flags for name, answer in decided.items()}
    assert (flags["before-0"], flags["back"]) == ([], [])
    assert flags["first"] == flags["away-1"] == ["degraded"]
    assert decided["away-0"].missing == ["m"]
    assert not any(bench.log.topics[DEAD_LETTERS])


async def test_an_image_whose_deadline_passes_at_the_server_lacks_that_vote_alone(
    triton: TritonServer,
) -> None:
    if not triton.has("patient"):
        triton.add("patient", GATED, "gated")
        triton.load("patient")
    bench = Bench(of_two(triton, "patient"))
    await bench.create_topics()
    with engine_on(triton, "patient") as engine:
        judging = judge(bench, engine, MemberPolicy(), [0.0])
        async with running(bench.worker(judge=judging)):
            await bench.send("images.live", image("live", 200, deadline_at=time.time() + 0.5))
            late = await bench.said(1)
            (triton.repository / "patient" / "1" / "gate").touch()
            await bench.send("images.archive", image("archive", 200))
            found = await bench.said(2)

    assert late["live"].raw == [None, 4.5]
    assert found["archive"].raw == [3.0, 4.5]
    assert state(judging) == "closed"
    assert not any(bench.log.topics[DEAD_LETTERS])


async def test_a_member_that_need_not_be_there_joins_when_its_server_comes(
    tmp_path: Path,
) -> None:
    server = TritonServer(tmp_path)
    server.add("grey", GREY, "grey")
    timer = [0.0]
    bench = Bench(of_two(server, "grey"))
    await bench.create_topics()
    with engine_on(server, "grey", input="jpeg", required=False) as engine:
        engine.warm_up(4)
        policy = MemberPolicy(cooldown=Cooldown(first=5.0, longest=5.0))
        judging = judge(bench, engine, policy, timer)
        async with running(bench.worker(judge=judging)):
            await bench.send("images.archive", image("alone", 200))
            alone = await bench.said(1)
            await to_thread.run_sync(server.start, "grey")
            sent = 1
            while state(judging) != "closed":
                timer[0] += 6.0
                await bench.send("images.archive", image(f"{sent}", 200))
                sent += 1
                found = await bench.said(sent)
    server.kill()

    assert alone["alone"].raw == [None, 4.5]
    assert found[f"{sent - 1}"].raw == [pytest.approx(4.5, abs=0.1), 4.5]
