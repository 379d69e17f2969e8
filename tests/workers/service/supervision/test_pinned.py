"""What a supervisor hands to its children, and weights that change before they are loaded."""

import os
import shutil
from pathlib import Path

import pytest

from roadstream.schemas.cascade.loading import load_cascade, shipped_cascades
from roadstream.schemas.cascade.model import Cascade
from roadstream.schemas.errors import ChangedError, ConfigError
from roadstream.workers.service.loading import load_engines
from roadstream.workers.service.supervision.pinned import PINNED, given_cascade, pinned

CASCADE = """
name = "c"
[[tiers]]
name = "one"
members = [{ name = "m", engine = "onnx", model = "m.onnx", width = 256, height = 160 }]
[[tiers]]
name = "two"
[[tiers.members]]
name = "asked"
engine = "openai"
model = "elsewhere"
settings = { base_url = "http://127.0.0.1:1/v1", prompt = "own.toml" }
"""


@pytest.fixture
def loaded(tmp_path: Path) -> Cascade:
    (tmp_path / "c.toml").write_text(CASCADE)
    (tmp_path / "own.toml").write_text('version = "1"\ntext = "Roadwork?"\n')
    shutil.copy(shipped_cascades()["lite"].parent / "lite" / "glance.onnx", tmp_path / "m.onnx")
    return load_cascade(str(tmp_path / "c.toml"))


@pytest.mark.parametrize("in_memory", [True, False])
def test_every_child_is_given_the_whole_cascade_though_its_folder_is_gone(
    loaded: Cascade, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_memory: bool
) -> None:
    if not in_memory:
        monkeypatch.delattr(os, "memfd_create", raising=False)
    shutil.rmtree(tmp_path)
    with pinned(loaded) as inherited:
        (descriptor,) = inherited.descriptors
        assert inherited.environment == {PINNED: str(descriptor)}
        for _ in range(2):
            monkeypatch.setenv(PINNED, str(os.dup(descriptor)))
            assert given_cascade("c.toml") == loaded
            assert PINNED not in os.environ  # not for its own children


def test_without_a_supervisor_the_cascade_is_loaded_by_its_name() -> None:
    with pinned(None) as inherited:
        assert inherited == ({}, ())
    assert given_cascade("lite") == load_cascade("lite")


def test_what_a_supervisor_left_out_its_children_leave_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pinned(load_cascade("lite", without=["cones", "look"])) as inherited:
        monkeypatch.setenv(PINNED, str(os.dup(inherited.descriptors[0])))
        given = given_cascade("lite")

    assert given == load_cascade("lite", without=["look", "cones"])
    assert given == given_cascade("lite", ["look", "cones"])


def test_what_is_no_cascade_of_a_supervisor_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "other").write_bytes(b"\x93another file")
    closed = os.open(tmp_path / "other", os.O_RDONLY)
    os.close(closed)
    for stale in (str(closed), "", "one", str(os.open(tmp_path / "other", os.O_RDONLY))):
        monkeypatch.setenv(PINNED, stale)
        with pytest.raises(ConfigError, match=rf"^{PINNED}: expected the descriptor .*, got"):
            given_cascade("lite")


def test_weights_that_change_before_they_are_loaded_are_refused(
    loaded: Cascade, tmp_path: Path
) -> None:
    with (tmp_path / "m.onnx").open("ab") as weights:
        weights.write(b"\0")
    with pytest.raises(ChangedError, match=r"^c: member m: model: .*m\.onnx: changed since"):
        load_engines(loaded, ["one"], 1)


def test_only_weights_of_its_own_tiers_concern_a_worker(loaded: Cascade, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").unlink()
    (engine,) = load_engines(loaded, ["two"], 1).values()
    engine.close()
