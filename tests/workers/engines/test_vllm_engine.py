"""A real vLLM on a tiny Qwen3-VL: pictures in, log-odds out, as transformers gives them.

All members here share one engine, as it takes half a minute to start. Its pictures are prepared in
a rendering process; those of the stream's test are not.
"""

import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from roadstream.schemas.errors import EngineDownError, ImageError
from roadstream.schemas.records.image import Head
from roadstream.schemas.records.votes import Box, Evidence
from roadstream.schemas.settings.prompts import load_prompt
from roadstream.stages.inference import Abstained, Picture, Pictures, Score
from roadstream.streams.clock import SystemClock
from roadstream.workers.engines.options import EngineOptions
from roadstream.workers.engines.vllm.engine import SCRIPT, VllmEngine
from roadstream.workers.engines.vllm.process import find_interpreter
from roadstream.workers.engines.vlm.drawing import drawn
from tests.kits.checkpoints.qwen3_vl import write_qwen3_vl
from tests.kits.vllm_kit import Reference, asked_by, pictures, pixels, raws, vllm_member

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(300)]
Asked = Callable[..., VllmEngine]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_qwen3_vl(tmp_path_factory.mktemp("qwen3-vl"))


@pytest.fixture(scope="module")
def reference(model: Path) -> Reference:
    return Reference(model)


@pytest.fixture(scope="module")
def asked(model: Path) -> Iterator[Asked]:
    """Return what makes engines with other settings, in front of one process."""
    options, made = EngineOptions(), list[VllmEngine]()

    def make(**settings: Any) -> VllmEngine:
        member = vllm_member("vlm", model, render_processes=1, **settings)
        engine = VllmEngine(asked_by(member), member, options)
        engine.load()
        made.append(engine)
        return engine

    make()  # keeps the process for all of them
    yield make
    for engine in made:
        engine.close()


def test_the_score_is_that_of_transformers(asked: Asked, reference: Reference) -> None:
    found = raws(asked().infer(pictures(6)))

    assert found == pytest.approx([reference.raw(one) for one in pixels(6)], abs=1e-3)
    assert max(found) - min(found) > 0.1


def test_a_score_does_not_depend_on_its_neighbours(asked: Asked) -> None:
    engine = asked()
    together = raws(engine.infer(pictures(6)))

    alone = [raws(engine.infer(pictures(6)[i : i + 1]))[0] for i in range(6)]

    assert together == pytest.approx(alone, abs=1e-4)


