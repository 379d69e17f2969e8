"""The fuzzer sees crashes, hangs, undocumented errors and leaks; the product shows none of them."""

from pathlib import Path

import msgspec
import pytest

from roadstream.bench.fuzz import command as fuzz
from roadstream.bench.fuzz.child import Plan, Step, input_number
from roadstream.bench.fuzz.mutations import Mutator
from roadstream.bench.fuzz.targets import targets

FAULTY = "tests.kits.fuzz_faulty"


def run(module: str, folder: Path, *steps: Step, hang_after: float = 30.0) -> list[fuzz.Outcome]:
    return fuzz.Run(Plan(module, 1, list(steps)), folder, hang_after).run()


def test_a_short_run_over_every_decoder_finds_nothing(tmp_path: Path) -> None:
    outcomes = run(fuzz.TARGETS, tmp_path, *fuzz.steps(targets(), 4_000, []))

    for outcome in outcomes:
        assert outcome.mistakes == [], outcome.target
        assert outcome.clean, outcome.target
    assert sum(outcome.inputs for outcome in outcomes) == pytest.approx(4_000, rel=0.02)
    assert sum(outcome.accepted for outcome in outcomes) > 400
    assert sum(outcome.refused for outcome in outcomes) > 400
    assert list(tmp_path.iterdir()) == []


def test_what_a_decoder_must_not_do_is_seen_and_its_input_saved(tmp_path: Path) -> None:
    steps = [Step("crash", 0, 20), Step("hang", 5, 12), Step("error", 0, 10)]

    crash, hang, error = run(FAULTY, tmp_path, *steps, hang_after=0.5)

    assert [(m.kind, m.number) for m in crash.mistakes] == [("crash", 7)]
    assert crash.mistakes[0].what == "SIGSEGV"
    assert "_crash" in crash.mistakes[0].trace
    assert (crash.inputs, crash.accepted, crash.mistaken) == (20, 19, 1)
    assert [(m.kind, m.number) for m in hang.mistakes] == [("hang", 7)]
    assert (hang.inputs, hang.accepted, hang.mistaken) == (7, 6, 1)
    # The same mistake again is counted, and told once.
    assert [(m.kind, m.number, m.what) for m in error.mistakes] == [("error", 3, "KeyError: b'3'")]
    assert (error.inputs, error.refused, error.mistaken) == (10, 8, 2)
    assert not any(outcome.clean for outcome in (crash, hang, error))
    saved = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert saved == {"crash-7.bin": b"7", "hang-7.bin": b"7", "error-3.bin": b"3"}


def test_a_decoder_that_holds_on_to_memory_is_seen(tmp_path: Path) -> None:
    (leak,) = run(FAULTY, tmp_path, Step("leak", 0, 600))

    assert leak.growth > fuzz.GROWTH_LIMIT
    assert not leak.clean


def test_an_input_follows_from_its_seed_and_number_alone() -> None:
    seeds = [bytes(range(200)), b"{}" * 50]
    one, two = Mutator(seeds, [b"word"]), Mutator(seeds, [b"word"])

    first = [one.input(input_number(1, number)) for number in range(200)]

    assert [two.input(input_number(1, number)) for number in reversed(range(200))] == first[::-1]
    assert [one.input(input_number(2, number)) for number in range(200)] != first
    assert len(set(first)) > 190


def test_a_process_that_comes_to_no_input_is_no_finding(tmp_path: Path) -> None:
    with pytest.raises(
        RuntimeError, match=r"came to no input: (?s:.*)No module named 'tests.none'"
    ):
        run("tests.none", tmp_path, Step("crash", 0, 1))
    assert list(tmp_path.iterdir()) == []


def test_an_earlier_result_counts_as_far_as_it_is_clean_and_of_the_same_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fuzz, "RESULTS", tmp_path)
    good = fuzz.Outcome(target="good", inputs=5, ended=True)
    torn = fuzz.Outcome(target="torn", inputs=5)
    document = {"benchmark": "fuzz", "seed": 1, "targets": [good, torn]}
    (tmp_path / "fuzz.json").write_bytes(msgspec.json.encode(document))

    assert fuzz.earlier("fuzz", 1) == {"good": good}
    assert fuzz.earlier("fuzz", 2) == {}
    assert fuzz.earlier("none", 1) == {}
