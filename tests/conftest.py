"""What many tests need: open logs, a clock, and a broker for those marked ``kafka``."""

import fcntl
import gc
import importlib.util
import logging
import os
import shutil
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
import structlog
from hypothesis import HealthCheck, Phase, settings

from roadstream.streams.clock import ManualClock
from roadstream.streams.memory.log import MemoryLog
from tests.kits.examples import examples

pytest_plugins = [
    "tests.kits.kafka_fixture", "tests.kits.fusion_kit", "tests.kits.triton_server"
]  # fmt: skip
ENVIRONMENTS = Path(__file__).parent.parent / ".environments"
ENGINE_MARKS = {"gpu", "triton", "ultralytics", "vllm"}
# Nothing here may ask the hub.
os.environ["HF_HUB_OFFLINE"] = "1"
for engine in ("VLLM", "TRITON"):
    python = ENVIRONMENTS / engine.lower() / "bin" / "python"
    os.environ.setdefault(f"ROADSTREAM_{engine}_PYTHON", str(python))

# For `make mutants`: the same examples in each run, whatever else runs, and no time spent on making
# those that fail smaller.
settings.register_profile(
    "mutants",
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("tests", max_examples=examples(100))
settings.load_profile("tests")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addini("engines", "test files of `make test-engines`", type="paths")
    parser.addoption(
        "--stage", choices=["test", "engines"], help="run what `make test` or `test-engines` runs"
    )


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out the files of the other stage: each file is of one, so no test is of none."""
    stage = config.getoption("stage")
    if stage is None or collection_path.suffix != ".py":
        return None
    return ((collection_path in config.getini("engines")) != (stage == "engines")) or None


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Let one process of a run collect first, and compile for all what is not compiled yet."""
    from tests.kits.kafka_fixture import SHARED  # a plugin, which pytest wants to import first

    if SHARED not in os.environ or "PYTEST_XDIST_WORKER" not in os.environ:
        return (yield)
    with Path(os.environ[SHARED], "collected").open("ab") as collected:
        fcntl.flock(collected, fcntl.LOCK_EX)
        if collected.tell() == 0:
            found = yield
            collected.write(b"all")
            return found
    return (yield)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip what needs a CUDA device or promtool where there is none, and Chromium; no other.

    With ``CI=true`` the latter two are not skipped.

    Raises:
        UsageError: A test of an engine stands in a file of `make test`.
    """
    for item in items:
        marks = ENGINE_MARKS & {mark.name for mark in item.iter_markers()}
        if marks and item.path not in config.getini("engines"):
            raise pytest.UsageError(f"{item.nodeid} is marked {marks}: list its file as `engines`")
    gpu = [item for item in items if item.get_closest_marker("gpu")]
    if gpu and not _has_cuda():
        _skip(gpu, "needs a CUDA device")
    if not os.environ.get("CI"):
        browser = [item for item in items if item.get_closest_marker("chromium")]
        _skip(browser, "asks Chromium, which .ci/run installs; with CI=true it runs anywhere")
        if shutil.which("promtool") is None:
            rules = [item for item in items if item.get_closest_marker("prometheus")]
            _skip(rules, "asks promtool, of Debian's package prometheus, which .ci/run installs")


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """Spare the garbage collector thousands of tests and their modules, which all stay."""
    gc.collect()
    gc.freeze()


def _skip(items: list[pytest.Item], reason: str) -> None:
    for item in items:
        item.add_marker(pytest.mark.skip(reason))


def _has_cuda() -> bool:
    if importlib.util.find_spec("torch") is None:
        return False
    import torch

    return bool(torch.cuda.is_available())


@pytest.fixture(autouse=True)
def _process_as_it_was(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Undo what commands and benchmarks set for their whole process when they run in this one."""
    logs, thresholds = structlog.get_config(), gc.get_threshold()
    level, configure = logging.getLogger("aiokafka").level, structlog.configure
    # Cached, the loggers of this process would write where this test's went, for ever.
    monkeypatch.setattr(
        structlog,
        "configure",
        lambda *given, **named: configure(*given, **named | {"cache_logger_on_first_use": False}),
    )
    # To undo it would thaw what was collected, too; only to count what is frozen takes 30 ms.
    monkeypatch.setattr(gc, "freeze", lambda: None)
    yield
    configure(**logs)
    gc.set_threshold(*thresholds)
    logging.getLogger("aiokafka").setLevel(level)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def memory_log(clock: ManualClock) -> MemoryLog:
    return MemoryLog(clock)
