"""The folder of a run: one process at a time, resumed only by the very same command."""

import io
import json
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest

from roadstream.schemas.errors import OutputError, UsageError
from roadstream.streams.ledgers.run_ledger import RunLedger
from roadstream.workers.job.run_folder import RunFolder, RunKey, resume, working_folder

KEY = RunKey(
    paths=["photos", "a\udcff\n.jpg"],
    folder="/home/me",
    log="embedded",
    cascade="lite",
    cascade_hash="0123",
    fps=None,
)
FOLDER = RunFolder("answers.parquet")


def test_the_folder_lies_beside_the_output(tmp_path: Path) -> None:
    folder = RunFolder(str(tmp_path / "answers.parquet"))
    assert folder.path == tmp_path / "answers.parquet.roadstream"
    with folder.locked(restart=False):
        assert folder.path.is_dir()
        assert {folder.ledger.parent, folder.log.parent} == {folder.path}


def test_only_one_process_scores_into_an_output(tmp_path: Path) -> None:
    out = tmp_path / "answers.csv"
    with RunFolder(str(out)).locked(restart=False):
        with (
            pytest.raises(UsageError, match=r"answers\.csv: another roadstream is scoring into it"),
            RunFolder(str(out)).locked(restart=True),
        ):
            pass
        with RunFolder(str(tmp_path / "other.csv")).locked(restart=False):
            pass
    with RunFolder(str(out)).locked(restart=False):
        pass


def test_the_lock_is_given_back_after_an_error(tmp_path: Path) -> None:
    folder = RunFolder(str(tmp_path / "answers.csv"))
    with pytest.raises(RuntimeError, match="stop"), folder.locked(restart=False):
        raise RuntimeError("stop")
    with folder.locked(restart=False):
        pass


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    folder = RunFolder(str(tmp_path / "file" / "answers.csv"))
    with (
        pytest.raises(
            OutputError, match=r"file/answers\.csv\.roadstream: cannot be written: Not a"
        ),
        folder.locked(restart=False),
    ):
        pass


@pytest.mark.parametrize("restart", [False, True])
def test_only_a_restart_forgets_what_an_earlier_run_left(tmp_path: Path, *, restart: bool) -> None:
    folder = RunFolder(str(tmp_path / "answers.csv"))
    left = [
        Path(f"{path}{suffix}")
        for path in (folder.ledger, folder.log)
        for suffix in ("", "-wal", "-shm")
    ]
    with folder.locked(restart=False):
        for path in left:
            path.write_bytes(b"x")
    with folder.locked(restart=restart):
        assert [path.exists() for path in left] == [not restart] * len(left)


def test_removing_the_log_keeps_the_ledger(tmp_path: Path) -> None:
    folder = RunFolder(str(tmp_path / "answers.csv"))
    with folder.locked(restart=False):
        folder.ledger.write_bytes(b"x")
        folder.log.write_bytes(b"x")
        folder.remove_log()
        folder.remove_log()
        assert (folder.ledger.exists(), folder.log.exists()) == (True, False)
    folder.forget()
    assert not folder.path.exists()


async def test_the_same_run_is_resumed_under_its_id(tmp_path: Path) -> None:
    async with RunLedger(tmp_path / "ledger.db") as ledger:
        first = await resume(ledger, KEY, FOLDER)
    async with RunLedger(tmp_path / "ledger.db") as ledger:
        assert await resume(ledger, KEY, FOLDER) == first
    async with RunLedger(tmp_path / "other.db") as ledger:
        assert await resume(ledger, KEY, FOLDER) != first


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"paths": ["videos"]}, r"a run with paths \['photos', .*\], not \['videos'\]"),
        ({"folder": "/tmp"}, "a run with folder '/home/me', not '/tmp'"),
        ({"log": "kafka://h:1"}, "a run with log 'embedded', not 'kafka://h:1'"),
        ({"cascade": "mine"}, "a run with cascade 'lite', not 'mine'"),
        ({"cascade_hash": "4567"}, "a run with cascade_hash '0123', not '4567'"),
        ({"fps": 2.0}, "a run with fps None, not 2.0"),
        ({"listed": "89ab"}, "a run over another list on standard input"),
    ],
)
async def test_another_run_is_refused_and_the_difference_is_named(
    tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    async with RunLedger(tmp_path / "ledger.db") as ledger:
        await resume(ledger, KEY, FOLDER)
        with pytest.raises(UsageError, match=rf"answers\.parquet\.roadstream holds {said}; give"):
            await resume(ledger, msgspec.structs.replace(KEY, **change), FOLDER)


async def test_a_run_that_noted_nothing_of_its_list_is_taken_at_its_word_once(
    tmp_path: Path,
) -> None:
    old = {k: v for k, v in msgspec.to_builtins(KEY).items() if k != "listed"}
    async with RunLedger(tmp_path / "ledger.db") as ledger:
        await ledger.set_facts({"run_id": "r", "key": json.dumps(old)})
        listed = msgspec.structs.replace(KEY, listed="0123")
        assert await resume(ledger, listed, FOLDER) == "r"
        with pytest.raises(UsageError, match="another list on standard input"):
            await resume(ledger, msgspec.structs.replace(KEY, listed="4567"), FOLDER)


@pytest.mark.parametrize("data", [b"a.jpg\nb.jpg\n", b"a.jpg\r\n\r\nb.jpg", b"a.jpg\0b.jpg\0"])
def test_a_list_is_kept_and_told_from_others_by_its_paths(tmp_path: Path, data: bytes) -> None:
    folder = RunFolder(str(tmp_path / "answers.csv"))
    with folder.locked(restart=False):
        with folder.list_kept(io.BytesIO(data)) as (kept, listed):
            assert kept.read() == data
        with folder.list_kept(io.BytesIO(b"a.jpg\nb.jpg")) as (_, same):
            assert listed == same
        with folder.list_kept(io.BytesIO(b"b.jpg\na.jpg\n")) as (_, other):
            assert listed != other
        assert [path.name for path in folder.path.iterdir()] == ["lock"]


def test_a_list_that_is_none_is_refused_and_nothing_of_it_is_kept(tmp_path: Path) -> None:
    folder = RunFolder(str(tmp_path / "answers.csv"))
    with (
        folder.locked(restart=False),
        pytest.raises(UsageError, match="expected one path per line"),
        folder.list_kept(io.BytesIO(b"\xff" * 2_000_000)),
    ):
        pass


def test_relative_paths_are_relative_to_the_working_folder() -> None:
    assert working_folder() == os.getcwd()  # noqa: PTH109
