"""Serves metrics and health over HTTP: ``/metrics``, ``/healthz``, ``/readyz``.

The only module that imports ``prometheus_client``. A scrape reads plain counters from a thread of
its own; the work itself only adds to attributes.
"""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any, Literal, NamedTuple
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

import msgspec
import structlog
from prometheus_client import CollectorRegistry, ProcessCollector, make_wsgi_app
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from roadstream.schemas.errors import UsageError
from roadstream.schemas.histogram import Histogram
from roadstream.workers.observe.addresses import Address, explained, family_of

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

logger = structlog.get_logger()
# A client that sends nothing must not hold a thread for ever.
REQUEST_TIMEOUT = 5.0
# A process that was killed may have its port a little longer than its successor likes.
BIND_AGAIN = 1.0

Kind = Literal["counter", "gauge", "histogram"]
Reasons = Callable[[float], list[str]]


class Metric(NamedTuple):
    """A metric: what it is and what its labels are."""

    kind: Kind
    name: str
    help: str
    labels: tuple[str, ...] = ()


class Sample(NamedTuple):
    """A value of a metric, with the values of its labels in their order."""

    metric: Metric
    value: float | Histogram
    labels: tuple[str, ...] = ()


class Shown(NamedTuple):
    """What a process shows of itself. All are called from the server's threads.

    Attributes:
        read: Returns its metrics.
        dead: Given the monotonic time, returns why the process should be started again.
        unready: Likewise, why it does not do its work now.
    """

    read: Callable[[], Iterable[Sample]]
    dead: Reasons
    unready: Reasons


class _Collector(Collector):
    """Turns samples into the families of ``prometheus_client``."""

    def __init__(self, read: Callable[[], Iterable[Sample]]) -> None:
        self._read = read

    def collect(self) -> Iterator[Family]:
        families: dict[str, Any] = {}
        for (kind, name, text, names), value, labels in self._read():
            if name not in families:
                families[name] = _FAMILIES[kind](name, text, labels=names)
            if isinstance(value, Histogram):
                buckets = list(value.cumulative())
                families[name].add_metric(labels, buckets=buckets, sum_value=value.sum)
            else:
                families[name].add_metric(labels, value)
        yield from families.values()


_FAMILIES: dict[str, Callable[..., Any]] = {
    "counter": CounterMetricFamily,
    "gauge": GaugeMetricFamily,
    "histogram": HistogramMetricFamily,
}


def registry(read: Callable[[], Iterable[Sample]]) -> CollectorRegistry:
    """Return a registry of these samples and of the process's own memory, CPU and files."""
    found = CollectorRegistry()
    ProcessCollector(registry=found)
    found.register(_Collector(read))
    return found


def application(shown: Shown) -> "WSGIApplication":
    """Return the WSGI application that serves the three paths."""
    metrics = make_wsgi_app(registry(shown.read))

    def respond(environ: "WSGIEnvironment", start: "StartResponse") -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if path == "/metrics":
            page: Iterable[bytes] = metrics(environ, start)
            return page
        if path in {"/healthz", "/readyz"}:
            reasons = (shown.dead if path == "/healthz" else shown.unready)(time.monotonic())
            status = "503 Service Unavailable" if reasons else "200 OK"
            body = msgspec.json.encode({"ok": not reasons, "reasons": reasons}) + b"\n"
            start(status, [("Content-Type", "application/json")])
            return [body]
        start("404 Not Found", [("Content-Type", "text/plain")])
        return [b"/metrics, /healthz, /readyz\n"]

    return respond


class _Handler(WSGIRequestHandler):
    timeout = REQUEST_TIMEOUT

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (its name there)
        """Log no requests: a scrape every few seconds is no event."""


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    request_queue_size = 16

    def __init__(self, address: Address, family: int) -> None:
        self.address_family = family
        super().__init__(address, _Handler)

    @property
    def address(self) -> Address:
        """Where it listens."""
        host, port = self.socket.getsockname()[:2]
        return Address(host, port)

    def server_bind(self) -> None:
        # As WSGIServer does, without asking DNS for this host's name, which can take long.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_name, self.server_port = self.address
        self.setup_environ()

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is no fault of ours."""


@contextmanager
def serving_metrics(
    address: Address | None, shown: Shown, *, patient: bool = False
) -> Iterator[None]:
    """Serve in a thread for as long as the block runs.

    Args:
        address: Where; ``None`` serves nothing.
        shown: What.
        patient: Whether to go on without a port that is taken, and to take it once it is free:
            whoever has it may be this process's own predecessor, about to end.

    Raises:
        UsageError: The port is taken or the host is not this machine's.
    """
    if address is None:
        yield
        return
    ended = threading.Event()
    server = None
    try:
        server = _listen(address, shown)
    except UsageError as error:
        if not patient:
            raise
        logger.warning("metrics_wait", error=str(error))
        threading.Thread(target=_serve_later, args=(address, shown, ended), daemon=True).start()
    if server is not None:
        _start(server)
    try:
        yield
    finally:
        ended.set()
        if server is not None:
            server.shutdown()
            server.server_close()


def _listen(address: Address, shown: Shown) -> _Server:
    with explained(address):
        server = _Server(address, family_of(address.host))
    server.set_app(application(shown))
    return server


def _start(server: _Server) -> None:
    logger.info("metrics", at=str(server.address))
    threading.Thread(target=server.serve_forever, args=(0.2,), daemon=True).start()


def _serve_later(address: Address, shown: Shown, ended: threading.Event) -> None:
    while not ended.wait(BIND_AGAIN):
        with contextlib.suppress(UsageError):
            server = _listen(address, shown)
            _start(server)
            ended.wait()
            server.shutdown()
            server.server_close()
            return
