"""Metrics and health over HTTP: what is served, what is documented, and a port that is taken."""

import re
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import anyio
import pytest
from prometheus_client.parser import text_string_to_metric_families
from structlog.testing import capture_logs

from roadstream.schemas.cascade.routes import Route
from roadstream.schemas.errors import UsageError
from roadstream.schemas.histogram import Histogram
from roadstream.schemas.topics import all_topics
from roadstream.streams.memory.log import MemoryLog
from roadstream.streams.topics.claims import make_topic
from roadstream.workers.observe import metrics
from roadstream.workers.observe.addresses import Address, check_free, free_ports, parse_address
from roadstream.workers.observe.metrics import Metric, Sample, Shown, registry, serving_metrics
from roadstream.workers.service.deciding import build_consensus, persistent
from roadstream.workers.service.process import Process
from roadstream.workers.service.runtime import WorkOptions, run_workers
from roadstream.workers.service.status.samples import METRICS, supervisor_samples
from roadstream.workers.service.supervision.supervisor import ChildSpec, Supervisor
from tests.kits.builders import cascade, tier

DOCUMENT = Path(__file__).parents[3] / "docs" / "operate" / "metrics.md"
ROW = re.compile(r"^\| `(\w+)` (\| (?:counter|gauge|histogram) \| .+) \|$", re.MULTILINE)
LATER = "roadstream_later_tier_seconds"
NOTHING = Shown(list, lambda now: [], lambda now: [])


def documented() -> dict[str, str]:
    """Return the row of each metric in the document."""
    return dict(ROW.findall(DOCUMENT.read_text()))


def row(metric: Metric) -> str:
    """Return how the row of a metric begins; it may go on to say what to make of it."""
    labels, said = ", ".join(metric.labels), metric.help.removesuffix(".")
    start = f"| {metric.kind} | {labels} | " if labels else f"| {metric.kind} | | "
    return start + said[0].lower() + said[1:]


def test_the_document_says_of_every_metric_what_a_scrape_does_and_of_no_other() -> None:
    found = documented()
    wanted = {name: row(metric) for name, metric in METRICS.items()}
    ours = {name: found[name] for name in found if name.startswith("roadstream_")}
    said = {name: text[: len(wanted.get(name, ""))] for name, text in ours.items()}
    assert said == wanted


def test_the_metrics_of_the_process_itself_are_documented_too() -> None:
    served = {
        metric.name + ("_total" if metric.type == "counter" else "")
        for metric in registry(list).collect()
    }
    assert served <= {name for name in documented() if name.startswith("process_")}


def test_names_follow_the_conventions_of_prometheus() -> None:
    for name, metric in METRICS.items():
        assert name.startswith("roadstream_")
        assert name.endswith("_total") == (metric.kind == "counter")
        assert metric.help.endswith(".")


async def test_a_process_shows_every_metric_that_is_not_a_log_s_or_a_supervisor_s() -> None:
    around = [Route(to="exit", tiers_down=["two"])]
    noop = cascade(tier("one", routes=around), tier("two"))
    log = MemoryLog()
    await log.create_topics(all_topics(noop.tier_names), 2)
    await make_topic(log)
    process, stopping = Process(log, noop), anyio.Event()
    consensus = build_consensus(log, noop)
    running = persistent(consensus, "consensus")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run_workers, log, noop, WorkOptions(), stopping, process)
        process.watch_consensus(consensus, running)
        tasks.start_soon(running.run, consensus.run, stopping)
        with anyio.fail_after(30):
            # Two tiers and the consensus, which need not wait for models.
            while len(process.health.members) < 3 or process.health.unready(time.monotonic()):
                await anyio.lowlevel.checkpoint()
            # What the second tier takes, which it tells on the log.
            while not any(s.metric.name == LATER for s in process.samples()):
                await anyio.lowlevel.checkpoint()
        await process.lags.ask()
        samples = list(process.samples())
        stopping.set()

    wanted = {name for name in METRICS if not re.match("roadstream_(kafka|embedded|child)_", name)}
    assert {sample.metric.name for sample in samples} == wanted
    for sample in samples:
        assert len(sample.labels) == len(sample.metric.labels), sample
    tiers = {s.labels for s in samples if s.metric.name == "roadstream_images_judged_total"}
    assert tiers == {("one",), ("two",)}
    (built,) = [s.labels for s in samples if s.metric.name == "roadstream_build_info"]
    assert built == (version("roadstream"), noop.name, noop.hash)


def test_a_supervisor_shows_its_children() -> None:
    supervisor = Supervisor([ChildSpec("glance 0", ["work"])], lambda child, pid, line: None)
    samples = list(supervisor_samples(supervisor, cascade()))
    wanted = {name for name in METRICS if name.startswith("roadstream_child_")}
    assert {sample.metric.name for sample in samples} == wanted | {"roadstream_build_info"}


