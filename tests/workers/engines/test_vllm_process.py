"""The process of an engine and the engine in front of it, by a stand-in that starts at once."""

import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec import convert
from msgspec.structs import replace

from roadstream.schemas.cascade.loading import load_cascade
from roadstream.schemas.cascade.model import Member
from roadstream.schemas.errors import ConfigError, EngineDownError, ImageError
from roadstream.schemas.records.image import Head
from roadstream.schemas.settings.vllm import VllmSettings
from roadstream.stages.inference import Abstained, EngineResult, Picture, Pictures, Score
from roadstream.streams.clock import SystemClock
from roadstream.workers.engines.options import EngineOptions
from roadstream.workers.engines.vllm import engine as vllm_engine
from roadstream.workers.engines.vllm.engine import VllmEngine
from roadstream.workers.engines.vllm.process import find_interpreter
from tests.kits import grey_vllm
from tests.kits.builders import cascade, tier

PATIENCE = 30.0


@pytest.fixture(autouse=True)
def grey(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm_engine, "SCRIPT", Path(grey_vllm.__file__))


def built(folder: Path, options: EngineOptions | None = None, **settings: Any) -> VllmEngine:
    """Return an engine whose process is the stand-in."""
    asked = {"python": sys.executable, "patience": PATIENCE, **settings}
    given = convert(asked, VllmSettings)
    member = Member(name="vlm", engine="vllm", model=".", width=64, height=64, settings=given)
    chosen = replace(cascade(tier("one", member)), folder=str(folder))
    return VllmEngine(chosen, member, options or EngineOptions())


@contextmanager
def loaded(folder: Path, **settings: Any) -> Iterator[VllmEngine]:
    engine = built(folder, **settings)
    engine.load()
    try:
        yield engine
    finally:
        engine.close()


def test_an_engine_is_not_started_with_other_weights_than_the_cascade_was_loaded_with(
    tmp_path: Path,
) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.safetensors").write_bytes(b"weights")
    python = sys.executable
    (tmp_path / "c.toml").write_text(
        'name = "c"\n[[tiers]]\nname = "one"\n[[tiers.members]]\nname = "vlm"\nengine = "vllm"\n'
        f'model = "model"\nsettings = {{ python = "{python}", start = "first_use" }}\n'
    )
    chosen = load_cascade(str(tmp_path / "c.toml"))
    engine = VllmEngine(chosen, chosen.tiers[0].members[0], EngineOptions())
    engine.load()
    try:
        (tmp_path / "model" / "model.safetensors").write_bytes(b"others")
        with pytest.raises(EngineDownError, match=r"member vlm: model: .*: changed since"):
            engine.infer(pictures(170))
    finally:
        engine.close()


def pictures(*levels: int, head: Head | None = None) -> Pictures:
    return Pictures([Picture(np.full((64, 64, 3), level, np.uint8), head=head) for level in levels])


def revived(engine: VllmEngine) -> list[EngineResult]:
    """Return what it says of a picture, once it runs again."""
    assert engine.managed.reached("up", PATIENCE)
    return engine.infer(pictures(170))


def test_an_answer_is_the_log_odds_of_yes_with_its_text(tmp_path: Path) -> None:
    with loaded(tmp_path, max_leak=0.3) as engine:
        found = engine.infer(pictures(170, 51))

    (score, abstained) = found
    assert isinstance(score, Score)
    assert score.raw == pytest.approx(np.log((2 / 3) / (1 / 6)))
    assert score.text.startswith("1 Is there active roadwork")
    assert isinstance(abstained, Abstained)  # 0.4 leaks
    assert engine.version == "active-roadwork@1"


def test_a_template_without_a_system_turn_is_told_all_in_the_question(tmp_path: Path) -> None:
    with loaded(tmp_path, max_leak=0.3, system_turn=False) as engine:
        (score,) = engine.infer(pictures(170))

    assert isinstance(score, Score)
    assert re.match(r"1 You look at pictures .*\.\n\nIs there active roadwork", score.text)
    assert engine.version == "active-roadwork@1"


def test_each_picture_gets_what_became_of_it(tmp_path: Path) -> None:
    head = Head(image_id="a", deadline_at=SystemClock().now() - 1)
    with loaded(tmp_path) as engine:
        refused, late, undecided = engine.infer(
            pictures(grey_vllm.REFUSES, grey_vllm.LATE, grey_vllm.UNDECIDED)
        )
        (past,) = engine.infer(pictures(170, head=head))

    assert isinstance(refused, ImageError)
    assert str(refused) == "model_failed: too long"
    assert isinstance(late, ImageError)
    assert isinstance(past, ImageError)
    assert late.fault == past.fault == "expired"
    assert undecided == Abstained("no answer after 5 tokens")


