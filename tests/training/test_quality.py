"""Measures of judged pictures: known answers, and scikit-learn's."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss, f1_score, matthews_corrcoef, roc_auc_score

from tests.training.synthetic import pictures
from training import quality, slices
from training.judged import Judged, read_judged, write_judged


def one(label: int, probability: float, group: str = "a", **more: object) -> Judged:
    made = Judged(f"fam__{group}.jpg", label, group, "owner/repo", probability=probability)
    return replace(made, **more)  # type: ignore[arg-type]


def told(seed: int = 3, count: int = 400) -> list[Judged]:
    """Probabilities that are calibrated, in steps so that ties occur, in uneven scenes."""
    rng = np.random.default_rng(seed)
    stated = np.round(rng.random(count), 2)
    return [
        one(int(rng.random() < p), float(p), f"scene{int(rng.random() ** 2 * 60)}") for p in stated
    ]


def test_perfect_votes_have_perfect_figures() -> None:
    judged = [one(1, 1.0, "a"), one(0, 0.0, "b"), one(0, 0.0, "c")]

    found = quality.figures(judged)

    assert (found.mcc, found.f1, found.auc, found.accuracy) == (1.0, 1.0, 1.0, 1.0)
    assert (found.ece, found.brier) == (0.0, 0.0)
    assert (found.pictures, found.scenes, found.roadwork) == (3, 3, 1)


def test_shuffled_votes_are_worth_nothing() -> None:
    judged = told(count=4000)
    order = np.random.default_rng(1).permutation(len(judged))
    shuffled = [
        replace(j, probability=judged[k].probability) for j, k in zip(judged, order, strict=True)
    ]

    found = quality.figures(shuffled)

    assert found.mcc == pytest.approx(0.0, abs=0.05)
    assert found.auc == pytest.approx(0.5, abs=0.03)
    assert found.ece > 0.2


@pytest.mark.parametrize("by_scene", [False, True])
def test_figures_are_those_of_scikit_learn(by_scene: bool) -> None:
    judged = told()
    truth, stated = quality.truth_of(judged), quality.probability_of(judged)
    weights = quality.scene_weights(judged) if by_scene else np.ones(len(judged))

    found = quality.figures(judged, weights, threshold=0.4)

    called = stated >= 0.4
    assert found.mcc == pytest.approx(matthews_corrcoef(truth, called, sample_weight=weights))
    assert found.f1 == pytest.approx(f1_score(truth, called, sample_weight=weights))
    assert found.auc == pytest.approx(roc_auc_score(truth, stated, sample_weight=weights))
    assert found.brier == pytest.approx(brier_score_loss(truth, stated, sample_weight=weights))


def test_by_scene_a_scene_of_many_pictures_counts_once() -> None:
    judged = [one(1, 0.1, "drive") for _ in range(9)] + [one(1, 0.9, "x"), one(0, 0.1, "y")]

    plain = quality.figures(judged)
    by_scene = quality.figures(judged, quality.scene_weights(judged))

    assert plain.recall == pytest.approx(0.1)
    assert by_scene.recall == pytest.approx(0.5)


def test_ece_is_the_gap_of_each_bin_by_its_weight() -> None:
    judged = [one(1, 0.7)] * 2 + [one(0, 0.7)] * 2 + [one(0, 0.0)] * 4

    assert quality.figures(judged).ece == pytest.approx(0.5 * 0.2)
    assert [(b.stated, b.observed, b.share, b.pictures) for b in quality.reliability(judged)] == [
        (0.0, 0.0, 0.5, 4),
        (pytest.approx(0.7), 0.5, 0.5, 4),
    ]


def test_what_one_label_cannot_have_is_none() -> None:
    found = quality.figures([one(0, 0.2), one(0, 0.9)])

    assert (found.mcc, found.auc, found.f1, found.recall) == (None, None, None, None)
    assert found.specificity == 0.5


def test_figures_of_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="expected judged pictures, got none"):
        quality.figures([])


def test_intervals_hold_the_figure_and_repeat() -> None:
    judged = told()

    found = quality.intervals(judged, draws=200)

    exact = quality.figures(judged)
    for name, value in (("mcc", exact.mcc), ("auc", exact.auc)):
        low, high = found[name]
        assert value is not None
        assert low < value < high
    assert found == quality.intervals(judged, draws=200)
    assert found != quality.intervals(judged, draws=200, seed=1)


def test_intervals_are_wider_where_pictures_come_from_few_scenes() -> None:
    judged = told()
    apart = [replace(each, group=str(i)) for i, each in enumerate(judged)]
    drives = sorted(judged, key=lambda each: (each.label, each.probability >= 0.5))
    together = [replace(each, group=str(i // 40)) for i, each in enumerate(drives)]

    wide, narrow = (quality.intervals(part, draws=200)["mcc"] for part in (together, apart))

    assert wide[1] - wide[0] > 2 * (narrow[1] - narrow[0])


def test_a_kind_of_object_is_measured_with_and_without_others() -> None:
    both, machine = frozenset({"cone", "machine"}), frozenset({"machine"})
    judged = [one(1, 0.9, "a", kinds=both), one(1, 0.2, "b", kinds=machine), one(1, 0.9, "c")]

    found = slices.sights([*judged, one(0, 0.9, "d")])

    assert found["machine"].recall == 0.5
    assert (found["machine"].alone, found["machine"].alone_recall) == (1, 0.0)
    assert (found["cone"].recall, found["cone"].alone) == (1.0, 0)
    assert found[slices.NO_BOX].pictures == 1


def test_the_worst_kinds_come_first_and_add_up() -> None:
    judged = [
        *[one(1, 0.1, f"m{i}", kinds=frozenset({"machine"})) for i in range(3)],
        *[one(0, 0.9, f"c{i}", conditions=("day", "city street")) for i in range(2)],
        *[one(0, 0.1, f"d{i}", conditions=("day", "city street")) for i in range(2)],
        one(1, 0.8, "z"),
    ]

    found = slices.worst(judged)

    assert [(w.name, w.wrong, w.pictures) for w in found] == [
        ("missed: machine (owner/repo)", 3, 3),
        ("false alarm: city street (owner/repo)", 2, 4),
    ]


def test_blind_spots_name_objects_conditions_and_sources() -> None:
    night = [one(1, 0.1, str(i), conditions=("night",)) for i in range(3)]
    day = [one(1, 0.9, f"d{i}", conditions=("day",)) for i in range(3)]

    found = slices.blind_spots(night + day, label=1)

    assert [(w.name, w.wrong, w.pictures) for w in found] == [
        ("condition night", 3, 3),
        (f"object {slices.NO_BOX}", 3, 6),
        ("source owner/repo", 3, 6),
    ]


def test_tiers_share_the_pictures() -> None:
    judged = [one(1, 0.9, tier="a"), one(0, 0.1, tier="a"), one(0, 0.9, tier="b")]

    found = slices.by(judged, slices.tiers)

    assert {name: (f.pictures, f.accuracy) for name, f in found.items()} == {
        "a": (2, 1.0),
        "b": (1, 0.0),
    }


def test_a_file_of_judged_pictures_reads_as_it_was_written(tmp_path: Path) -> None:
    judged = [
        one(1, 0.25, "a", conditions=("day", "rain, fog"), kinds=frozenset({"cone", "drum"})),
        one(0, 0.75, "b", tier="first", votes={"quick": -1.5}),
        one(0, 0.5, "c", votes={"quick": 6.0, "slow": 0.25}),
    ]

    write_judged(tmp_path / "votes.csv", judged)

    assert read_judged(tmp_path / "votes.csv") == judged
    assert judged[0].family == "fam"


def test_a_cell_that_is_no_number_is_named(tmp_path: Path) -> None:
    path = tmp_path / "votes.csv"
    write_judged(path, pictures(3))
    path.write_text(path.read_text().replace("0.500000", "half", 1))

    with pytest.raises(ValueError, match=r"votes\.csv:2: expected a judged picture, got .*half"):
        read_judged(path)


def test_a_file_without_a_column_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "votes.csv"
    path.write_text("file,label\na,1\n")

    with pytest.raises(ValueError, match=r"lacks \['group', "):
        read_judged(path)