def test_a_histogram_counts_into_buckets_that_include_their_bounds() -> None:
    histogram = Histogram((0.1, 1.0))
    for value in (0.05, 0.1, 0.2, 5.0):
        histogram.observe(value)
    histogram.observe(1.0, times=2)
    assert list(histogram.cumulative()) == [("0.1", 2), ("1.0", 5), ("+Inf", 6)]
    assert histogram.count == 6
    assert histogram.sum == pytest.approx(7.35)


@contextmanager
def served(shown: Shown = NOTHING) -> Iterator[str]:
    """Serve at any free port; give its address."""
    with capture_logs() as events, serving_metrics(Address("127.0.0.1", 0), shown):
        (at,) = [event["at"] for event in events if event["event"] == "metrics"]
        yield at


def get(at: str, path: str) -> tuple[int, str]:
    """Return status and text at a path; status 0 while nobody listens."""
    try:
        with urllib.request.urlopen(f"http://{at}{path}", timeout=10) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()
    except urllib.error.URLError:
        return 0, "nobody listens"


def test_samples_are_served_as_prometheus_reads_them() -> None:
    joining = Histogram((0.1, 1.0))
    joining.observe(0.5)
    samples = [
        Sample(METRICS["roadstream_answers_total"], 7, ("partial", "none")),
        Sample(METRICS["roadstream_answers_total"], 9, ("failed", "")),
        Sample(METRICS["roadstream_open_images"], 3),
        Sample(METRICS["roadstream_joining_seconds"], joining),
    ]
    with served(Shown(lambda: samples, NOTHING.dead, NOTHING.unready)) as at:
        status, text = get(at, "/metrics")
    assert status == 200
    found = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if family.name.startswith("roadstream")
    }
    assert found == {
        ("roadstream_answers_total", "none", "partial"): 7,
        ("roadstream_answers_total", "", "failed"): 9,
        ("roadstream_open_images",): 3,
        ("roadstream_joining_seconds_bucket", "0.1"): 0,
        ("roadstream_joining_seconds_bucket", "1.0"): 1,
        ("roadstream_joining_seconds_bucket", "+Inf"): 1,
        ("roadstream_joining_seconds_count",): 1,
        ("roadstream_joining_seconds_sum",): 0.5,
    }


def test_health_says_why_not() -> None:
    shown = Shown(list, lambda now: [], lambda now: ["its models are not warm yet"])
    with served(shown) as at:
        assert get(at, "/healthz") == (200, '{"ok":true,"reasons":[]}\n')
        reasons = '{"ok":false,"reasons":["its models are not warm yet"]}\n'
        assert get(at, "/readyz") == (503, reasons)
        assert get(at, "/elsewhere")[0] == 404


def test_a_client_that_hangs_up_or_says_nothing_disturbs_nobody() -> None:
    with served() as at:
        host, _, port = at.rpartition(":")
        with socket.create_connection((host, int(port))):
            assert get(at, "/healthz")[0] == 200
        assert get(at, "/healthz")[0] == 200


def test_a_taken_port_is_an_error_or_waited_for_with_patience(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = Address(*taken.getsockname())
        with (
            pytest.raises(UsageError, match=rf"^--metrics {address}: Address already in use$"),
            serving_metrics(address, NOTHING),
        ):
            pass
        monkeypatch.setattr(metrics, "BIND_AGAIN", 0.01)
        with capture_logs() as events, serving_metrics(address, NOTHING, patient=True):
            assert [event["event"] for event in events] == ["metrics_wait"]
            taken.close()
            while get(str(address), "/healthz")[0] != 200:
                pass  # the test's own timeout bounds the wait


def test_an_address_of_another_machine_is_refused() -> None:
    with (
        pytest.raises(UsageError, match=r"^--metrics 192\.0\.2\.1:0: "),
        serving_metrics(Address("192.0.2.1", 0), NOTHING),
    ):
        pass


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("9100", Address("127.0.0.1", 9100)),
        ("0.0.0.0:9100", Address("0.0.0.0", 9100)),
        ("[::1]:0", Address("::1", 0)),
    ],
)
def test_addresses_are_read(text: str, address: Address) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize(
    "text", ["", "a", "host:", "host:x", "host:65536", "host:-1", "²", "a:٣", "1_0"]
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"^--metrics: expected HOST:PORT or a port, got "):
        parse_address(text)


def test_every_port_has_to_be_free_before_the_work_starts() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        free, other = Address("127.0.0.1", 0), Address(*taken.getsockname())
        with pytest.raises(UsageError, match=rf"^--metrics {other}: Address already in use$"):
            check_free([free, other])
    check_free([free, other])


def test_free_ports_are_different_ones() -> None:
    assert len(set(free_ports("127.0.0.1", 5))) == 5
