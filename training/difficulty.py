"""Bins of difficulty on real pictures: their shares, and how often `lite` is right in each.

    python -m training.difficulty DATA     # writes training/results/difficulty.json

Votes are those of ``results/lite.csv``, by models that never saw the scene; boxes are those of the
cone rule; pixels are measured at the sizes of `lite`'s first tier. Nobody gives the tag ``weather``
there. The default bounds were chosen on the sources of ``CHOSEN``, by scene, and are shown on the
others.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from roadstream.schemas.cascade.rules import DIFFICULTY_WEIGHTS, Difficulty
from roadstream.stages.decoding.decode import decode
from roadstream.stages.inference import Picture
from roadstream.stages.rules.cones import find_cones
from roadstream.stages.rules.difficulty import Bins, Features, features, surface
from roadstream.stages.voting.vote import sigmoid
from training.corpus import FOLDS
from training.judged import Judged, read_judged
from training.quality import auc, scene_weights
from training.tables import table

RESULTS = Path(__file__).parent / "results"
PLAN = (0.65, 0.15, 0.10, 0.08, 0.02)
CHOSEN = ("us-drives", "german-drives")
GLANCE, CONES = (256, 160), (480, 270)
FIRST = ("glance", "cones")
DRAWS = 1000


@dataclass(frozen=True)
class Seen:
    """A judged picture with its features, score and bin, and whether `lite` was wrong about it."""

    judged: Judged
    features: Features
    score: float
    bin: int
    wrong: bool

    @property
    def doubt(self) -> float:
        """Minus the confidence after the first tier, in mean log-odds."""
        votes = self.judged.votes
        return -abs(float(np.mean([votes[name] for name in FIRST if name in votes])))


class Bin(msgspec.Struct, frozen=True, kw_only=True):
    """A bin on some pictures; shares by scene let every scene weigh the same.

    Attributes:
        plan: Share that the plan expects.
        share: Share of the pictures.
        share_by_scene: The same by scene.
        pictures: How many.
        scenes: Of how many scenes.
        accuracy: Share of them that `lite` calls what they are; ``None`` without any.
        interval: Its 95 % interval, by bootstrap over scenes.
    """

    plan: float
    share: float
    share_by_scene: float
    pictures: int
    scenes: int
    accuracy: float | None
    interval: tuple[float, float] | None


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """Pictures of some sources.

    Attributes:
        bins: Bins 1 to 5.
        auc: How well the score tells pictures that `lite` gets wrong: 0.5 is not at all.
        auc_by_scene: The same by scene.
        auc_confidence: How well the decision confidence after the first tier does.
        auc_features: How well each feature does, where it is known.
    """

    bins: list[Bin]
    auc: float
    auc_by_scene: float
    auc_confidence: float
    auc_features: dict[str, float]


def seen(data: Path, judged: Judged, rule: Bins) -> Seen:
    """Measure a picture."""
    pixels = decode((data / judged.file).read_bytes(), min_width=CONES[0], min_height=CONES[1])
    picture = Picture(pixels)
    picture.keep_only([GLANCE, CONES])
    boxes = len(find_cones(picture.at(*CONES)).boxes)
    votes = [sigmoid(judged.votes[name]) for name in FIRST if name in judged.votes]
    found = features(votes, boxes, None, surface(picture.smallest()))
    score, level = rule.score(found), rule.level(found)
    assert score is not None
    assert level is not None
    wrong = (judged.probability >= 0.5) != (judged.label == 1)
    return Seen(judged, found, score, int(level), wrong)


def part(pictures: Sequence[Seen]) -> Part:
    """Summarise the bins on some pictures."""
    by_scene = scene_weights([one.judged for one in pictures])
    wrong = np.array([one.wrong for one in pictures])
    score = np.array([one.score for one in pictures])
    doubt = np.array([one.doubt for one in pictures])
    same = np.ones(len(pictures))
    return Part(
        bins=[_bin(number, pictures, by_scene) for number in range(1, 6)],
        auc=auc(wrong, score, same),
        auc_by_scene=auc(wrong, score, by_scene),
        auc_confidence=auc(wrong, doubt, same),
        auc_features=dict(_by_feature(pictures)),
    )


def _by_feature(pictures: Sequence[Seen]) -> Sequence[tuple[str, float]]:
    found = []
    for name in Features._fields:
        pairs = [(getattr(one.features, name), one.wrong) for one in pictures]
        known = [(value, wrong) for value, wrong in pairs if value is not None]
        if known:
            values, wrong = (np.array(column) for column in zip(*known, strict=True))
            found.append((name, auc(wrong, values, np.ones(len(values)))))
    return found


def _bin(number: int, pictures: Sequence[Seen], by_scene: NDArray[np.float64]) -> Bin:
    held = np.array([one.bin == number for one in pictures])
    inside = [one for one in pictures if one.bin == number]
    return Bin(
        plan=PLAN[number - 1],
        share=float(held.mean()),
        share_by_scene=float(by_scene[held].sum() / by_scene.sum()),
        pictures=len(inside),
        scenes=len({one.judged.group for one in inside}),
        accuracy=float(np.mean([not one.wrong for one in inside])) if inside else None,
        interval=_interval(inside) if inside else None,
    )


def _interval(pictures: Sequence[Seen]) -> tuple[float, float]:
    """Return the 95 % interval of the accuracy, whole scenes drawn."""
    right = np.array([not one.wrong for one in pictures])
    _, scene = np.unique([one.judged.group for one in pictures], return_inverse=True)
    rng, count = np.random.default_rng(72), int(scene.max()) + 1
    draws = [
        float(np.average(right, weights=times))
        for _ in range(DRAWS)
        for times in [np.bincount(rng.integers(count, size=count), minlength=count)[scene]]
    ]
    low, high = np.quantile(draws, (0.025, 0.975))
    return float(low), float(high)


def show_part(title: str, found: Part) -> None:
    """Print a part's bins."""
    rows = [
        [str(number), f"{one.plan:.0%}", f"{one.share_by_scene:.0%}", f"{one.share:.0%}",
         f"{one.pictures}", f"{one.scenes}", _accuracy(one)]
        for number, one in enumerate(found.bins, 1)
    ]  # fmt: skip
    head = ("bin", "plan", "by scene", "by picture", "pictures", "scenes", "accuracy (95 %)")
    print(f"{title}\n\n{table(head, rows)}\n")
    print(
        f"AUC for wrong answers: score {found.auc:.2f}, by scene {found.auc_by_scene:.2f}; "
        f"confidence {found.auc_confidence:.2f}; "
        + ", ".join(f"{name} {value:.2f}" for name, value in found.auc_features.items())
    )


def _accuracy(one: Bin) -> str:
    if one.accuracy is None or one.interval is None:
        return ""
    return f"{one.accuracy:.2f} ({one.interval[0]:.2f}–{one.interval[1]:.2f})"


def main() -> None:
    """Measure, print, and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="folder with the pictures of results/lite.csv")
    options = parser.parse_args()
    rule = Difficulty()
    bins = Bins(rule)
    found = [seen(options.data, one, bins) for one in read_judged(RESULTS / "lite.csv")]
    chosen = {family for fold in CHOSEN for family in FOLDS[fold]}
    parts = {
        "sources that the bounds were chosen on": [p for p in found if p.judged.family in chosen],
        "other sources": [p for p in found if p.judged.family not in chosen],
        "all sources": found,
    }
    summaries = {name: part(pictures) for name, pictures in parts.items()}
    for name, one in summaries.items():
        show_part(name, one)
    facts = {"bounds": rule.bounds, "weights": DIFFICULTY_WEIGHTS, "parts": summaries}
    path = RESULTS / "difficulty.json"
    path.write_bytes(msgspec.json.format(msgspec.json.encode(facts), indent=2) + b"\n")
    print(path)


if __name__ == "__main__":
    main()
