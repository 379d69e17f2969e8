"""The commands as separate processes on a real Kafka, as an operator runs them."""

import signal
import subprocess
import uuid
from pathlib import Path

import pytest

from roadstream.sinks.files.readers import read_answers
from tests.kits.command import (
    CONES_CASCADE,
    roadstream,
    started,
    wait_for_answers,
    write_cascade,
    write_pictures,
)

pytestmark = [
    pytest.mark.kafka,
    pytest.mark.timeout(180),
    pytest.mark.usefixtures("impatient"),
]


def answers_on(log: str, folder: Path) -> list[tuple[str, str]]:
    """Return uri and status of every answer on the log that belongs to ``folder``."""
    out = folder / f"{uuid.uuid4().hex}.jsonl"
    done = roadstream("answers", "--log", log, "--out", str(out), folder=folder)
    assert done.returncode == 0, done.stderr
    rows = [(row["uri"], row["status"]) for row in read_answers(out)]
    return [(uri, status) for uri, status in rows if uri.startswith(str(folder))]


def stop(process: "subprocess.Popen[str]") -> None:
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)


def test_produced_pictures_are_answered_once_though_a_worker_is_killed(
    kafka_bootstrap: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROADSTREAM_NAMESPACE", "produced")  # the tests share a cluster
    log = f"kafka://{kafka_bootstrap}"
    pictures = write_pictures(tmp_path / "in", 300)
    common = ("--log", log, "--cascade", write_cascade(tmp_path))
    created = roadstream("topics", "create", *common, "--partitions", "4", folder=tmp_path)
    assert created.returncode == 0, created.stderr
    assert "answers  4 partitions" in created.stderr
    first = started("work", "--tier", "first", "--member", "a", *common, folder=tmp_path)
    second = started("work", "--tier", "second", *common, folder=tmp_path)
    sink = started("consensus", *common, folder=tmp_path)
    try:
        sent = roadstream("produce", str(pictures), *common, folder=tmp_path)
        assert "300 images sent" in sent.stderr, sent.stderr
        wait_for_answers(log, bool, "produced")
        first.kill()
        first.communicate(timeout=30)
        more = write_pictures(tmp_path / "more", 50)
        roadstream("produce", str(more), *common, folder=tmp_path)
        first = started("work", "--tier", "first", "--member", "a", *common, folder=tmp_path)
        wait_for_answers(log, lambda ids: len(ids) == 350, "produced")
        found = answers_on(log, tmp_path)
    finally:
        for process in (first, second, sink):
            stop(process)
    assert len(found) == len({uri for uri, _ in found}) == 350
    assert {status for _, status in found} == {"answered"}
    assert [first.returncode, second.returncode, sink.returncode] == [0, 0, 0]


def test_score_runs_whole_jobs_on_kafka_also_on_the_same_pictures(
    kafka_bootstrap: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROADSTREAM_NAMESPACE", "jobs")
    write_pictures(tmp_path / "in", 40)
    cascade = write_cascade(tmp_path)
    for out in ("a.jsonl", "b.jsonl"):
        done = roadstream(
            "score", "in", "--log", f"kafka://{kafka_bootstrap}", "--cascade", cascade,
            "--out", out, "--workers", "1", folder=tmp_path,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        rows = list(read_answers(tmp_path / out))
        assert sorted(row["uri"] for row in rows) == [f"in/{i:05}.jpg" for i in range(40)]


def test_references_are_read_under_the_root_only(
    kafka_bootstrap: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROADSTREAM_NAMESPACE", "references")
    log = f"kafka://{kafka_bootstrap}"
    (tmp_path / "cones.toml").write_text(CONES_CASCADE)
    write_pictures(tmp_path / "allowed", 2)
    write_pictures(tmp_path / "secret", 2)
    common = ("--log", log, "--cascade", "cones.toml")
    created = roadstream("topics", "create", *common, "--partitions", "4", folder=tmp_path)
    assert created.returncode == 0, created.stderr
    up = started("up", "--root", str(tmp_path / "allowed"), *common, folder=tmp_path)
    try:
        send = ("produce", str(tmp_path / "allowed"), str(tmp_path / "secret"), "--by-reference")
        sent = roadstream(*send, *common, folder=tmp_path)
        assert sent.returncode == 0, sent.stderr
        wait_for_answers(log, lambda ids: len(ids) == 4, "references")
        found = answers_on(log, tmp_path)
    finally:
        stop(up)
    statuses = {Path(uri).parent.name: status for uri, status in found}
    assert statuses == {"allowed": "answered", "secret": "failed"}
