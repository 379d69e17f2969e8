"""Answers find their labels, what does not is counted, and the verdict is printed readably."""

import io
import posixpath
import unicodedata
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Literal

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from rich.console import Console

from roadstream.schemas.errors import RunError, UsageError
from roadstream.schemas.records.answer import Answer, Latency, TierLatency, Vote
from roadstream.schemas.records.image import Head
from roadstream.sinks.evaluation.label_join import Counts
from roadstream.sinks.evaluation.labels import LabelLine, Labels
from roadstream.sinks.evaluation.measure import Evaluation, evaluate, join_labels
from roadstream.sinks.evaluation.table import render
from roadstream.sinks.sink import open_writer
from tests.kits.builders import answered


def vote(tier: str, member: str, probability: float, weight: float = 1.0) -> Vote:
    return Vote(tier, member, "1", 0.0, probability, weight, 0.001, 1)


def answer(uri: str, probability: float | None, tiers: int = 1, threshold: float = 0.5) -> Answer:
    names = ["fast", "careful"][:tiers]
    latency = Latency(total=1.0, joining=0.1, tiers=[TierLatency(n, 0.1, 0.2, 0.3) for n in names])
    if probability is None:
        return answered(head=Head(image_id=uri, uri=uri), status="failed", latency=latency)
    return answered(
        head=Head(image_id=uri, uri=uri),
        status="answered",
        label="roadwork" if probability >= threshold else "none",
        probability=probability,
        confidence=abs(2 * probability - 1),
        threshold=threshold,
        exit_tier=names[-1],
        votes=[vote(name, f"{name}-net", probability) for name in names],
        shadow_votes=[vote("fast", "trial", 1 - probability, 0.0)],
        latency=latency,
    )


def files(folder: Path, answers: list[Answer], labels: str) -> tuple[Path, Path]:
    with open_writer(folder / "answers.jsonl") as writer:
        writer.write(answers)
    (folder / "labels.csv").write_text(labels)
    return folder / "answers.jsonl", folder / "labels.csv"


def counts(folder: Path, uris: list[str], labels: str) -> Counts:
    return join_labels(*files(folder, [answer(uri, 0.9) for uri in uris], labels)).counts


def test_scores_are_overall_per_tier_and_per_member(tmp_path: Path) -> None:
    answers = [
        answer("a.jpg", 0.9),
        answer("b.jpg", 0.1),
        answer("c.jpg", 0.6, tiers=2, threshold=0.65),
        answer("d.jpg", None),
        answer("unlabelled.jpg", 0.2),
    ]

    joined = join_labels(
        *files(tmp_path, answers, "file,label\na.jpg,1\nb.jpg,0\nc.jpg,1\nd.jpg,1")
    )
    verdict = evaluate(joined)

    assert verdict.counts == Counts(
        answers=5,
        judged=3,
        failed=1,
        left_open=0,
        without_label=1,
        failed_in_all=1,
        labels=4,
        labels_without_answer=0,
    )
    assert verdict.overall.accuracy == pytest.approx(2 / 3)
    assert [(t.tier, t.exits, t.share) for t in verdict.tiers] == [
        ("fast", 3, 0.75),
        ("careful", 1, 0.25),
    ]
    assert [t.scores.accuracy for t in verdict.tiers] == [1.0, 0.0]
    assert [(m.tier, m.member, m.shadow, m.scores.images) for m in verdict.members] == [
        ("fast", "fast-net", False, 3),
        ("fast", "trial", True, 3),
        ("careful", "careful-net", False, 1),
    ]
    assert [m.scores.accuracy for m in verdict.members] == [1.0, 0.0, 1.0]
    assert (verdict.reward.challenges, verdict.reward.silent) == (4, 1)
    assert verdict.reward.last == 0.0


def test_verdict_encodes_to_json_and_back(tmp_path: Path) -> None:
    verdict = evaluate(join_labels(*files(tmp_path, [answer("a.jpg", 0.9)], "file,label\na.jpg,1")))

    assert msgspec.json.decode(msgspec.json.encode(verdict), type=Evaluation) == verdict


