"""The services of ``docker-compose.yml``, scaled out and in while pictures flow, on a real broker.

No container runs here: each is a process with the service's own command, with the host name that
Docker would give it.
"""

import json
import os
import signal
import subprocess
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.kits.command import ROADSTREAM, roadstream, wait_for_answers, write_pictures
from tests.test_deploy import OURS

pytestmark = [
    pytest.mark.kafka,
    pytest.mark.timeout(300),
    pytest.mark.usefixtures("impatient"),
]
NAMESPACE, PARTITIONS = "scaling", 6
# Every group reads two topics.
ALL = 2 * PARTITIONS
PICTURES = 150
TIERS = ("glance", "look", "closer")


class System:
    """The containers of a project, by service."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        tiers = (
            f'[[tiers]]\nname = "{tier}"\nmembers = [{{ name = "{tier}", engine = "noop" }}]\n'
            for tier in TIERS
        )
        (folder / "c.toml").write_text('name = "c"\n' + "".join(tiers))
        self.containers: list[Container] = []
        self.sending: list[subprocess.Popen[bytes]] = []

    def command(self, service: str, host: str) -> list[str]:
        """Return what a container of a service runs, its files in this folder."""
        words = [word.replace("{host}", host) for word in OURS[service]["command"]]
        words = [str(self.folder / f"alive-{host}") if w == "/tmp/alive" else w for w in words]
        return [str(ROADSTREAM), *words, "--cascade", "c.toml"]

    def start(self, service: str, count: int = 1) -> "list[Container]":
        """Start so many more containers of a service."""
        more = [Container(self, service) for _ in range(count)]
        self.containers += more
        return more

    def produce(self, name: str) -> None:
        """Begin to send a folder of pictures."""
        write_pictures(self.folder / name, PICTURES)
        self.sending.append(
            subprocess.Popen(
                [ROADSTREAM, "produce", name, "--cascade", "c.toml", "--ledger", "ledger"],
                cwd=self.folder,
                stderr=subprocess.DEVNULL,
            )
        )

    def verified(self) -> "dict[str, object]":
        """Wait until nothing is worked on any more; return what ``verify`` says then."""
        log = os.environ["ROADSTREAM_LOG"]
        wait_for_answers(log, lambda ids: len(ids) == 3 * PICTURES, NAMESPACE)
        while True:
            words = ("verify", "--cascade", "c.toml", "--ledger", "ledger", "--json")
            report: dict[str, object] = json.loads(roadstream(*words, folder=self.folder).stdout)
            if report["verdict"] != "open":
                return report


class Container:
    """One process of a service, under a host name of its own.

    Args:
        system: Its project.
        service: Its service.
    """

    def __init__(self, system: System, service: str) -> None:
        self.host = uuid.uuid4().hex[:12]  # as Docker names a container, unless it is told to
        self._log = system.folder / f"{service}-{self.host}.log"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [*system.command(service, self.host), "--ledger", "ledger"],
                cwd=system.folder,
                stdin=subprocess.DEVNULL,
                stderr=log,
                env={
                    **os.environ,
                    "ROADSTREAM_METRICS": "127.0.0.1:0",
                    "ROADSTREAM_STATE": str(system.folder / "state"),
                },
            )

    def wait_until(self, is_so: "Callable[[int], bool]") -> None:
        """Wait until it has been given so many partitions."""
        while not is_so(self.partitions):
            try:
                self.process.wait(timeout=0.1)
            except subprocess.TimeoutExpired:
                continue
            raise AssertionError(f"ended early: {self._log.read_text()}")

    @property
    def partitions(self) -> int:
        """Number that it was given last; 0 before."""
        whole = self._log.read_text().rpartition("\n")[0]
        events = [json.loads(line) for line in whole.splitlines() if line.startswith("{")]
        given = [e["partitions"] for e in events if e["event"] == "partitions_assigned"]
        return int(given[-1]) if given else 0

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(how)
        return self.process.wait(timeout=60)


@contextmanager
def project(folder: Path) -> Iterator[System]:
    system = System(folder)
    try:
        yield system
    finally:
        for container in system.containers:
            container.process.kill()
            container.process.wait()
        for sending in system.sending:
            sending.wait()


def test_scaling_out_and_in_loses_no_picture_and_answers_none_twice(
    kafka_bootstrap: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROADSTREAM_LOG", f"kafka://{kafka_bootstrap}")
    monkeypatch.setenv("ROADSTREAM_NAMESPACE", NAMESPACE)
    with project(tmp_path) as system:
        create = system.command("topics", "topics")[1:]
        made = roadstream(*create, "--partitions", str(PARTITIONS), folder=tmp_path)
        assert made.returncode == 0, made.stderr
        (first,) = system.start("look")
        (decides,) = system.start("consensus")
        for tier in ("glance", "closer"):
            system.start(tier)
        system.produce("before")
        first.wait_until(lambda given: given == ALL)

        second, third = system.start("look", 2)
        (also,) = system.start("consensus")
        system.produce("out")
        for one in (first, second, third, decides, also):
            one.wait_until(lambda given: 0 < given < ALL)

        system.produce("in")
        second.stop(signal.SIGKILL)  # as one whose grace period is too short
        assert [one.stop() for one in (first, decides)] == [0, 0]
        for one in (third, also):
            one.wait_until(lambda given: given == ALL)
        assert [sending.wait(timeout=60) for sending in system.sending] == [0, 0, 0]

        report = system.verified()
    assert report["verdict"] == "clean", report
    assert report["images"] == 3 * PICTURES
