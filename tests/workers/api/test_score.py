"""``roadstream.score``: the command's work for programs; every picture once, whatever happens."""

import asyncio
import contextlib
import shutil
from pathlib import Path
from typing import Any

import pytest

import roadstream
from roadstream.sinks.files.readers import read_answers
from roadstream.stages.decoding.decode import encode_jpeg
from roadstream.workers.demo.render import render_drive
from tests.kits.command import CONES_CASCADE
from tests.kits.command import roadstream as command
from tests.workers.api.test_classifier import program

COUNT = 12
TIMES = {"submitted_at", "answered_at", "latency", "votes"}


@pytest.fixture(scope="module")
def frames() -> list[bytes]:
    """The pictures, drawn once."""
    return [encode_jpeg(frame.image) for frame in render_drive(COUNT, 640, 360, seed=3)]


@pytest.fixture
def folder(frames: list[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with pictures in ``drive``, and the cascade ``rule.toml``."""
    (tmp_path / "drive").mkdir()
    for number, frame in enumerate(frames):
        (tmp_path / "drive" / f"{number:02}.jpg").write_bytes(frame)
    (tmp_path / "rule.toml").write_text(CONES_CASCADE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def uris(count: int = COUNT) -> list[str]:
    return [f"drive/{number:02}.jpg" for number in range(count)]


def test_every_picture_is_answered_once_as_the_command_does(folder: Path) -> None:
    answers = list(roadstream.score("drive", "a.jsonl", cascade="rule.toml", workers=1, sort=True))
    done = command("score", "drive", "--out", "b.jsonl", "--cascade", "rule.toml", "--workers",
                   "1", "--sort", folder=folder)  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert sorted(answer.head.uri for answer in answers) == uris()
    ours, theirs = (list(read_answers(folder / name)) for name in ("a.jsonl", "b.jsonl"))
    assert [row["uri"] for row in ours] == uris()
    for a, b in zip(ours, theirs, strict=True):
        assert {k: v for k, v in a.items() if k not in TIMES} == {
            k: v for k, v in b.items() if k not in TIMES
        }
    assert {a.head.uri: a.probability for a in answers} == {
        r["uri"]: r["probability"] for r in ours
    }


def test_a_loop_that_is_left_early_goes_on_from_there(folder: Path) -> None:
    for answer in roadstream.score(Path("drive"), Path("a.jsonl"), cascade="rule.toml", workers=1):
        first = answer
        break
    kept = {row["image_id"]: row["answered_at"] for row in read_answers(folder / "a.jsonl")}
    assert first.head.image_id in kept

    answers = list(roadstream.score(["drive"], "a.jsonl", cascade="rule.toml", workers=1))

    assert sorted(answer.head.uri for answer in answers) == uris()
    again = {answer.head.image_id: answer.answered_at for answer in answers}
    assert kept.items() <= again.items()
    assert len(list(read_answers(folder / "a.jsonl"))) == COUNT


def test_a_run_that_is_over_yields_its_answers_again_and_judges_what_is_new(folder: Path) -> None:
    def run() -> dict[str, float]:
        found = roadstream.score("drive", "a.jsonl", cascade="rule.toml", workers=1)
        return {answer.head.uri: answer.answered_at for answer in found}

    before = run()
    shutil.copy(folder / "drive" / "00.jpg", folder / "drive" / "new.jpg")
    after = run()

    assert {uri: at for uri, at in after.items() if uri != "drive/new.jpg"} == before
    assert "drive/new.jpg" in after


def test_without_an_output_nothing_is_left(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    temporary = folder / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    before = sorted(folder.iterdir())

    answers = list(roadstream.score("drive", cascade="rule.toml", workers=1))

    assert len(answers) == COUNT
    assert sorted(folder.iterdir()) == before
    assert list(temporary.iterdir()) == []


def test_what_cannot_be_read_is_a_failed_answer(folder: Path) -> None:
    (folder / "drive" / "cut.jpg").write_bytes(b"\xff\xd8\xff\xe0no more")
    half = "half a pair \ud800.jpg"  # as JSON can hold it
    found = roadstream.score(["drive", "gone.jpg", half], cascade="rule.toml", workers=1)

    failed = {answer.head.uri: answer.error for answer in found if answer.status == "failed"}

    assert set(failed) == {"drive/cut.jpg", "gone.jpg", r"half a pair \xed\xa0\x80.jpg"}
    assert str(failed["gone.jpg"]).startswith("missing:")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"fps": 0}, "fps: expected pictures per second above 0"),
        ({"workers": 0}, "workers: expected 1 or more"),
        ({"workers": "two"}, "workers"),
        ({"speed": 1}, "no option speed"),
        ({"log_level": "debug"}, "no option log_level"),
        ({"out": "answers.txt"}, r"\.parquet, \.jsonl, \.csv"),
        ({"paths": []}, "at least one PATH"),
        ({"paths": "-"}, "got -"),
        ({"paths": "nothing*.jpg"}, "matches no file"),
    ],
)
def test_wrong_usage_is_an_error_of_the_call(
    folder: Path, options: dict[str, Any], said: str
) -> None:
    for function in (roadstream.score, roadstream.ascore):
        with pytest.raises(roadstream.UsageError, match=said):
            function(**{"paths": "drive", **options})


def test_a_program_that_ends_in_its_loop_stops_the_run_and_keeps_what_was_answered(
    folder: Path,
) -> None:
    done = program(
        """
        import roadstream
        taken = roadstream.score("drive", "a.jsonl", cascade="rule.toml", workers=1)
        print(next(taken).head.image_id)
        """
    )

    assert done.returncode == 0, done.stderr
    kept = [row["image_id"] for row in read_answers(folder / "a.jsonl")]
    assert done.stdout.strip() in kept


def test_options_are_those_of_the_call_not_of_the_environment(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROADSTREAM_NAMESPACE", "others")
    monkeypatch.setenv("ROADSTREAM_LOG", "kafka://127.0.0.1:9")

    assert len(list(roadstream.score("drive", cascade="rule.toml", workers=1))) == COUNT


def test_the_loop_may_change_the_working_folder(folder: Path) -> None:
    taken = roadstream.score(
        folder / "drive", "a.jsonl", cascade="rule.toml", workers=1, ledger="events"
    )
    next(taken)
    with contextlib.chdir("drive"):
        left = len(list(taken))

    assert left == COUNT - 1
    assert len(list(read_answers(folder / "a.jsonl"))) == COUNT
    assert list((folder / "events").iterdir())


@pytest.mark.parametrize("out", [None, "a.jsonl"])
def test_a_run_that_fails_promises_to_go_on_only_where_it_can(
    folder: Path, monkeypatch: pytest.MonkeyPatch, out: str | None
) -> None:
    monkeypatch.setattr("sys.executable", str(folder / "gone"))

    with pytest.raises(roadstream.RunError, match="cannot be started") as caught:
        next(roadstream.score("drive", out, cascade="rule.toml", workers=1))

    assert ("goes on from there" in str(caught.value)) == (out is not None)


def test_errors_of_the_run_are_raised_where_answers_are_taken(folder: Path) -> None:
    with pytest.raises(roadstream.ConfigError, match="expected a cascade file or one of dual-h100"):
        next(roadstream.score("drive", cascade="none such"))
    taken = roadstream.score("drive", "a.jsonl", cascade="rule.toml", workers=1)
    next(taken)
    with pytest.raises(roadstream.UsageError, match="another roadstream is scoring into it"):
        next(roadstream.score("drive", "a.jsonl", cascade="rule.toml", workers=1))
    taken.close()


def test_coroutines_get_the_same_and_may_leave_early(folder: Path) -> None:
    async def program() -> tuple[int, list[str]]:
        taken = 0
        run = roadstream.ascore("drive", "a.jsonl", cascade="rule.toml", workers=1)
        async with contextlib.aclosing(run) as answers:
            async for _ in answers:
                taken += 1
                break
        run = roadstream.ascore("drive", "a.jsonl", cascade="rule.toml", workers=1)
        return taken, sorted([answer.head.uri async for answer in run])

    assert asyncio.run(program()) == (1, uris())


def test_a_cancelled_coroutine_stops_the_run(folder: Path) -> None:
    async def program() -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.3):
                async for _ in roadstream.ascore("drive", "a.jsonl", cascade="rule.toml"):
                    pass

    asyncio.run(program())

    answers = list(roadstream.score("drive", "a.jsonl", cascade="rule.toml", workers=1))
    assert sorted(answer.head.uri for answer in answers) == uris()