@pytest.mark.parametrize(
    ("uri", "file"),
    [
        ("positives/a.jpg", "positives/a.jpg"),
        ("../data/positives/a.jpg", "positives/a.jpg"),
        ("positives/a.jpg", "/home/me/data/positives/a.jpg"),
        ("./a.jpg", "a.jpg"),
        ("../data/a.jpg", "/home/me/data/a.jpg"),
        ("data\\positives\\a.jpg", "positives/a.jpg"),
        ("file:///data/a.jpg", "data/a.jpg"),
        ('we,ird "näme"\n.jpg', '"we,ird ""näme""\n.jpg"'),
        ("videos/d.mp4#t=12.3", "d.mp4"),
        ("videos/d.mp4#t=12.3", "videos/d.mp4#t=12.3"),
    ],
)
def test_uri_and_file_of_one_picture_match(tmp_path: Path, uri: str, file: str) -> None:
    assert counts(tmp_path, [uri], f"file,label\n{file},1\n").judged == 1


@pytest.mark.parametrize(
    ("uri", "file"),
    [("data/positives/a.jpg", "negatives/a.jpg"), ("aa.jpg", "a.jpg"), ("xa/b.jpg", "a/b.jpg")],
)
def test_names_that_only_look_alike_do_not_match(tmp_path: Path, uri: str, file: str) -> None:
    both = counts(tmp_path, [uri, "other.jpg"], f"file,label\n{file},1\nother.jpg,0\n")

    assert (both.judged, both.without_label, both.labels_without_answer) == (1, 1, 1)


def test_label_that_fits_two_answers_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"a\.jpg could be one/a\.jpg and two/a\.jpg; expected"):
        counts(tmp_path, ["one/a.jpg", "two/a.jpg"], "file,label\na.jpg,1\n")


def test_answer_that_fits_two_labels_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=r"could be one/a\.jpg \(line 2\) and two/a\.jpg \(line 3\)"
    ):
        counts(tmp_path, ["a.jpg"], "file,label\none/a.jpg,1\ntwo/a.jpg,0\n")


@pytest.mark.parametrize("uris", [["sub/a.jpg", "a.jpg"], ["a.jpg", "sub/a.jpg"]])
def test_exact_name_goes_before_a_longer_one_in_any_order(tmp_path: Path, uris: list[str]) -> None:
    both = counts(tmp_path, uris, "file,label\na.jpg,1\n")

    assert (both.judged, both.without_label) == (1, 1)


def test_contradicting_labels_are_refused_with_their_lines(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"one label for a\.jpg, got different .* 2 and 4"):
        counts(tmp_path, ["a.jpg"], "file,label\na.jpg,1\nb.jpg,1\na.jpg,0\n")


def test_repeated_label_is_fine(tmp_path: Path) -> None:
    found = counts(tmp_path, ["a.jpg"], "file,label\na.jpg,1\na.jpg,true\n")

    assert (found.judged, found.labels, found.labels_without_answer) == (1, 2, 0)


@pytest.mark.parametrize(
    "other", ["./one/a.jpg", "two/../one/a.jpg", "{here}/one/a.jpg", "{here}/link/a.jpg"]
)
@pytest.mark.parametrize("uri", ["one/a.jpg", "./one/a.jpg", "{here}/one/a.jpg", "link/a.jpg"])
def test_one_picture_by_two_paths_has_one_label(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uri: str, other: str
) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "a.jpg").touch()
    (tmp_path / "link").symlink_to("one")
    monkeypatch.chdir(tmp_path)
    uri, other = uri.format(here=tmp_path), other.format(here=tmp_path)

    found = counts(tmp_path, [uri], f"file,label\none/a.jpg,0\n{other},0\n")

    assert found.judged == 1


@pytest.mark.parametrize("other", ["./one/a.jpg", "{here}/one/a.jpg", "{here}/link/one/a.jpg"])
def test_one_picture_by_two_paths_with_two_labels_is_refused_with_both_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other: str
) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "a.jpg").touch()
    (tmp_path / "link").symlink_to(".")
    monkeypatch.chdir(tmp_path)
    labels = f"file,label\none/a.jpg,0\n{other.format(here=tmp_path)},1\n"

    with pytest.raises(UsageError, match=r"one/a\.jpg \(line 2\) and .*one/a\.jpg \(line 3\)"):
        counts(tmp_path, ["one/a.jpg"], labels)