def test_batches_of_several_threads_are_answered(asked: Asked) -> None:
    engine = asked()
    expected = raws(engine.infer(pictures(4)))
    found: list[list[float]] = []
    threads = [
        threading.Thread(target=lambda: found.append(raws(engine.infer(pictures(4)))))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert found == [pytest.approx(expected, abs=1e-4)] * 4


def test_the_likeliest_tokens_say_the_same(asked: Asked) -> None:
    exact, likeliest = asked(), asked(top_logprobs=8)

    assert raws(likeliest.infer(pictures(3))) == pytest.approx(
        raws(exact.infer(pictures(3))), abs=1e-2
    )


def test_it_abstains_where_the_answer_is_neither(asked: Asked) -> None:
    found = asked(template={"mode": "mumble"}, max_leak=0.3).infer(pictures(3))

    assert all(isinstance(one, Abstained) and "neither yes nor no" in one.reason for one in found)


def test_reasoning_is_kept_and_the_answer_read_behind_it(
    asked: Asked, reference: Reference
) -> None:
    engine = asked(template={"mode": "reason"}, reasoning_tokens=16)

    found = engine.infer(pictures(3))

    said = "cones ahead</think>\n\n"
    expected = [reference.raw(one, said=said, mode="reason") for one in pixels(3)]
    assert raws(found) == pytest.approx(expected, abs=1e-3)
    assert {one.text for one in found if isinstance(one, Score)} == {"cones ahead"}


def test_reasoning_without_end_is_closed(asked: Asked, reference: Reference) -> None:
    brooding = {"template": {"mode": "brood"}, "reasoning_tokens": 5}

    found = asked(**brooding, reasoning_kept=10).infer(pictures(2))

    said = "usersystemusersystemuser\n</think>\n\n"
    expected = [reference.raw(one, said=said, mode="brood") for one in pixels(2)]
    assert raws(found) == pytest.approx(expected, abs=1e-3)
    assert {one.text for one in found if isinstance(one, Score)} == {"systemuser"}


def test_reasoning_without_end_may_abstain(asked: Asked) -> None:
    brooding = {"template": {"mode": "brood"}, "reasoning_tokens": 5}

    found = asked(**brooding, reasoning_cut="abstain").infer(pictures(2))

    assert found == [Abstained("no answer after 5 tokens")] * 2


def test_earlier_frames_are_shown_before_a_picture(asked: Asked, reference: Reference) -> None:
    engine = asked(frames=2)
    frames = [
        Picture(one, head=Head(image_id=f"{i}", session_id="drive", frame_index=i))
        for i, one in enumerate(pixels(4))
    ]

    early = raws(engine.infer(Pictures(frames[:2])))
    late = raws(engine.infer(Pictures(frames[2:])))

    shown = pixels(4)
    expected = [reference.raw(*shown[max(0, i - 2) : i + 1]) for i in range(4)]
    assert early + late == pytest.approx(expected, abs=1e-3)


def test_boxes_of_earlier_tiers_are_drawn_and_points_looked_for(
    asked: Asked, reference: Reference
) -> None:
    engine = asked(
        boxes="drawn",
        evidence=["boxes"],
        points="thousandths",
        template={"mode": "reason"},
        reasoning_tokens=16,
        reasoning_kept=4,
    )
    box = Box(0.2, 0.3, 0.6, 0.8, 0.9, "cone")
    (plain,) = pixels(1)
    seen = Pictures([Picture(plain, evidence=Evidence([box])), Picture(plain)])

    found = engine.infer(seen)

    question, _ = engine._asking.questions(seen)
    told = replace(engine._asking.prompt, text=question.text)
    said = "cones ahead</think>\n\n"
    expected = [
        reference.raw(drawn(plain, [box]), prompt=told, said=said, mode="reason"),
        reference.raw(plain, said=said, mode="reason"),
    ]
    assert raws(found) == pytest.approx(expected, abs=1e-3)
    scores = [(one.text, one.boxes, one.tags) for one in found if isinstance(one, Score)]
    assert scores == [("head", [], {"points": "none"})] * 2


def test_the_order_of_text_and_pictures_is_that_of_the_prompt(
    asked: Asked, reference: Reference, tmp_path: Path
) -> None:
    own = tmp_path / "own.toml"
    own.write_text('version = "3"\ntext = "Roadwork?"\nsystem = "Look."\n')

    engine = asked(prompt=str(own))

    prompt = load_prompt(str(own), "/", "here")
    assert raws(engine.infer(pictures(2))) == pytest.approx(
        [reference.raw(one, prompt=prompt) for one in pixels(2)], abs=1e-3
    )
    assert engine.version == "own@3"


def test_what_is_late_is_aborted_alone(asked: Asked) -> None:
    engine = asked(template={"mode": "brood"}, reasoning_tokens=1500)
    now = SystemClock().now()
    shown = pixels(3)
    heads = [
        None,
        Head(image_id="a", deadline_at=now + 0.3),
        Head(image_id="b", deadline_at=now - 1),
    ]
    batch = Pictures([Picture(one, head=head) for one, head in zip(shown, heads, strict=True)])

    found = engine.infer(batch)

    assert isinstance(found[0], Score)  # 1500 tokens take a second
    assert [one.fault for one in found[1:] if isinstance(one, ImageError)] == ["expired"] * 2


def test_a_prompt_that_is_too_long_fails_its_own_picture(asked: Asked, tmp_path: Path) -> None:
    own = tmp_path / "long.toml"
    own.write_text(f'version = "1"\ntext = "{"x " * 3000}"\n')

    (found,) = asked(prompt=str(own)).infer(pictures(1))

    assert isinstance(found, ImageError)
    assert found.fault == "model_failed"
    assert "4096" in found.problem


def test_nothing_of_the_engine_outlives_its_front_end(asked: Asked) -> None:
    engine = asked(seed=1)  # a process of its own, as the tests may come in any order
    leader = engine.managed.pid
    assert leader is not None
    watched = [os.pidfd_open(pid) for pid in group_of(leader)]

    os.kill(leader, signal.SIGKILL)

    for one in watched:
        assert select.select([one], [], [], 30)[0]
        os.close(one)
    assert len(watched) >= 3  # front end, guardian, core
    with pytest.raises(EngineDownError):
        engine.infer(pictures(1))


def group_of(leader: int) -> list[int]:
    """Return the processes of a process group."""
    pids = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]
    return [pid for pid in pids if _group(pid) == leader]


def _group(pid: int) -> int | None:
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return None


PARENT = """
import os, sys
from roadstream.workers.engines.vllm.child import engine_wire as wire
from roadstream.workers.engines.vllm.process import EngineProcess
process = EngineProcess([sys.argv[1], "-u", sys.argv[2]], dict(os.environ), "orphan")
process.start(wire.Load(engine_args={"model": "/nowhere"}), print)
print(process.pid, flush=True)
sys.stdin.read()
"""


def test_the_engine_ends_with_its_worker_even_before_it_runs() -> None:
    command = [sys.executable, "-c", PARENT, find_interpreter(None, "here"), str(SCRIPT)]
    worker = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with worker:
        assert worker.stdout is not None
        watched = os.pidfd_open(int(worker.stdout.readline()))
        worker.send_signal(signal.SIGKILL)
    ended, _, _ = select.select([watched], [], [], 30.0)
    os.close(watched)

    assert ended
