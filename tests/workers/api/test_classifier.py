"""``roadstream.open``: what it takes and returns, and how it behaves in a program of others."""

import asyncio
import gc
import io
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import anyio
import numpy as np
import pytest

import roadstream
from roadstream.schemas.cascade.loading import load_cascade
from roadstream.stages.decoding.decode import encode_jpeg
from roadstream.workers.api.classifier import InMemoryStream, as_image
from roadstream.workers.api.loop_thread import LoopThread
from roadstream.workers.demo.render import render_drive
from roadstream.workers.service.runtime import WorkOptions
from tests.kits.command import CONES_CASCADE, write_cascade


@pytest.fixture(scope="module")
def rule(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("cascade") / "rule.toml"
    file.write_text(CONES_CASCADE)
    return file


@pytest.fixture(scope="module")
def judge(rule: Path) -> Iterator[roadstream.Classifier]:
    with roadstream.open(rule) as opened:
        yield opened


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("pictures")
    files = []
    for number, frame in enumerate(render_drive(8, 640, 360, seed=3)):
        file = folder / f"{number}.jpg"
        file.write_bytes(encode_jpeg(frame.image))
        files.append(file)
    return files


def probabilities(answers: list[roadstream.Answer]) -> list[float | None]:
    return [answer.probability for answer in answers]


def test_a_path_its_bytes_and_its_pixels_have_the_same_answer(
    judge: roadstream.Classifier, tmp_path: Path
) -> None:
    pixels = next(iter(render_drive(1, seed=3))).image
    file = tmp_path / "one.ppm"
    height, width = pixels.shape[:2]
    file.write_bytes(b"P6 %d %d 255\n" % (width, height) + pixels.tobytes())

    answers = judge([file, str(file), file.read_bytes(), memoryview(file.read_bytes()), pixels])

    assert {answer.status for answer in answers} == {"answered"}
    assert len(set(probabilities(answers))) == 1
    assert [answer.head.uri for answer in answers] == [str(file), str(file), "", "", ""]
    (vote,) = answers[0].votes
    assert (vote.member, vote.probability) == ("cones", answers[0].probability)


def test_many_pictures_have_their_answers_in_their_order(
    judge: roadstream.Classifier, pictures: list[Path]
) -> None:
    alone = [judge(picture) for picture in pictures]

    answers = judge(picture for picture in pictures * 40)

    assert [answer.head.uri for answer in answers] == [str(one) for one in pictures * 40]
    assert probabilities(answers) == probabilities(alone) * 40
    assert judge([]) == []


def test_what_cannot_be_read_has_a_failed_answer_and_harms_no_neighbour(
    judge: roadstream.Classifier, pictures: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "text.jpg").write_text("no picture")
    cut = pictures[0].read_bytes()[:500]
    bad: list[roadstream.Picture] = [
        tmp_path / "gone.jpg", tmp_path, tmp_path / "text.jpg", b"", b"no picture", cut, "a\0b",
        "half a pair \ud800.jpg",
    ]  # fmt: skip

    answers = judge([*bad, pictures[0]])

    faults = [(answer.error or "").partition(":")[0] for answer in answers]
    assert faults == [
        "missing", "unreadable", "not_an_image", "empty", "not_an_image", "truncated", "bad_name",
        "bad_name", "",
    ]  # fmt: skip
    assert [answer.status for answer in answers] == ["failed"] * 8 + ["answered"]


@pytest.mark.parametrize(
    ("wrong", "got"),
    [
        (np.zeros((4, 4), np.uint8), r"uint8 \[4, 4\]"),
        (np.zeros((4, 4, 4), np.uint8), r"uint8 \[4, 4, 4\]"),
        (np.zeros((0, 4, 3), np.uint8), r"uint8 \[0, 4, 3\]"),
        (np.zeros((4, 4, 3), np.float32), r"float32 \[4, 4, 3\]"),
        (None, "NoneType"),
        (7, "int"),
        ([b"", 7.5], "float"),
        (io.BytesIO(b"line\nline\n"), "BytesIO"),
        ([io.BytesIO(b"line\nline\n")], "BytesIO"),
    ],
)
def test_what_is_no_picture_at_all_is_an_error(
    judge: roadstream.Classifier, wrong: Any, got: str
) -> None:
    with pytest.raises(TypeError, match=rf"expected .*array|pixels.*got {got}"):
        judge(wrong)


def test_pixels_may_be_a_view_in_any_layout(judge: roadstream.Classifier) -> None:
    pixels = next(iter(render_drive(1, seed=3))).image
    turned = np.asfortranarray(pixels)[::-1][::-1]

    assert probabilities(judge([pixels, turned])) == [judge(pixels).probability] * 2


def test_few_large_pictures_are_on_their_way_at_once(
    judge: roadstream.Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("roadstream.workers.api.classifier.WINDOW_BYTES", 2500)
    taken = 0

    def frames() -> Iterator[roadstream.Picture]:
        nonlocal taken
        for _ in range(50):
            taken += 1
            yield np.zeros((20, 20, 3), np.uint8)

    answers = judge._many(frames())
    next(answers)

    assert taken == 3
    assert len(list(answers)) == 49


def test_threads_may_share_it(judge: roadstream.Classifier, pictures: list[Path]) -> None:
    expected = probabilities(judge(pictures))

    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda _: probabilities(judge(pictures)), range(16)))

    assert found == [expected] * 16