def test_a_core_that_died_is_told_with_what_it_died_of(tmp_path: Path) -> None:
    with loaded(tmp_path) as engine, pytest.raises(EngineDownError) as raised:
        engine.infer(pictures(grey_vllm.RAISES))

    assert str(raised.value).endswith(
        ": the engine is down: the core of the engine died;"
        " the last error that it logged: RuntimeError: Unsupported head_dim=16"
    )


def test_several_batches_are_under_way_at_once(tmp_path: Path) -> None:
    with loaded(tmp_path) as engine:
        found: list[list[EngineResult]] = []
        threads = [
            threading.Thread(target=lambda: found.append(engine.infer(pictures(200, 210))))
            for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)

    assert len(found) == 8
    assert all(one == found[0] for one in found)


def test_a_death_fails_what_is_under_way_and_the_engine_comes_back(tmp_path: Path) -> None:
    with loaded(tmp_path) as engine:
        with pytest.raises(EngineDownError, match="the engine is down: its process ended"):
            engine.infer(pictures(170, grey_vllm.DIES))
        with pytest.raises(EngineDownError, match="its process ended"):
            engine.infer(pictures(170))  # at once, as it died: nobody waits for that
        (found,) = revived(engine)

    assert isinstance(found, Score)


def test_one_that_says_nothing_is_ended_and_comes_back(tmp_path: Path) -> None:
    with loaded(tmp_path, request_timeout=0.2) as engine:
        with pytest.raises(EngineDownError, match=r"vlm: no answer in 0\.2 s"):
            engine.infer(pictures(grey_vllm.SILENT))
        assert engine.managed.reached("off", PATIENCE)
        (found,) = revived(engine)

    assert isinstance(found, Score)


def test_a_silent_engine_costs_a_picture_with_a_deadline_nothing_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vllm_engine, "_GRACE", 0.0)
    head = Head(image_id="a", deadline_at=SystemClock().now() + 0.5)
    with loaded(tmp_path) as engine:
        (late,) = engine.infer(pictures(grey_vllm.SILENT, head=head))
        (found,) = engine.infer(pictures(170))

    assert isinstance(late, ImageError)
    assert late.fault == "expired"
    assert isinstance(found, Score)


def test_one_that_waits_for_its_first_use_starts_then(tmp_path: Path) -> None:
    with loaded(tmp_path, start="first_use", patience=0.0) as engine:
        engine.warm_up(4)
        assert engine.managed.state == "off"
        with pytest.raises(EngineDownError, match=r"the engine is (off|starting)"):
            engine.infer(pictures(170))
        (found,) = revived(engine)

    assert isinstance(found, Score)


@pytest.mark.parametrize(("can_sleep", "rests"), [(True, "asleep"), (False, "off")])
def test_an_idle_one_rests_and_is_back_on_use(tmp_path: Path, can_sleep: bool, rests: str) -> None:
    args = {"can_sleep": can_sleep}
    with loaded(tmp_path, idle_after=0.05, engine_args=args) as engine:
        for _ in range(2):
            assert engine.managed.reached("asleep" if rests == "asleep" else "off", PATIENCE)
            (found,) = engine.infer(pictures(170))
            assert isinstance(found, Score)


def test_members_with_the_same_engine_share_its_process(tmp_path: Path) -> None:
    options = EngineOptions()
    one = built(tmp_path, options, frames=1)
    two = built(tmp_path, options, prompt="active-roadwork-reasoned", frames=1)
    other = built(tmp_path, options, seed=7, frames=1)
    for engine in (one, two, other):
        engine.load()

    assert one.managed is two.managed
    assert one.managed is not other.managed
    managed = one.managed
    one.close()
    one.close()
    assert not managed.closed
    (found,) = two.infer(pictures(170))
    assert isinstance(found, Score)
    two.close()
    other.close()
    assert managed.closed
    assert options.shared == {}


def test_what_cannot_start_says_why_and_its_last_words(tmp_path: Path) -> None:
    args = {"refuses": True, "mumbles": True}
    with pytest.raises(ConfigError) as error, loaded(tmp_path, engine_args=args):
        pass

    assert "settings that vLLM can start with" in str(error.value)
    assert "ValueError: no such model (the weights are odd)" in str(error.value)


def test_a_prompt_whose_words_the_model_lacks_is_refused(tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text('version = "1"\ntext = "?"\nyes = ["ja"]\n')

    with (
        pytest.raises(ConfigError, match="words that the model knows"),
        loaded(tmp_path, prompt="own.toml"),
    ):
        pass


def test_an_interpreter_that_is_none_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match=r"settings\.python: expected an interpreter"):
        find_interpreter(str(tmp_path / "python"), "m: settings")
    monkeypatch.delenv("ROADSTREAM_VLLM_PYTHON", raising=False)
    with pytest.raises(ConfigError, match=r"uv pip install .* vllm`.*got nothing"):
        find_interpreter(None, "m: settings")
