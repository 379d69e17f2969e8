"""``roadstream up`` as an operator sees it: metrics, health, kills and restarts."""

import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from roadstream.schemas import codec
from roadstream.schemas.cascade.loading import shipped_cascades
from roadstream.schemas.records.image import Head, Image, Inline
from roadstream.schemas.topics import ANSWERS
from roadstream.streams.embedded.log import EmbeddedLog
from roadstream.streams.log import Polled
from roadstream.workers.cli import run
from roadstream.workers.commands.common import member_name, state_folder
from roadstream.workers.job.submit import Submitter
from tests.kits.command import ROADSTREAM, write_cascade

pytestmark = pytest.mark.timeout(150)
PICTURES = 60


class Running:
    """A ``roadstream up`` with what it has said so far."""

    def __init__(self, process: "subprocess.Popen[str]", folder: Path) -> None:
        self.process, self.folder = process, folder
        self.said: list[str] = []

    def wait_for(self, text: str, times: int = 1) -> str:
        """Read on until ``text`` was said so often from now on; return the last such line."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.said.append(line)
            times -= text in line
            if times == 0:
                return line
        raise AssertionError(f"ended without saying {text!r}: {self.said}")

    def addresses(self) -> dict[str, str]:
        """Return where each process serves its metrics, by its name."""
        served = json.loads(self.wait_for('"event": "up"'))["metrics"]
        return {name: url.removeprefix("http://").split("/")[0] for name, url in served.items()}

    def pid(self, name: str) -> int:
        """Return the process id of a child, as it was last started."""
        events = [json.loads(line) for line in self.said if line.startswith("{")]
        return int(
            [
                e["child_pid"]
                for e in events
                if e["event"] == "child_started" and e["child"] == name
            ][-1]
        )

    def wait_until(self, is_so: Callable[[], Any]) -> None:
        """Look every tenth of a second, the test's own timeout bounding it, until it is so."""
        while not is_so():
            try:
                self.process.wait(timeout=0.1)
            except subprocess.TimeoutExpired:
                continue
            raise AssertionError(f"ended early: {self.said}")

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        self.process.send_signal(how)
        rest, _ = self.process.communicate(timeout=60)[::-1]
        self.said += rest.splitlines(keepends=True)


@contextmanager
def up(folder: Path, *options: str, cascade: str = "") -> Iterator[Running]:
    process = subprocess.Popen(
        [ROADSTREAM, "up", "--log", "embedded:log.db",
         "--cascade", cascade or write_cascade(folder),
         "--name", "here", "--partitions", "2", *options],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "XDG_STATE_HOME": str(folder / "state"), "COLUMNS": "120"},
    )  # fmt: skip
    running = Running(process, folder)
    try:
        yield running
    finally:
        if process.poll() is None:
            running.stop()
        process.wait()


def get(at: str, path: str) -> tuple[int, str]:
    """Return the status and text at a path; status 0 while nobody listens there."""
    try:
        with urllib.request.urlopen(f"http://{at}{path}", timeout=10) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()
    except (urllib.error.URLError, ConnectionError):
        return 0, ""


def metrics(at: str) -> dict[tuple[str, ...], float]:
    """Return every sample by name and label values."""
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(get(at, "/metrics")[1])
        for sample in family.samples
    }


async def produce(folder: Path, name: str, count: int = PICTURES) -> None:
    sent = [Image(Head(image_id=f"{name}-{i}", uri=f"{i}"), Inline(b"x")) for i in range(count)]
    async with EmbeddedLog(folder / "log.db") as log, log.producer() as producer:
        await Submitter(producer, None, 2).submit(sent)


async def answered(folder: Path, count: int) -> list[str]:
    """Wait for so many answers; return the ids of all that are there then."""
    found: list[str] = []
    async with (
        EmbeddedLog(folder / "log.db") as log,
        log.reader(ANSWERS, "beginning") as reader,
    ):
        polled: Polled = {}
        while len(found) < count or polled:
            polled = await reader.poll(max_records=1000, timeout=1)
            records = [record for records in polled.values() for record in records]
            found += [codec.decode_answer(record.value or b"").head.image_id for record in records]
    return sorted(found)