def test_it_works_inside_a_running_event_loop(
    judge: roadstream.Classifier, pictures: list[Path]
) -> None:
    async def cell() -> float | None:
        return judge(pictures[0]).probability

    assert asyncio.run(cell()) == judge(pictures[0]).probability


def test_coroutines_share_one_and_do_not_block_their_loop(
    rule: Path, pictures: list[Path], judge: roadstream.Classifier
) -> None:
    async def program() -> tuple[list[float | None], int]:
        found: dict[int, float | None] = {}
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                await anyio.sleep(0.001)
                ticks += 1

        async with roadstream.aopen(rule) as ajudge, anyio.create_task_group() as ticking:
            ticking.start_soon(tick)

            async def one(number: int) -> None:
                found[number] = (await ajudge(pictures[number])).probability

            async with anyio.create_task_group() as tasks:
                for number in range(len(pictures)):
                    tasks.start_soon(one, number)
            many = probabilities(await ajudge(pictures))
            ticking.cancel_scope.cancel()
        assert [found[number] for number in range(len(pictures))] == many
        return many, ticks

    many, ticks = anyio.run(program)
    assert many == probabilities(judge(pictures))
    assert ticks > 1


def test_a_coroutine_that_is_cancelled_leaves_it_usable(rule: Path, pictures: list[Path]) -> None:
    async def program() -> str:
        async with roadstream.aopen(rule) as ajudge:
            with anyio.move_on_after(0):
                await ajudge(pictures * 20)
            return (await ajudge(pictures[0])).status

    assert anyio.run(program) == "answered"


def test_a_coroutine_that_is_cancelled_takes_no_more_pictures(
    rule: Path, pictures: list[Path]
) -> None:
    taken, begun = 0, threading.Event()

    def endless() -> Iterator[Path]:
        nonlocal taken
        while True:
            yield pictures[0]
            taken += 1
            begun.set()

    async def program() -> None:
        async with roadstream.aopen(rule) as ajudge:
            call = asyncio.create_task(ajudge(endless()))
            await anyio.to_thread.run_sync(begun.wait, 30)
            call.cancel()
            before = 0
            with anyio.fail_after(30):
                while taken != before:
                    before = taken
                    await ajudge(pictures)

    asyncio.run(program())


def test_a_closed_one_says_so(rule: Path, pictures: list[Path]) -> None:
    judge = roadstream.open(rule)
    assert judge(pictures[0]).status == "answered"
    judge.close()
    judge.close()

    with pytest.raises(roadstream.RunError, match="the classifier is closed"):
        judge(pictures[0])


def test_closing_ends_the_calls_of_other_threads(rule: Path, pictures: list[Path]) -> None:
    judge = roadstream.open(rule)
    begun = threading.Event()

    def endless() -> Iterator[Path]:
        while True:
            yield pictures[0]
            begun.set()

    with ThreadPoolExecutor(1) as threads:
        call = threads.submit(judge, endless())
        begun.wait(30)
        judge.close()
        with pytest.raises(roadstream.RunError, match="the classifier is closed"):
            call.result(30)


