"""The programs in ``examples/``, as a foreign producer runs them, on a real Kafka."""

import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from roadstream.schemas import codec
from roadstream.schemas.topics import spread
from roadstream.sinks.files.readers import read_answers
from roadstream.streams.kafka.log import KafkaLog, KafkaSettings
from roadstream.streams.log import Record
from roadstream.streams.topics.namespace import NamespacedLog
from tests.kits.command import (
    TIMEOUT,
    roadstream,
    started,
    wait_for_answers,
    write_cascade,
    write_pictures,
)

pytestmark = [
    pytest.mark.kafka,
    pytest.mark.timeout(180),
    pytest.mark.usefixtures("impatient"),
]
ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
INSTALLED = Path(os.environ.get("ROADSTREAM_NODE", ROOT / ".environments" / "node"))
# The processes that run tests share a cluster.
NAMESPACE, PARTITIONS = f"examples-{os.environ.get('PYTEST_XDIST_WORKER', 'alone')}", 4
PLACE = re.compile(rf"(\w{{32}}) {NAMESPACE}\.(images\.\w+)\[(\d)\]@(\d+)")
WITHOUT_PYTHON = importlib.util.find_spec("confluent_kafka") is None
WITHOUT_NODE = not (INSTALLED / "node").exists()
PYTHON = [sys.executable, str(EXAMPLES / "producer_confluent.py")]


def test_what_the_examples_need_is_installed_where_everything_is_tested() -> None:
    assert "CI" not in os.environ or not (WITHOUT_PYTHON or WITHOUT_NODE)


@pytest.fixture
def javascript(tmp_path: Path) -> list[str]:
    """The program beside the modules that it needs."""
    shutil.copy(EXAMPLES / "producer.mjs", tmp_path)
    (tmp_path / "node_modules").symlink_to(INSTALLED / "node_modules")
    return [str(INSTALLED / "node"), "--no-warnings", str(tmp_path / "producer.mjs")]


@pytest.fixture(scope="module")
def log(kafka_bootstrap: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Workers that answer what is sent in a namespace of the examples' own."""
    url, folder = f"kafka://{kafka_bootstrap}", tmp_path_factory.mktemp("up")
    common = ("--log", url, "--namespace", NAMESPACE, "--cascade", write_cascade(folder))
    made = roadstream("topics", "create", *common, "--partitions", "4", folder=folder)
    assert made.returncode == 0, made.stderr
    up = started("up", "--partitions", "4", *common, folder=folder)
    yield url
    up.send_signal(signal.SIGTERM)
    up.communicate(timeout=60)


def run(program: list[str], *words: str, log: str, folder: Path) -> tuple[int, str, str]:
    servers = log.removeprefix("kafka://")
    done = subprocess.run(
        [*program, *words, "--servers", servers, "--namespace", NAMESPACE],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def answered(log: str, folder: Path, ids: set[str]) -> dict[str, str]:
    """Wait until all of these images have their answers; return their statuses."""
    wait_for_answers(log, ids.issubset, NAMESPACE)
    out = folder / "answers.jsonl"
    words = ("--log", log, "--namespace", NAMESPACE, "--out", out.name)
    done = roadstream("answers", *words, folder=folder)
    assert done.returncode == 0, done.stderr
    found = {row["image_id"]: row["status"] for row in read_answers(out)}
    return {image_id: found[image_id] for image_id in ids}


def record_at(servers: str, topic: str, partition: int, offset: int) -> Record:
    async def read() -> Record:
        async with (
            NamespacedLog(KafkaLog(KafkaSettings(bootstrap_servers=servers)), NAMESPACE) as log,
            log.reader(topic, {partition: offset}) as reader,
        ):
            while True:
                polled = await reader.poll(max_records=100, timeout=1)
                for tp, records in polled.items():
                    if tp.partition == partition and records[0].offset == offset:
                        return records[0]

    return anyio.run(read)


def check_sent(log: str, said: str, lane: str, kind: str) -> set[str]:
    """Check the records that a program says it sent; return the ids."""
    places = [PLACE.fullmatch(line) for line in said.splitlines()]
    ids = set()
    for place in places:
        assert place is not None, said
        image_id, topic, partition, offset = place.groups()
        assert (topic, int(partition)) == (f"images.{lane}", spread(image_id, PARTITIONS))
        record = record_at(log.removeprefix("kafka://"), topic, int(partition), int(offset))
        image = codec.decode_image(record.value or b"")
        assert record.key == image_id.encode() == image.head.key
        assert image.head.lane == lane
        assert (image.head.deadline_at is not None) == (lane == "live")
        assert dict(record.headers) == {"content-type": kind.encode(), "schema": b"image.v1"}
        ids.add(image_id)
    return ids


@pytest.mark.skipif(WITHOUT_PYTHON, reason="confluent-kafka is not installed")
def test_the_python_example_sends_pictures_that_are_answered(log: str, tmp_path: Path) -> None:
    write_pictures(tmp_path / "packed", 5)
    write_pictures(tmp_path / "told", 5)
    live = ("--format", "json", "--lane", "live", "--deadline", "60")
    packed = run(PYTHON, "packed", log=log, folder=tmp_path)
    told = run(PYTHON, "told", *live, log=log, folder=tmp_path)

    for status, _, err in (packed, told):
        assert (status, err) == (0, "5 sent, 0 failed\n")
    ids = check_sent(log, packed[1], "archive", "application/msgpack")
    ids |= check_sent(log, told[1], "live", "application/json")
    assert answered(log, tmp_path, ids) == dict.fromkeys(ids, "answered")
    assert len(ids) == 10


@pytest.mark.skipif(WITHOUT_NODE, reason="kafkajs is not installed: make test installs it")
def test_the_javascript_example_sends_pictures_that_are_answered(
    log: str, javascript: list[str], tmp_path: Path
) -> None:
    write_pictures(tmp_path / "archive", 5)
    write_pictures(tmp_path / "live", 5)
    live = ("--lane", "live", "--deadline", "60")
    archive = run(javascript, "archive", log=log, folder=tmp_path)
    hurried = run(javascript, "live", *live, log=log, folder=tmp_path)

    for status, _, err in (archive, hurried):
        assert (status, err) == (0, "5 sent, 0 failed\n")
    ids = check_sent(log, archive[1], "archive", "application/json")
    ids |= check_sent(log, hurried[1], "live", "application/json")
    assert answered(log, tmp_path, ids) == dict.fromkeys(ids, "answered")
    assert len(ids) == 10


@pytest.mark.skipif(WITHOUT_PYTHON or WITHOUT_NODE, reason="the examples' clients are missing")
def test_what_the_examples_send_twice_is_one_image_and_what_is_too_large_is_told(
    log: str, javascript: list[str], tmp_path: Path
) -> None:
    write_pictures(tmp_path / "in", 5)
    (tmp_path / "in" / "large.jpg").write_bytes(bytes(9 * 2**20))
    places = []
    for program in (PYTHON, javascript):
        status, out, err = run(program, "in", log=log, folder=tmp_path)
        assert status == 1
        assert err.endswith("5 sent, 1 failed\n")
        assert "large" in err
        places.append({line.split("@")[0] for line in out.splitlines()})
    assert places[0] == places[1]
    assert len(places[0]) == 5
