"""Comparing two revisions: ratios with their interval, turns, and honest endings."""

import argparse
import math
from pathlib import Path

import pytest

from roadstream.bench import pipeline, revisions
from roadstream.bench.engine.command import against


def test_the_interval_is_students_on_the_logarithms_of_the_ratios() -> None:
    before = [100.0, 110.0, 90.0, 100.0]
    after = [102.0, 110.0, 92.0, 101.0]
    found = revisions.compare(before, after)

    logs = [math.log(a / b) for a, b in zip(after, before, strict=True)]
    mean = sum(logs) / 4
    error = math.sqrt(sum((one - mean) ** 2 for one in logs) / 3 / 4)
    assert found.ratio == pytest.approx(math.exp(mean))
    assert found.low == pytest.approx(math.exp(mean - 3.18245 * error), rel=1e-5)
    assert found.high == pytest.approx(math.exp(mean + 3.18245 * error), rel=1e-5)


@pytest.mark.parametrize(
    ("factor", "slower"), [(1.0, False), (0.99, False), (0.96, True), (1.3, False)]
)
def test_slower_is_an_interval_that_lies_under_98_percent(factor: float, slower: bool) -> None:
    before = [100.0, 101.0, 99.0, 100.0, 102.0, 98.0, 100.0]
    after = [factor * figure * (1 + 0.002 * (-1) ** i) for i, figure in enumerate(before)]

    assert revisions.compare(before, after).slower is slower


def test_a_noisy_pair_is_not_called_slower() -> None:
    assert not revisions.compare([100, 100, 100, 100], [70, 120, 80, 110]).slower


def test_one_round_makes_no_interval() -> None:
    with pytest.raises(ValueError, match="expected two rounds or more, got 1"):
        revisions.compare([1.0], [1.0])


def test_trees_take_turns_and_the_warm_up_does_not_count(tmp_path: Path) -> None:
    trees = {"before": tmp_path / "a", "after": tmp_path / "b"}
    order: list[str] = []

    def run(tree: Path) -> dict[str, float]:
        order.append(tree.name)
        return {"x": float(len(order))}

    found = revisions.in_turn(trees, 3, run)

    assert "".join(order) == "baabbaab"
    assert found == {"x": {"before": [3.0, 6.0, 7.0], "after": [4.0, 5.0, 8.0]}}


def test_too_few_rounds_are_refused() -> None:
    options = argparse.Namespace(before="HEAD", rounds=3)
    with pytest.raises(SystemExit, match="--rounds: expected 7 or more with --before, got 3"):
        against(options)


def test_a_revision_that_is_none_is_told(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"--before no-such-revision: .*no-such-revision"):
        revisions.tree_at("no-such-revision", tmp_path)


def test_score_of_a_tree_is_timed_by_its_answers(tmp_path: Path) -> None:
    (tmp_path / "noop.toml").write_text(
        'name = "noop"\n[[tiers]]\nname = "one"\n[[tiers.members]]\nname = "m"\nengine = "noop"\n'
    )
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for i in range(20):
        (pictures / f"{i}.jpg").write_bytes(b"not looked at")
    run = pipeline.run_score(pictures, str(tmp_path / "noop.toml"), 20, tmp_path)

    assert run.exits == {"one": 20}
    assert 0 < run.seconds < (run.command_seconds or 0)