def test_a_failure_of_its_workers_is_raised_and_stays(
    rule: Path, pictures: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> None:
        raise RuntimeError("the log is gone")

    monkeypatch.setattr(InMemoryStream, "_trim", fail)
    with roadstream.open(rule) as judge:
        judge(pictures[0])  # after it, what fails is called
        for _ in range(2):
            with pytest.raises(roadstream.RunError, match="has failed: the log is gone"):
                judge(pictures * 3)


def test_the_failure_is_known_before_calls_end_by_it() -> None:
    async def main(ready: Callable[[], object], stopping: anyio.Event) -> None:
        ready()
        await failing.wait()
        raise RuntimeError("the log is gone")

    async def fail() -> None:
        failing.set()

    failing, thread = anyio.Event(), LoopThread(main)
    thread.start()
    call = thread.call(anyio.sleep_forever)
    known: list[BaseException | None] = []
    call.add_done_callback(lambda _: known.append(thread.failure))
    thread.call(fail)
    thread.stop(30)

    assert [str(failure) for failure in known] == ["the log is gone"]


def test_after_a_fork_the_child_is_told(
    judge: roadstream.Classifier, pictures: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judge, "_pid", 0)

    with pytest.raises(roadstream.RunError, match="in the process that opened it"):
        judge(pictures[0])


def test_a_cascade_that_cannot_be_loaded_is_an_error_and_leaves_no_thread(tmp_path: Path) -> None:
    threads = set(threading.enumerate())
    file = tmp_path / "bad.toml"
    file.write_text(CONES_CASCADE.replace('engine = "cones"', 'engine = "onnx"\nmodel = "x.onnx"'))

    with pytest.raises(roadstream.ConfigError, match=r"x\.onnx, which does not exist"):
        roadstream.open(file)
    (tmp_path / "x.onnx").write_bytes(b"no weights")
    with pytest.raises(roadstream.ConfigError, match=r"x\.onnx"):
        roadstream.open(file)

    assert not [one for one in set(threading.enumerate()) - threads if one.name == "roadstream"]


@pytest.mark.parametrize("wrong", [{"threads": 0}, {"decode_memory": 0}, {"decode_memory": -5}])
def test_a_number_out_of_bounds_is_an_error(rule: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(roadstream.UsageError, match=f"{next(iter(wrong))}: expected"):
        roadstream.open(rule, **wrong)


def test_it_leaves_signals_and_the_garbage_collector_alone(
    rule: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frozen: list[bool] = []
    monkeypatch.setattr(gc, "freeze", lambda: frozen.append(True))

    def state() -> object:
        handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
        return handlers, gc.get_threshold(), len(frozen), gc.isenabled()

    before = state()
    with roadstream.open(rule):
        assert state() == before
    assert state() == before


async def test_the_log_in_memory_keeps_nothing_that_was_answered(
    tmp_path: Path, pictures: list[Path]
) -> None:
    stream = InMemoryStream(load_cascade(str(tmp_path / write_cascade(tmp_path))), WorkOptions())
    ready, stopping = anyio.Event(), anyio.Event()

    def kept() -> int:
        return sum(len(part) for parts in stream._log.topics.values() for part in parts)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(stream.run, ready.set, stopping)
        await ready.wait()
        for _ in range(20):
            await stream.judge(as_image(pictures[0]))
        with anyio.fail_after(30):
            while kept() > 5:  # the last answer is given before all have committed
                await stream.judge(as_image(pictures[0]))
        stopping.set()


def program(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-c", textwrap.dedent(code), *map(str, arguments)],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip


def test_a_program_that_never_closes_it_ends(rule: Path, pictures: list[Path]) -> None:
    done = program(
        """
        import sys, roadstream
        judge = roadstream.open(sys.argv[1])
        print(judge(sys.argv[2]).status)
        """,
        rule, pictures[0],
    )  # fmt: skip

    assert (done.returncode, done.stdout, done.stderr) == (0, "answered\n", "")


def test_a_daemon_needs_neither_standard_streams_nor_a_working_folder(
    rule: Path, pictures: list[Path], tmp_path: Path
) -> None:
    done = program(
        """
        import os, sys, roadstream
        rule, picture, folder = sys.argv[1:]
        os.mkdir(folder)
        os.chdir(folder)
        os.rmdir(folder)
        out, sys.stdout, sys.stderr = sys.stdout, None, None
        with roadstream.open(rule) as judge:
            print(*(answer.status for answer in judge([picture, "relative.jpg"])), file=out)
        """,
        rule, pictures[0], tmp_path / "gone",
    )  # fmt: skip

    assert (done.stdout, done.stderr) == ("answered failed\n", "")


def test_it_logs_to_the_standard_library_and_leaves_structlog_to_the_program(
    rule: Path, pictures: list[Path]
) -> None:
    done = program(
        """
        import logging, sys, roadstream, structlog
        logging.basicConfig(level=logging.INFO, format="%(name)s %(levelname)s %(message)s")
        structlog.get_logger().info("before", of="the program")
        with roadstream.open(sys.argv[1]) as judge:
            judge(sys.argv[2])
            structlog.get_logger().info("meanwhile", of="the program")
        """,
        rule, pictures[0],
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert [word for word in done.stdout.split() if word in {"before", "meanwhile"}] == [
        "before",
        "meanwhile",
    ]
    assert "roadstream INFO worker_started" in done.stderr
    assert "tier=only" in done.stderr
    assert "worker_started" not in done.stdout


def test_a_cascade_is_opened_without_some_of_it_and_answers_say_so(
    tmp_path: Path, pictures: list[Path]
) -> None:
    (tmp_path / "c.toml").write_text(TWO_TIERS)

    with roadstream.open(tmp_path / "c.toml", without=["gone", "b"]) as judge:
        answer = judge(pictures[0])

    assert (answer.status, answer.missing, answer.missing_tiers) == ("answered", ["b"], ["gone"])
    assert "degraded" in answer.flags


TWO_TIERS = """
name = "two"
[[tiers]]
name = "here"
members = [{ name = "a", engine = "noop" }, { name = "b", engine = "noop" }]
[[tiers]]
name = "gone"
members = [{ name = "c", engine = "onnx", model = "nowhere.onnx" }]
"""