def ids(*names: str) -> list[str]:
    return sorted(f"{name}-{i}" for name in names for i in range(PICTURES))


async def test_metrics_and_health_show_the_work_and_a_kill_and_the_work_goes_on(
    tmp_path: Path,
) -> None:
    with up(tmp_path, "--metrics", "0") as running:
        at = running.addresses()
        assert list(at) == ["supervisor", "first 0", "second 0", "consensus"]
        running.wait_until(lambda: get(at["supervisor"], "/readyz")[0] == 200)
        for place in at.values():
            assert get(place, "/healthz") == (200, '{"ok":true,"reasons":[]}\n')
            assert get(place, "/readyz")[0] == 200
            assert get(place, "/elsewhere")[0] == 404

        await produce(tmp_path, "one")
        assert await answered(tmp_path, PICTURES) == ids("one")
        judged = ("roadstream_images_judged_total", "second")
        assert metrics(at["second 0"])[judged] == PICTURES
        running.wait_for("_started", times=3)  # so that every child was named by now
        os.kill(running.pid("second 0"), signal.SIGKILL)
        restarts = ("roadstream_child_restarts_total", "second 0")
        running.wait_until(lambda: metrics(at["supervisor"])[restarts] == 1)
        await produce(tmp_path, "two")
        assert await answered(tmp_path, 2 * PICTURES) == ids("one", "two")
        running.wait_until(lambda: metrics(at["second 0"]).get(judged) == PICTURES)
        shown = metrics(at["supervisor"])
        assert shown["roadstream_child_restarts_total", "first 0"] == 0
        assert shown["roadstream_child_up", "consensus"] == 1

    assert running.process.returncode == 0
    assert sum("child_died" in line for line in running.said) == 1
    assert sum("_stopped" in line for line in running.said) == 3


def amiss(page: str) -> str | None:
    """Return what promtool has to say about a page of metrics, if anything."""
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=page, capture_output=True, text=True, check=False
    )
    return done.stdout + done.stderr or (None if done.returncode == 0 else "failed")


@pytest.mark.prometheus
async def test_promtool_finds_nothing_amiss_with_what_each_process_serves(tmp_path: Path) -> None:
    with up(tmp_path, "--metrics", "0") as running:
        at = running.addresses()
        running.wait_until(lambda: get(at["supervisor"], "/readyz")[0] == 200)
        await produce(tmp_path, "one")
        await answered(tmp_path, PICTURES)
        lag = ("roadstream_topic_lag_records", "roadstream.tier.first", "images.archive")
        for place in at.values():
            get(place, "/metrics")  # from now on the lag is asked
        running.wait_until(lambda: lag in metrics(at["first 0"]))
        said = {name: amiss(get(place, "/metrics")[1]) for name, place in at.items()}
        assert said == dict.fromkeys(at)


WITH_WEIGHTS = """
name = "noop"
threshold = 0.5
[[tiers]]
name = "first"
members = [{ name = "one", engine = "noop" }]
routes = [{ min_confidence = 0.999, to = "exit" }]
[[tiers]]
name = "second"
[[tiers.members]]
name = "two"
engine = "onnx"
model = "weights.onnx"
width = 256
height = 160
"""


