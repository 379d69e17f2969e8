"""Sinks: ours and those that other distributions bring, and what is made of their mistakes."""

from collections.abc import Callable
from pathlib import Path

import pytest

from roadstream.schemas.errors import ConfigError, OutputError, UsageError
from roadstream.schemas.records.image import Head
from roadstream.sinks.sink import OURS, check_output, open_writer, sinks, target_of
from tests.kits.builders import answered

SOURCE = """
from pathlib import Path
from roadstream.schemas.errors import UsageError
from roadstream.schemas.records.image import Head
from roadstream.sinks.sink import AnswerSink

class Sink(AnswerSink):
    def __init__(self, target):
        self.calls = Path(target.partition("://")[2] or target + ".calls")
        self.note("open")

    def note(self, call):
        with self.calls.open("a") as file:
            print(call, file=file)

    def write(self, rows):
        self.note(f"write {len(rows)}")

    def commit(self):
        self.note("commit")

    def abort(self):
        self.note("abort")

class Refusing(Sink):
    def __init__(self, target):
        raise UsageError(f"{target}: expected a port")

class Broken(Sink):
    def write(self, rows):
        super().write(rows)
        raise ConnectionError("gone\\naway")

    def abort(self):
        super().abort()
        raise KeyError("and this too")

class Late(Sink):
    def commit(self):
        super().commit()
        raise OSError(28, "No space left on device")

class Unready(Sink):
    def __init__(self, target):
        raise TimeoutError("no answer")

class Half(AnswerSink):
    def __init__(self, target):
        pass

    def write(self, rows):
        pass

class Other:
    pass
"""


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """Install ``elsewhere 2.1`` with sinks; return what tells the calls of one on ``log``."""
    monkeypatch.setattr(sinks, "_loaded", {})
    monkeypatch.chdir(tmp_path)
    site = tmp_path / "site"
    metadata = site / "elsewhere-2.1.dist-info"
    metadata.mkdir(parents=True)
    (site / "elsewhere.py").write_text(SOURCE)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: elsewhere\nVersion: 2.1\n")
    names = ("sink", "refusing", "broken", "late", "unready", "half", "other")
    points = [f"{name} = elsewhere:{name.capitalize()}" for name in names]
    points += [".own = elsewhere:Sink", "absent = nowhere:Sink", ".csv = elsewhere:Sink"]
    (metadata / "entry_points.txt").write_text("\n".join(["[roadstream.sinks]", *points]))
    monkeypatch.syspath_prepend(site)
    return lambda: (tmp_path / "log").read_text().splitlines()


Calls = Callable[[], list[str]]


ANSWER = answered(head=Head(image_id="a"), status="failed")


def written(target: str) -> None:
    with open_writer(target) as writer:
        writer.write([ANSWER, ANSWER])
        writer.write([])


def test_rows_are_written_and_then_committed(calls: Calls) -> None:
    written("sink://log")
    assert calls() == ["open", "write 2", "commit"]


def test_the_scheme_and_the_ending_of_a_name_count_whatever_their_case(calls: Calls) -> None:
    written("SINK://log")
    written("answers.OWN")
    assert calls() == ["open", "write 2", "commit"]
    assert Path("answers.OWN.calls").exists()


def test_a_check_opens_and_aborts(calls: Calls) -> None:
    check_output("sink://log")
    assert calls() == ["open", "abort"]


def interrupted() -> None:
    with open_writer("sink://log") as writer:
        writer.write([ANSWER])
        raise KeyboardInterrupt


def test_an_interruption_aborts_once(calls: Calls) -> None:
    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert calls() == ["open", "write 1", "abort"]


@pytest.mark.parametrize(
    ("name", "got", "called"),
    [
        ("broken", "ConnectionError: gone away", ["open", "write 2", "abort"]),
        ("late", "OSError: [Errno 28] No space left on device", [
            "open", "write 2", "commit", "abort"
        ]),
    ],
)  # fmt: skip
def test_what_fails_names_the_distribution_and_aborts(
    calls: Calls, name: str, got: str, called: list[str]
) -> None:
    with pytest.raises(OutputError) as caught:
        written(f"{name}://log")
    assert str(caught.value) == (
        f"{name}://log: expected the sink of elsewhere 2.1 to take answers, got {got}"
    )
    assert calls() == called


def test_a_sink_that_cannot_be_opened_is_an_error_of_the_target_or_of_the_distribution(
    calls: Calls,
) -> None:
    with pytest.raises(UsageError, match=r"^refusing://x: expected a port$"):
        open_writer("refusing://x")
    with pytest.raises(OutputError, match=r"the sink of elsewhere 2\.1 .* TimeoutError: no answer"):
        open_writer("unready://x")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("half", "(elsewhere:Half) to be an AnswerSink, got one without abort, commit"),
        ("other", "(elsewhere:Other) to be an AnswerSink, got <class 'elsewhere.Other'>"),
        ("absent", "(nowhere:Sink) to be importable, got ModuleNotFoundError: No module named"),
    ],
)
def test_what_is_no_sink_is_refused(calls: Calls, name: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        open_writer(f"{name}://x")
    assert f"{name}://x: expected the sink {name} of elsewhere 2.1 {said}" in str(caught.value)


def test_an_unknown_name_is_refused_with_those_that_there_are(calls: Calls) -> None:
    told = (
        "expected a name ending in .parquet, .jsonl, .csv, .own, or sink://…, or refusing://…, or "
        "broken://…, or late://…, or unready://…, or half://…, or other://…, or absent://…, got"
    )
    for target, got in (("a.xlsx", ".xlsx"), ("s3://a.csv", "s3://…"), ("a", "no suffix")):
        with pytest.raises(UsageError) as caught:
            open_writer(target)
        assert str(caught.value) == f"{target}: {told} {got}"


def test_a_format_of_ours_stays_ours(calls: Calls) -> None:
    written("answers.csv")
    assert Path("answers.csv").read_text().startswith("image_id,")
    assert list(OURS) == [".parquet", ".jsonl", ".csv"]


def test_paths_are_spelled_as_ever_and_other_targets_stay_as_they_are() -> None:
    assert target_of("./a//b.csv") == target_of(Path("a/b.csv")) == "a/b.csv"
    assert target_of("HTTP://H//a/./b") == "http://H//a/./b"
