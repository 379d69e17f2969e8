"""The figures of the benchmarks: medians, machine facts, processor time, JSON."""

import os
from pathlib import Path

import msgspec
import pytest

from roadstream.bench import harness
from roadstream.workers.service.machine import usable_cpus


def test_spread_keeps_every_round_and_shows_median_and_range() -> None:
    found = harness.spread([3.0, 1.0, 2.0])

    assert (found.median, found.low, found.high) == (2.0, 1.0, 3.0)
    assert found.rounds == [3.0, 1.0, 2.0]
    assert found.text(".1f") == "2.0 (1.0 to 3.0)"


def test_machine_names_processor_cores_and_versions() -> None:
    found = harness.machine()

    assert found.cores == usable_cpus()
    assert found.memory > 2**28
    assert {"msgspec", "numpy", "aiokafka"} <= found.packages.keys()
    assert found.date.endswith("Z")


def test_processor_time_of_another_process_is_that_process_own() -> None:
    mine = harness.cpu_seconds_of([os.getpid()])

    assert mine == pytest.approx(harness.cpu_seconds(), abs=0.2)
    assert harness.resident_bytes(os.getpid()) > 2**20


def test_results_stand_beside_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness, "RESULTS", tmp_path)

    path = harness.write_result("made-up", {"images_per_second": harness.spread([1.0])})

    document = msgspec.json.decode(path.read_bytes())
    assert path.name == "made-up.json"
    assert document["machine"]["cores"] >= 1
    assert document["images_per_second"]["median"] == 1.0
