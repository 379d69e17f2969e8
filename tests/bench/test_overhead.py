"""The overhead benchmark in small, on the tree it is in."""

from pathlib import Path

import pytest

from roadstream.bench.models import overhead
from roadstream.bench.models.overhead_child import summary

TREE = Path(overhead.__file__).resolve().parents[2]


def test_the_loops_time_is_measured_for_worker_and_consensus() -> None:
    plan = {"what": "loop", "images": 200, "max_batch": 16, "members": 3}

    found = overhead.run(TREE, plan)

    assert 0 < found["worker"] < 1e6
    assert 0 < found["consensus"] < 1e6


def test_lateness_is_measured_idle_and_under_load() -> None:
    plan = {"what": "stall", "cascade": "lite", "images": 6, "warm": 2, "pictures": 2}

    found = overhead.run(TREE, plan)

    for when in ("idle", "load"):
        late = found[when]
        assert late["ticks"] > 10
        assert late["p50"] <= late["p99"] <= late["max"]


def test_a_run_on_another_tree_than_asked_for_is_void(tmp_path: Path) -> None:
    plan = {"what": "loop", "images": 10, "max_batch": 4, "members": 1}
    (tmp_path / "src" / "roadstream").mkdir(parents=True)

    with pytest.raises(SystemExit, match="void: expected to measure"):
        overhead.run(tmp_path, plan)


def test_a_run_that_fails_is_void_and_says_why() -> None:
    with pytest.raises(SystemExit, match="KeyError: 'images'"):
        overhead.run(TREE, {"what": "loop"})


def test_per_vote_is_the_slope_between_few_and_many_members() -> None:
    few, many = [{"worker": 10.0}, {"worker": 12.0}], [{"worker": 18.0}, {"worker": 16.0}]

    assert overhead.per_vote(few, many, "worker").rounds == [1.0, 0.5]


def test_percentiles_are_of_the_slowest() -> None:
    found = summary([i / 1000 for i in range(1, 101)])

    assert (found["p50"], found["p99"], found["max"]) == pytest.approx((50.0, 99.0, 100.0))