def test_one_picture_that_was_answered_by_two_paths_has_one_label(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = counts(tmp_path, ["one/a.jpg", f"{tmp_path}/one/a.jpg"], "file,label\na.jpg,0\n")

    assert found.judged == 2


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_composed_and_decomposed_names_match(tmp_path: Path, form: Literal["NFC", "NFD"]) -> None:
    uri = unicodedata.normalize(form, "straße/café.jpg")
    file = unicodedata.normalize("NFD" if form == "NFC" else "NFC", "café.jpg")

    assert counts(tmp_path, [uri], f"file,label\n{file},1\n").judged == 1


SAVED_AGAIN: dict[str, Callable[[str], bytes]] = {
    "excel": lambda text: b"\xef\xbb\xbf" + text.replace(",", ";").replace("\n", "\r\n").encode(),
    "powershell": lambda text: text.encode("utf-16"),
    "powershell, big": lambda text: b"\xfe\xff" + text.encode("utf-16-be"),
    "no mark": lambda text: text.encode("utf-16-le"),
    "unicode text": lambda text: text.replace(",", "\t").encode("utf-16"),
    "empty columns": lambda text: text.replace("\n", ",,\n").encode() + b",,,,\n\n",
    "sep line": lambda text: ("sep=;\n" + text.replace(",", ";")).encode(),
    "header": lambda text: text.replace("file,label", " File , LABEL").encode(),
    "mac": lambda text: text.replace("\n", "\r").encode(),
}


@pytest.mark.parametrize("how", SAVED_AGAIN)
def test_labels_are_read_as_people_keep_them(tmp_path: Path, how: str) -> None:
    answers, labels = files(tmp_path, [answer("é.jpg", 0.9), answer("b.jpg", 0.1)], "")
    labels.write_bytes(SAVED_AGAIN[how]("file,label,t_seconds\né.jpg,1,\nb.jpg,0,\n"))

    assert join_labels(answers, labels).truth.tolist() == [True, False]


def test_a_doubled_column_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="expected one column label, got 2: columns 2 and 3"):
        counts(tmp_path, ["a"], "file,label,label\na,1,0\n")


@pytest.mark.parametrize("word", ["1", "roadwork", "True", " 1.0 ", "ROADWORK", '"1,0"'])
def test_words_for_roadwork(tmp_path: Path, word: str) -> None:
    joined = join_labels(*files(tmp_path, [answer("a", 0.9)], f"file,label\na,{word}\n"))

    assert joined.truth.tolist() == [True]


@pytest.mark.parametrize("word", ["0", "none", "false", "False", '"0,0"'])
def test_words_for_no_roadwork(tmp_path: Path, word: str) -> None:
    joined = join_labels(*files(tmp_path, [answer("a", 0.9)], f"file,label\na,{word}\n"))

    assert joined.truth.tolist() == [False]


def test_open_labels_are_left_out_and_counted(tmp_path: Path) -> None:
    found = counts(tmp_path, ["a", "b", "c"], "file,label\na,-1\nb,\nc,1\n")

    assert (found.judged, found.left_open, found.without_label) == (1, 2, 0)
    assert found.labels_without_answer == 0


def test_unknown_label_is_refused_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"line 3: column label: expected 1, 0, .* got maybe"):
        counts(tmp_path, ["a"], "file,label\na,1\nb,maybe\n")


def test_video_frame_finds_the_nearest_labelled_second(tmp_path: Path) -> None:
    uris = ["data/d.mp4#t=0.4", "data/d.mp4#t=1.49", "data/d.mp4#t=2.6", "data/d.mp4#t=7"]
    labels = "file,t_seconds,label\nd.mp4,0,0\nd.mp4,1,1\nd.mp4,2,0\nd.mp4,3,1\nd.mp4,5,1\n"

    joined = join_labels(*files(tmp_path, [answer(uri, 0.9) for uri in uris], labels))

    assert joined.truth.tolist() == [False, True, True]
    assert joined.counts.without_label == 1
    assert joined.counts.labels_without_answer == 2


def test_columns_may_have_other_names(tmp_path: Path) -> None:
    paths = files(tmp_path, [answer("d.mp4#t=3", 0.9)], "clip,work,at\nd.mp4,1,3\nd.mp4,0,9\n")

    joined = join_labels(*paths, file_column="clip", label_column="Work", time_column="at")

    assert joined.truth.tolist() == [True]


