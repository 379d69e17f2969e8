"""``roadstream cascade roll``, ``rolled`` and SIGHUP on a system that ``up`` runs."""

import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from roadstream.schemas import codec
from roadstream.schemas.cascade.loading import load_cascade
from roadstream.schemas.errors import UsageError
from roadstream.schemas.records.answer import Answer
from roadstream.schemas.topics import ANSWERS
from roadstream.streams.embedded.log import EmbeddedLog
from roadstream.workers.commands.cascade.roll import parse_share
from tests.kits.command import roadstream, started, write_pictures
from tests.kits.embedded_kit import everything

TIER = '\n[[tiers]]\nname = "{0}"\n[[tiers.members]]\nname = "m-{0}"\nengine = "noop"\n'
PATIENCE = 60.0


def write(path: Path, threshold: float, *tiers: str) -> str:
    """Write a version of the cascade; return its hash."""
    text = f'name = "c"\nthreshold = {threshold}\n' + "".join(map(TIER.format, tiers))
    path.write_text(text)
    return load_cascade(str(path)).hash


class System:
    """A cascade that ``up`` runs on an embedded log, and batches of pictures for it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.log = folder, f"embedded:{folder / 'log'}"
        self.file = folder / "c.toml"
        self.first = write(self.file, 0.5, "one", "two")
        self._batches = 0
        options = ["--log", self.log, "--cascade", str(self.file), "--partitions", "2"]
        made = roadstream("topics", "create", *options, folder=folder)
        assert made.returncode == 0, made.stderr
        self.up = started("up", *options, folder=folder)

    def answered(self) -> list[Answer]:
        """Send two pictures more, and return their answers."""
        name = f"b{self._batches}"
        self._batches += 1
        for picture in write_pictures(self.folder / name, 2 * self._batches).iterdir():
            if int(picture.stem) < 2 * self._batches - 2:
                picture.unlink()  # sent before
        options = ["--log", self.log, "--cascade", str(self.file)]
        sent = roadstream("produce", name, *options, folder=self.folder)
        assert sent.returncode == 0, sent.stderr
        until = time.monotonic() + PATIENCE
        while len(found := [a for a in self._all() if name in a.head.uri]) < 2:
            assert time.monotonic() < until, "no answer came"
            time.sleep(0.1)
        return found

    def _all(self) -> list[Answer]:
        async def read() -> list[bytes]:
            async with EmbeddedLog(self.folder / "log") as log:
                return await everything(log, ANSWERS)

        return [codec.decode_answer(value) for value in anyio.run(read)]

    def judged_by(self, version: str) -> list[Answer]:
        """Send pictures until they are judged by a version; return the answers of the last."""
        until = time.monotonic() + PATIENCE
        while True:
            found = self.answered()
            if all(one.cascade_hash == version for one in found):
                return found
            assert time.monotonic() < until, f"{version} was not taken up"

    def run(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        return roadstream("cascade", *arguments, "--log", self.log, folder=self.folder)


@pytest.fixture
def system(tmp_path: Path) -> Iterator[System]:
    made = System(tmp_path)
    try:
        yield made
    finally:
        made.up.terminate()
        made.up.communicate(timeout=PATIENCE)


def test_a_running_system_takes_up_what_is_rolled(system: System) -> None:
    assert {one.cascade_hash for one in system.answered()} == {system.first}

    # A file with a mistake changes nothing.
    (system.folder / "bad.toml").write_text("name = 3")
    refused = system.run("roll", "bad.toml")
    assert refused.returncode == 2
    assert "bad.toml: name: expected `str`, got" in " ".join(refused.stderr.split())

    # A new tier gets its topics and its process.
    three = write(system.folder / "three.toml", 0.6, "one", "two", "three")
    rolled = system.run("roll", "three.toml")
    assert rolled.returncode == 0, rolled.stderr
    assert f"{three} judges from now on; before: {system.first}" in rolled.stderr + rolled.stdout
    for answer in system.judged_by(three):
        assert ([tier.tier for tier in answer.tiers], answer.threshold) == (
            ["one", "two", "three"],
            0.6,
        )

    # SIGHUP rolls the file that `up` was started with.
    again = write(system.file, 0.7, "one", "two")
    system.up.send_signal(signal.SIGHUP)
    assert [one.threshold for one in system.judged_by(again)] == [0.7, 0.7]

    back = system.run("roll", "--back")
    assert back.returncode == 0, back.stderr
    system.judged_by(three)
    shown = system.run("rolled").stdout.split()
    assert [word for word in shown if word in (system.first, three, again)] == [three, system.first]


def test_rolling_needs_a_file_or_the_way_back(tmp_path: Path) -> None:
    for wrong in ([], ["c.toml", "--back"], ["--back", "--share", "5%"]):
        done = roadstream("cascade", "roll", *wrong, folder=tmp_path)
        assert done.returncode == 2
        assert "expected FILE, perhaps with --share and --without, or --back alone" in done.stderr


@pytest.mark.parametrize(("text", "share"), [("5%", 0.05), ("0.05", 0.05), ("99.9%", 0.999)])
def test_a_share_is_a_percentage_or_a_number(text: str, share: float) -> None:
    assert parse_share(text) == pytest.approx(share)


@pytest.mark.parametrize("text", ["0%", "100%", "1", "0", "5", "-5%", "", "nan", "5 %", "1e-3"])
def test_what_is_no_share_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--share: expected more than 0% and less than 100%"):
        parse_share(text)
