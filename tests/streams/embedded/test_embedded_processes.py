"""The embedded log under faults of whole processes: stopped, killed, out of disk."""

import json
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from pathlib import Path

import anyio
from anyio.streams.buffered import BufferedByteReceiveStream

from roadstream.streams.embedded.log import EmbeddedLog
from roadstream.streams.log import Output
from tests.kits.contract import DEADLINE
from tests.kits.embedded_kit import everything, forward

FILL = """
import json, resource, sys
from pathlib import Path
import anyio
from roadstream.schemas.errors import OutputError
from roadstream.streams.embedded.log import EmbeddedLog
from roadstream.streams.log import Output, TopicPartition

def limit(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

async def main(path):
    async with EmbeddedLog(path) as log, log.producer() as producer:
        await log.create_topics(["in", "out"], 1)
        await producer.publish([Output("in", None, bytes(1000))] * 10)
        async with log.consumer("g", ["in"]) as consumer:
            await consumer.poll(max_records=10, timeout=1)
            epoch, tp = consumer.assignment.epoch, TopicPartition("in", 0)
            limit(1 << 20)
            done, refused = 0, ""
            while not refused and done < 10:
                try:
                    outputs = [Output("out", b"%d" % done, bytes(100_000))] * 3
                    await consumer.publish(outputs, {tp: done + 1}, epoch)
                    done += 1
                except OutputError as error:
                    refused = str(error)
            stood = (await consumer.committed())[tp]
            async with log.reader("out", "end") as reader:
                end = (await reader.ends())[0]
            limit(resource.RLIM_INFINITY)
            await consumer.poll(max_records=0, timeout=0)
            await consumer.publish([Output("out", b"after", b"")], {tp: 10}, epoch)
            print(json.dumps([done, refused, stood, end, log.stats.write_errors]))

anyio.run(main, Path(sys.argv[1]))
"""
# Forwards records under a name; says what it got, then waits for a line before it publishes.
ZOMBIE = """
import sys
from pathlib import Path
import anyio
from anyio import to_thread
from roadstream.schemas.errors import FencedError
from roadstream.streams.embedded.log import EmbeddedLog
from roadstream.streams.log import Output

async def main(path, timeout):
    async with EmbeddedLog(path, session_timeout=timeout) as log:
        async with log.consumer("g", ["in"], member_id="zombie") as consumer:
            polled = {}
            while not polled:
                polled = await consumer.poll(max_records=10, timeout=0.05)
            epoch = consumer.assignment.epoch
            commit = {tp: records[-1].offset + 1 for tp, records in polled.items()}
            print("got", flush=True)
            await to_thread.run_sync(sys.stdin.readline)
            try:
                await consumer.publish([Output("out", None, b"zombie")], commit, epoch)
                print("published", flush=True)
            except FencedError:
                print("fenced", flush=True)
            while not consumer.assignment.partitions or consumer.assignment.epoch == epoch:
                await consumer.poll(max_records=0, timeout=0)
            print("back", log.stats.returns, flush=True)

anyio.run(main, Path(sys.argv[1]), float(sys.argv[2]))
"""
# Forks forwarders and kills them at random moments. No thread is running when it forks.
KILLER = """
import os, random, signal, sys, time
from pathlib import Path
import anyio
from roadstream.streams.embedded.log import EmbeddedLog
from roadstream.streams.log import Output

async def forward(path, name):
    async with EmbeddedLog(path, session_timeout=1.0) as log:
        async with log.consumer("g", ["in"], member_id=name) as consumer:
            while True:
                polled = await consumer.poll(max_records=8, timeout=0.01)
                outputs = [Output("out", None, r.value, tp.partition)
                           for tp, records in polled.items() for r in records]
                commit = {tp: records[-1].offset + 1 for tp, records in polled.items()}
                if outputs:
                    await consumer.publish(outputs, commit, consumer.assignment.epoch)

def start(path, name):
    pid = os.fork()
    if pid:
        return pid
    try:
        anyio.run(forward, path, name)
    finally:
        os._exit(1)

anyio.run(anyio.sleep, 0)  # loads what the forks would each load
path, kills, rng = Path(sys.argv[1]), int(sys.argv[2]), random.Random(int(sys.argv[3]))
running = {name: start(path, name) for name in ("a", "b")}
early = 0
for _ in range(kills):
    time.sleep(rng.uniform(0.0, 0.12))
    name = rng.choice(sorted(running))
    early += os.waitpid(running[name], os.WNOHANG) != (0, 0)
    os.kill(running[name], signal.SIGKILL)
    os.waitpid(running[name], 0)
    running[name] = start(path, name)
for pid in running.values():
    os.kill(pid, signal.SIGKILL)
print(early)
"""