@pytest.mark.parametrize("header", ["uri,roadwork", "Image,Y", "path,label", "\ufefffile,label"])
def test_usual_column_names_are_found(tmp_path: Path, header: str) -> None:
    assert counts(tmp_path, ["a"], f"{header}\na,1\n").judged == 1


def test_missing_column_is_refused_with_those_there(tmp_path: Path) -> None:
    paths = files(tmp_path, [answer("a", 0.9)], "name,label\na,1\n")

    with pytest.raises(UsageError, match=r"expected a column file or uri or .* got name, label"):
        join_labels(*paths)
    with pytest.raises(UsageError, match="expected a column work, got name, label"):
        join_labels(*paths, file_column="name", label_column="work")


def test_nothing_in_common_is_refused_with_an_example_of_each(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none does: x/b\.jpg there, a\.jpg in .*answers\.jsonl"):
        counts(tmp_path, ["a.jpg"], "file,label\nx/b.jpg,1\n")


def test_missing_and_binary_label_files_are_usage_errors(tmp_path: Path) -> None:
    answers, labels = files(tmp_path, [answer("a", 0.9)], "")

    with pytest.raises(UsageError, match="expected a column file or"):
        join_labels(answers, labels)
    labels.write_bytes(b"\xff\xfe\x00file")
    with pytest.raises(UsageError, match="expected CSV in UTF-8"):
        join_labels(answers, labels)
    with pytest.raises(UsageError, match="found nothing there"):
        join_labels(answers, tmp_path / "none.csv")
    with pytest.raises(RunError, match="cannot be read: Is a directory"):
        join_labels(answers, tmp_path)


def printed(verdict: Evaluation) -> str:
    stream = io.StringIO()
    Console(file=stream, width=80).print(render(verdict))
    return stream.getvalue()


def test_tables_fit_eighty_columns_and_hold_no_colour_when_piped(tmp_path: Path) -> None:
    answers = [answer(f"{n}.jpg", n / 100, tiers=1 + n % 2) for n in range(100)]
    answers.append(answer("broken.jpg", None))
    labels = "file,label\n" + "".join(f"{n}.jpg,{int(n > 50)}\n" for n in range(105))

    text = printed(evaluate(join_labels(*files(tmp_path, answers, labels))))

    assert max(len(line) for line in text.splitlines()) <= 80
    assert "\x1b" not in text
    assert "…" not in text
    for word in ("MCC", "ECE", "By exit tier", "careful-net", "trial (shadow)", "final score"):
        assert word in text
    assert "Failed in the whole file: 1." in text
    assert "Labels without an answer: 5 of 105." in text


def test_member_names_are_not_read_as_markup(tmp_path: Path) -> None:
    hostile = answered(
        head=Head(image_id="a", uri="a"),
        status="answered",
        label="roadwork",
        probability=0.9,
        votes=[vote("[red]t[/red]", "[/bold]m", 0.9)],
        exit_tier="[/nope]",
    )

    text = printed(evaluate(join_labels(*files(tmp_path, [hostile], "file,label\na,1\n"))))

    assert "[red]t[/red]" in text
    assert "[/nope]" in text


PATH = st.lists(st.sampled_from(["a", "b", "..", "."]), min_size=1, max_size=4).map("/".join)


@given(st.dictionaries(PATH, st.booleans(), min_size=1, max_size=8), PATH)
def test_found_label_is_what_all_say_whose_path_ends_the_other(
    files: dict[str, bool], uri: str
) -> None:
    def fits(file: str) -> bool:
        one, other = (PurePosixPath(posixpath.normpath(each)).parts for each in (file, uri))
        one = tuple(part for part in one if part != "..")
        other = tuple(part for part in other if part != "..")
        shorter = min(len(one), len(other))
        return shorter > 0 and one[-shorter:] == other[-shorter:]

    assume(any(part not in (".", "..") for part in posixpath.normpath(uri).split("/")))
    lines = [LabelLine(n, file, None, said) for n, (file, said) in enumerate(files.items())]
    labels = Labels(Path("l.csv"), lines)
    same = [file for file in files if posixpath.normpath(file) == posixpath.normpath(uri)]
    expected = same or [file for file in files if fits(file)]

    if len({files[file] for file in expected}) > 1:
        with pytest.raises(UsageError, match="could be"):
            labels.find(uri)
    else:
        found = labels.find(uri)
        assert {lines[n].file for n in found.lines} == set(expected) if found else not expected
