"""The shipped cascades, whole, by the real command, with tiny checkpoints for their models."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from roadstream.schemas.cascade.loading import load_cascade
from roadstream.workers.demo.render import write_drive
from tests.kits.command import roadstream
from tests.kits.tiny_cascade import tiny

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]
# One of levels 3, 4 and 5 each; the others run in torch.
IN_VLLM = ["qwen3-vl-4b", "qwen3-vl-30b-a3b", "internvl3-78b"]
LEVELS = {
    0: {"foundation"},
    1: {"detection"},
    2: {"open-set"},
    3: {f"fast-{name}" for name in ("qwen-4b", "molmo-4b", "molmo-8b", "phi-4",
                                    "qwen-8b-thinking", "qwen-32b")},
    4: {"power"},
    5: {"precision-qwen", "precision-internvl", "off-path"},
}  # fmt: skip


def answers_of(cascade: Path, pictures: Path, folder: Path) -> Iterator[dict[str, Any]]:
    out = folder / "answers.jsonl"
    done = roadstream(
        "score", str(pictures), "--cascade", str(cascade), "--out", str(out), "--workers", "1",
        folder=folder, timeout=580,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    yield from map(json.loads, out.read_text().splitlines())


def test_full_answers_at_every_level(tmp_path: Path) -> None:
    for seed in range(3):
        write_drive(tmp_path / "drives" / f"{seed}", 30, seed=seed)
    path = tiny("full", tmp_path / "cascade", vllm=IN_VLLM)

    answers = list(answers_of(path, tmp_path / "drives", tmp_path))

    assert [one["status"] for one in answers] == ["answered"] * 90
    exits = {one["exit_tier"] for one in answers}
    assert [level for level, tiers in LEVELS.items() if not exits & tiers] == []
    voted = {vote["member"] for one in answers for vote in one["votes"]}
    assert {*IN_VLLM} <= voted
    effects = {effect.split(":")[0] for one in answers for effect in one["effects"]}
    assert {"ensemble detection", "size", "conflict"} <= effects
    tags = {name for one in answers for name in one["tags"]}
    assert {"difficulty", "depth", "size", "conflict"} <= tags
    for one in answers:
        assert not one["flags"] or one["flags"] == ["shadow"], one["flags"]


def test_one_card_answers_too(tmp_path: Path) -> None:
    write_drive(tmp_path / "drive", 20)
    path = tiny("single-gpu", tmp_path / "cascade")

    answers = list(answers_of(path, tmp_path / "drive", tmp_path))

    assert [one["status"] for one in answers] == ["answered"] * 20
    exits = {one["exit_tier"] for one in answers}
    assert exits <= {*load_cascade("single-gpu").tier_names}
    assert len(exits) > 1
