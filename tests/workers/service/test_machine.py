"""How many CPUs a process may use: affinity, and the quotas of control groups."""

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from roadstream.workers.service.machine import usable_cpus

GROUP = "sys/fs/cgroup"


@pytest.fixture(autouse=True)
def many_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(64)), raising=False)
    monkeypatch.setattr(os, "process_cpu_count", lambda: 64, raising=False)


def test_macos_has_no_affinity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.delattr(os, "process_cpu_count")
    monkeypatch.setattr(os, "cpu_count", lambda: 8)

    assert usable_cpus(tmp_path) == 8


@pytest.mark.parametrize(
    ("files", "cpus"),
    [
        ({}, 64),
        ({"proc/self/cgroup": "0::/", f"{GROUP}/cpu.max": "200000 100000"}, 2),
        ({"proc/self/cgroup": "0::/", f"{GROUP}/cpu.max": "max 100000"}, 64),
        ({"proc/self/cgroup": "0::/", f"{GROUP}/cpu.max": "50000 100000"}, 1),
        ({"proc/self/cgroup": "0::/", f"{GROUP}/cpu.max": "250000 100000"}, 3),
        ({"proc/self/cgroup": "0::/", f"{GROUP}/cpu.max": "nonsense"}, 64),
        # A group within one that has less.
        (
            {
                "proc/self/cgroup": "0::/a/b",
                f"{GROUP}/a/b/cpu.max": "800000 100000",
                f"{GROUP}/a/cpu.max": "400000 100000",
            },
            4,
        ),
        # A namespace: the name is the host's, and the folder is the root.
        ({"proc/self/cgroup": "0::/../../pod", f"{GROUP}/cpu.max": "200000 100000"}, 2),
        (
            {
                "proc/self/cgroup": "4:memory:/docker/1\n3:cpu,cpuacct:/docker/1",
                f"{GROUP}/cpu,cpuacct/cpu.cfs_quota_us": "300000",
                f"{GROUP}/cpu,cpuacct/cpu.cfs_period_us": "100000",
            },
            3,
        ),
        (
            {
                "proc/self/cgroup": "3:cpu:/",
                f"{GROUP}/cpu/cpu.cfs_quota_us": "-1",
                f"{GROUP}/cpu/cpu.cfs_period_us": "100000",
            },
            64,
        ),
    ],
)
def test_the_quota_of_a_container_counts(
    tmp_path: Path, files: Mapping[str, str], cpus: int
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text + "\n")

    assert usable_cpus(tmp_path) == cpus