async def test_the_stale_work_of_a_stopped_process_is_fenced_when_it_goes_on(
    tmp_path: Path,
) -> None:
    path, timeout = tmp_path / "log.db", 0.5
    async with EmbeddedLog(path, session_timeout=timeout) as log, log.producer() as producer:
        await log.create_topics(["in", "out"], 1)
        await producer.publish([Output("in", None, b"%d" % i) for i in range(5)])
        command = [sys.executable, "-c", ZOMBIE, str(path), str(timeout)]
        async with await anyio.open_process(command) as zombie:
            assert zombie.stdin is not None
            assert zombie.stdout is not None
            said = BufferedByteReceiveStream(zombie.stdout)
            with anyio.fail_after(DEADLINE):
                assert await said.receive_until(b"\n", 100) == b"got"
                zombie.send_signal(signal.SIGSTOP)
                try:
                    async with log.consumer("g", ["in"]) as heir:
                        done = 0
                        while done < 5:
                            done += await forward(heir)
                        zombie.send_signal(signal.SIGCONT)
                        await zombie.stdin.send(b"\n")
                        assert await said.receive_until(b"\n", 100) == b"fenced"
                        assert await everything(log, "out") == [b"%d" % i for i in range(5)]
                        assert log.stats.evictions == 1
                    assert await said.receive_until(b"\n", 100) == b"back 1"
                finally:
                    zombie.kill()


async def test_forwarders_killed_at_random_moments_lose_and_double_nothing(tmp_path: Path) -> None:
    path, kills = tmp_path / "log.db", 36
    inputs = [b"%d" % i for i in range(6000)]
    async with EmbeddedLog(path, session_timeout=1.0) as log, log.producer() as producer:
        await log.create_topics(["in", "out"], 4)
        await producer.publish([Output("in", v, v) for v in inputs[:3000]])
        command = [sys.executable, "-c", KILLER, str(path), str(kills), "1"]
        async with await anyio.open_process(command) as killer:
            for start in range(3000, 6000, 100):
                await producer.publish([Output("in", v, v) for v in inputs[start : start + 100]])
                await anyio.sleep(0.01)  # so that commits of several processes mix
            assert killer.stdout is not None
            ended = BufferedByteReceiveStream(killer.stdout)
            assert await ended.receive_until(b"\n", 100) == b"0"  # none by itself
        left = await log.lag("g", ["in"])
        async with log.consumer("g", ["in"], member_id="a") as heir:
            with anyio.fail_after(DEADLINE):
                while await log.lag("g", ["in"]):
                    await forward(heir)

        assert left < len(inputs), "those that were killed got nothing done"
        assert Counter(await everything(log, "out")) == Counter(inputs)
        assert log.database.connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_process_whose_disk_fills_up_says_so_and_goes_on_when_there_is_room(
    tmp_path: Path,
) -> None:
    child = subprocess.run(
        [sys.executable, "-c", FILL, str(tmp_path / "log.db")],
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )

    assert child.returncode == 0, child.stderr
    done, refused, stood, end, write_errors = json.loads(child.stdout)
    assert 0 < done < 10
    assert "cannot be written" in refused
    assert "is full" in refused
    assert (stood, end, write_errors) == (done, 3 * done, 1)  # nothing half-written
    with sqlite3.connect(tmp_path / "log.db") as file:
        assert file.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert file.execute("SELECT COUNT(*) FROM records").fetchone() == (10 + 3 * done + 1,)
        assert file.execute("SELECT next FROM offsets").fetchall() == [(10,)]
    file.close()