@pytest.mark.timeout(300)  # a dozen processes start one after the other
async def test_children_judge_by_the_cascade_that_up_was_started_with(tmp_path: Path) -> None:
    models = tmp_path / "models"
    models.mkdir()
    file, weights = models / "own.toml", models / "weights.onnx"
    file.write_text(WITH_WEIGHTS)
    shutil.copy(shipped_cascades()["lite"].parent / "lite" / "glance.onnx", weights)
    with up(tmp_path, "--metrics", "0", cascade="models/own.toml") as running:
        at = running.addresses()["supervisor"]
        running.wait_for("_started", times=6)  # three children, and what runs in each
        file.write_text("broken =")
        os.kill(running.pid("first 0"), signal.SIGKILL)
        running.wait_for("worker_started")
        file.unlink()
        os.kill(running.pid("consensus"), signal.SIGKILL)
        running.wait_for("consensus_started")

        kept = weights.read_bytes()
        weights.write_bytes(kept[:-1])
        os.kill(running.pid("second 0"), signal.SIGKILL)
        got = hashlib.sha256(kept[:-1]).hexdigest()[:16]
        changed = f"noop: member two: model: {weights}: changed since the cascade was loaded"
        said = json.loads(running.wait_for(changed, times=2))["said"]
        assert said == f"{changed}: expected {hashlib.sha256(kept).hexdigest()[:16]}, got {got}"
        running.wait_until(lambda: "second 0: " in get(at, "/readyz")[1])
        assert "first 0" not in get(at, "/readyz")[1]
        weights.write_bytes(kept)
        running.wait_for("worker_started")
        running.wait_until(lambda: get(at, "/readyz")[0] == 200)
    assert running.process.returncode == 0


async def test_a_killed_supervisor_takes_its_children_along_and_its_successor_their_place(
    tmp_path: Path,
) -> None:
    ledger = tmp_path / "ledger"
    with up(tmp_path, "--ledger", str(ledger)) as first:
        first.wait_for("_started", times=6)  # three children, and what runs in each
        pids = [first.pid(name) for name in ("first 0", "second 0", "consensus")]
        await produce(tmp_path, "one")
        first.process.kill()
        first.process.wait()
        with up(tmp_path) as second:
            second.wait_for('"assigned"')
            (assigned,) = [json.loads(line) for line in second.said if '"assigned"' in line]
            assert assigned["partitions"] == [0, 1]
            await produce(tmp_path, "two")
            assert await answered(tmp_path, 2 * PICTURES) == ids("one", "two")
            second.wait_until(lambda: all(is_gone(pid) for pid in pids))
        assert first.process.stderr is not None
        first.process.stderr.close()
    last_words = [json.loads(path.read_bytes().splitlines()[-1]) for path in ledger.iterdir()]
    assert [event["event"] for event in last_words] == ["closed"] * 3


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["work", "--metrics", "nowhere"], "--metrics: expected HOST:PORT or a port"),
        (["consensus", "--metrics", "127.0.0.1:99999"], "--metrics: expected HOST:PORT or a port"),
        (["work", "--metrics", "²"], "--metrics: expected HOST:PORT or a port, got '²'"),
        (["work", "--metrics", "a..b:0"], "--metrics a..b:0: "),
        (["up", "--metrics", "65534"], "expected 5 ports from 65534 on"),
        (["up", "--drain-timeout", "5"], "--drain-timeout: expected more than 5"),
        (["work", "--drain-timeout", "nan"], "--drain-timeout: expected more than 5"),
    ],
)
def test_wrong_usage_is_one_clear_line_and_status_2(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*arguments, "--log", "embedded:log.db"]) == 2
    said = capsys.readouterr().err
    assert words in said
    assert said.count("\n") == 1


def test_a_member_may_be_named_after_its_host() -> None:
    assert member_name("{host}-glance") == f"{socket.gethostname()}-glance"
    assert member_name("plain") == "plain"
    assert member_name(None) is None


def test_state_is_kept_for_workers_with_a_name_only_unless_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    assert state_folder(None, None) is None
    assert state_folder(None, "here") == tmp_path / "state" / "roadstream"
    assert state_folder(tmp_path, None) == tmp_path


def test_a_state_folder_that_nobody_asked_for_may_be_impossible(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/proc/no/such")
    assert state_folder(None, "here") is None
