"""Runs the installed ``roadstream`` command as a user would, and makes pictures for it."""

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import chdir, redirect_stderr, redirect_stdout
from io import BytesIO, TextIOWrapper
from pathlib import Path
from unittest.mock import patch

import anyio
import numpy as np

from roadstream.schemas import codec
from roadstream.schemas.topics import ANSWERS
from roadstream.stages.decoding.decode import encode_jpeg
from roadstream.streams.kafka.log import KafkaLog
from roadstream.streams.kafka.settings import KafkaSettings
from roadstream.streams.log import Log
from roadstream.streams.topics.namespace import NamespacedLog
from roadstream.workers.cli import run

ROADSTREAM = Path(sys.executable).with_name("roadstream")
TIMEOUT = 100.0

NOOP_CASCADE = """
name = "noop"
threshold = 0.5
[[tiers]]
name = "first"
max_batch = 50
[[tiers.members]]
name = "one"
engine = "noop"
[[tiers.routes]]
min_confidence = 0.999
to = "exit"
[[tiers]]
name = "second"
max_batch = 50
[[tiers.members]]
name = "two"
engine = "noop"
"""

# Its one member looks for cones, so its answers depend on the picture; it loads in no time.
CONES_CASCADE = """
name = "rule"
threshold = 0.5
[[tiers]]
name = "only"
[[tiers.members]]
name = "cones"
engine = "cones"
"""


def roadstream(
    *arguments: str,
    folder: Path,
    stdin: str = "",
    environment: Mapping[str, str] | None = None,
    timeout: float = TIMEOUT,
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end in ``folder``."""
    return subprocess.run(
        [ROADSTREAM, *arguments],
        cwd=folder,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=timeout,
        env={**os.environ, **(environment or {})},
        check=False,
    )


def here(*arguments: str, folder: Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run a command to its end in ``folder`` and in this process, which has imported everything.

    What it starts are processes of their own, as ever.
    """
    given, out, error = [TextIOWrapper(BytesIO(text)) for text in (stdin.encode(), b"", b"")]
    with (
        chdir(folder),
        patch.object(sys, "stdin", given),
        redirect_stdout(out),
        redirect_stderr(error),
    ):
        status = run(list(arguments))
    said = [said_in(stream) for stream in (out, error)]
    return subprocess.CompletedProcess(["roadstream", *arguments], status, *said)


def said_in(stream: TextIOWrapper) -> str:
    stream.seek(0)
    return stream.read()


def started(
    *arguments: str, folder: Path, environment: Mapping[str, str] | None = None
) -> subprocess.Popen[str]:
    """Start a command that goes on."""
    return subprocess.Popen(
        [ROADSTREAM, *arguments],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, **(environment or {})},
    )


def write_cascade(folder: Path) -> str:
    """Write a cascade whose models do nothing; return its file name."""
    (folder / "noop.toml").write_text(NOOP_CASCADE)
    return "noop.toml"


def write_pictures(folder: Path, count: int) -> Path:
    """Write small grey JPEG files of different shades."""
    folder.mkdir(parents=True, exist_ok=True)
    for shade in range(count):
        pixels = np.full((48, 64, 3), shade % 256, np.uint8)
        (folder / f"{shade:05}.jpg").write_bytes(encode_jpeg(pixels))
    return folder


def wait_for_answers(log: str, done: Callable[[set[str]], bool], namespace: str = "") -> None:
    """Wait until ``done`` holds of the ids of the images answered on a log of Kafka."""
    anyio.run(_wait_for_answers, log.removeprefix("kafka://"), done, namespace)


async def _wait_for_answers(servers: str, done: Callable[[set[str]], bool], namespace: str) -> None:
    ids: set[str] = set()
    kafka: Log = KafkaLog(KafkaSettings(bootstrap_servers=servers))
    async with (
        NamespacedLog(kafka, namespace) if namespace else kafka as log,
        log.reader(ANSWERS, "beginning") as reader,
    ):
        while not done(ids):  # the test's own timeout bounds the wait
            polled = await reader.poll(max_records=500, timeout=1.0)
            records = [record for part in polled.values() for record in part]
            ids |= {codec.decode_answer(record.value or b"").head.image_id for record in records}
