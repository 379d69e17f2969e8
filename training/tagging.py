"""Light and weather as tags: heads for the first tier's net, fitted, judged and put into its file.

They learn from pictures of dry days, photographed and drawn, under changed light and weather (see
`weather`). Real rain, fog, snow and night are too few to learn from, and are kept for judging. All
pictures are judged by heads that have not seen their source.
"""

import hashlib
import os
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import msgspec
import numpy as np
import onnx
from numpy.random import Generator

from roadstream.schemas.cascade.loading import load_cascade
from roadstream.schemas.settings.local import OnnxSettings
from roadstream.stages.decoding.decode import resize
from roadstream.stages.rules.cones import Pixels
from roadstream.workers.demo.render import render_drive
from training.augment import CAMERA, LIGHT, each, smear, tint
from training.corpus import HERE, Picture, read_rows
from training.finish import Places
from training.heads import (
    TAGS,
    Ints,
    Reals,
    Told,
    check_votes,
    features,
    fit_head,
    shares,
    with_heads,
    without_heads,
)
from training.measured import CROP
from training.tag_figures import (
    FILE,
    PICTURES,
    Figures,
    TagFigures,
    counts,
    scenes,
    write_seen,
)
from training.weather import under

MEMBER = "glance"
CHANCES = {"light": (0.4, 0.27, 0.33), "weather": (0.31, 0.23, 0.23, 0.23)}
BY_EYE = HERE / "weather.csv"
UNCLEAR = frozenset({"haze", "winter", "overexposed", "contrast"})
"""Words of conditions that leave the weather open."""
SIZE = (256, 160)  # of what the net is shown
SHOWN = (320, 200)  # of what is changed before
MOST_OF_SCENE = 3  # bases
COPIES = 6  # of a base; the first stays a dry day
DRAWN = "drawn"
DRAWN_SHARE, FRAMES = 0.2, 9  # drawn bases beside the photographs; frames of a drawn drive
CHECKED = 40  # pictures on which the votes must be the same


class Base(NamedTuple):
    """A picture of a dry day; `group` is what stays on one side of a split."""

    image: Pixels
    family: str
    group: str


def read_by_eye(path: Path = BY_EYE) -> dict[str, dict[str, str]]:
    """Return light and weather of pictures that were looked at, by file; empty where unclear."""
    rows = read_rows(path, "file", *TAGS)
    return {row["file"]: {tag: row[tag] for tag in TAGS} for _, row in rows}


def truth_of(picture: Picture, by_eye: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """Return light and weather as noted; empty where that is unclear.

    A picture without a word about the weather is one of dry weather.
    """
    if picture.file in by_eye:
        return dict(by_eye[picture.file])
    words = {word for each in picture.conditions for word in each.replace("/", " ").split()}
    found = {tag: [value for value in TAGS[tag] if value in words] for tag in TAGS}
    weather = found["weather"] or ["dry"]
    clear = len(weather) == 1 and not words & UNCLEAR
    light = found["light"]
    return {
        "light": light[0] if len(light) == 1 else "",
        "weather": weather[0] if clear else "",
    }


def bases_of(
    pictures: Sequence[Picture], images: Sequence[Pixels], truth: Sequence[Mapping[str, str]]
) -> list[Base]:
    """Return photographs of dry days, some of each scene, and drawn ones."""
    found: list[Base] = []
    of_scene: Counter[str] = Counter()
    for picture, image, told in zip(pictures, images, truth, strict=True):
        usable = told == {"light": "day", "weather": "dry"} and CROP not in picture.conditions
        if usable and of_scene[picture.group] < MOST_OF_SCENE:
            of_scene[picture.group] += 1
            found.append(Base(image, picture.family, picture.group))
    return [*found, *_drawn(int(len(found) * DRAWN_SHARE))]


def _drawn(count: int) -> Iterator[Base]:
    for seed in range(-(-count // MOST_OF_SCENE)):
        frames = list(render_drive(FRAMES, 480, 270, seed=1000 + seed))  # so short, by sun alone
        for frame in frames[:: -(-FRAMES // MOST_OF_SCENE)]:
            yield Base(frame.image, "drawn", f"drawn-{seed}")


def change(image: Pixels, values: Mapping[str, str], rng: Generator) -> Pixels:
    """Show a part of a base under a light and a weather, as some camera would."""
    height, width = image.shape[:2]
    share = rng.uniform(0.7, 1.0)
    top, left = int(rng.uniform(0, 1 - share) * height), int(rng.uniform(0, 1 - share) * width)
    part = image[top : top + int(share * height), left : left + int(share * width)]
    part = np.asarray(cv2.resize(part, SHOWN, interpolation=cv2.INTER_AREA), np.uint8)
    part = under(each(LIGHT, part, rng), values["light"], values["weather"], rng)
    part = each(((0.08, tint), (0.08, smear)), part, rng)
    return resize(np.ascontiguousarray(each(CAMERA, part, rng)), *SIZE)


def _values(copy: int, rng: Generator) -> dict[str, str]:
    if copy == 0:
        return {tag: values[0] for tag, values in TAGS.items()}
    return {tag: str(rng.choice(values, p=CHANCES[tag])) for tag, values in TAGS.items()}


class Folds:
    """In which fold a base or a picture is judged: by source, drawn ones by drive."""

    def __init__(self, folds: Mapping[str, Sequence[str]]) -> None:
        self.count = len(folds)
        self._of = {family: i for i, each in enumerate(folds.values()) for family in each}

    def of(self, one: Base | Picture) -> int:
        """Return its position; the first for a source without labelled pictures."""
        if one.family == DRAWN:
            return int(one.group.split("-")[1]) % self.count
        return self._of.get(one.family, 0)


class Net(NamedTuple):
    """The net without heads, and the folder that keeps what it makes of pictures."""

    model: onnx.ModelProto
    work: Path

    def see(self, name: str, images: Iterator[Pixels]) -> Reals:
        """Return features of pictures, or what was kept under that name."""
        digest = hashlib.sha256(self.model.SerializeToString()).hexdigest()[:12]
        kept = self.work / f"tags-{name}-{digest}.npy"
        if not kept.exists():
            self.work.mkdir(parents=True, exist_ok=True)
            found = features(self.model, images)
            with (partial := kept.with_suffix(f".{os.getpid()}")).open("wb") as out:
                np.save(out, found)
            partial.rename(kept)  # whole, or not at all
        return np.asarray(np.load(kept))


def _positions(truth: Sequence[Mapping[str, str]]) -> dict[str, Ints]:
    return {
        tag: np.array([values.index(one[tag]) if one[tag] else -1 for one in truth], np.int64)
        for tag, values in TAGS.items()
    }


def changed(bases: Sequence[Base], folds: Folds, seed: int, net: Net) -> Told:
    """Return changed copies of all bases, as the net sees them."""
    copies = [(row, copy) for row in range(len(bases)) for copy in range(COPIES)]
    truth = [_values(copy, np.random.default_rng((seed, row, copy, 0))) for row, copy in copies]
    images = (
        change(bases[row].image, values, np.random.default_rng((seed, row, copy, 1)))
        for (row, copy), values in zip(copies, truth, strict=True)
    )
    names = "".join(base.group for base in bases)
    told = net.see(f"changed-{seed}-{zlib.crc32(names.encode()):08x}", images)
    of = [folds.of(bases[row]) for row, _ in copies]
    return Told(told, _positions(truth), np.array(of, np.int64))


def cross_shares(views: Told, asked: Told, tag: str, seed: int) -> tuple[Reals, Reals]:
    """Return the shares of both, each by a head that has not seen the fold."""
    found = [np.zeros((len(told.folds), len(TAGS[tag])), np.float32) for told in (views, asked)]
    for fold in range(max(views.folds.max(), asked.folds.max()) + 1):
        head = fit_head(views.take(views.folds != fold), tag, seed)
        for told, kept in zip((views, asked), found, strict=True):
            mine = told.folds == fold
            kept[mine] = shares(head, told.take(mine))
    return found[0], found[1]


def add_tags(
    pictures: Sequence[Picture],
    images: Sequence[Pixels],
    folds: Mapping[str, Sequence[str]],
    places: Places,
    seed: int,
) -> None:
    """Fit heads, judge them, and put them into the file of the first tier's net.

    Raises:
        ValueError: The net would vote differently with them.
    """
    file = places.out / "cascades" / "lite" / f"{MEMBER}.onnx"
    net, of, by_eye = Net(without_heads(onnx.load(file)), places.work), Folds(folds), read_by_eye()
    truth = [truth_of(each, by_eye) for each in pictures]
    bases = bases_of(pictures, images, truth)
    views = changed(bases, of, seed, net)
    shown = [resize(image, *SIZE) for image in images]
    names = "".join(each.file for each in pictures)
    whole = net.see(f"real-{zlib.crc32(names.encode()):08x}", iter(shown))
    place = np.array([of.of(each) for each in pictures], np.int64)
    asked = Told(whole, _positions(truth), place)

    judged = {tag: cross_shares(views, asked, tag, seed) for tag in TAGS}
    _write(places.out, judged, (views, asked), (bases, pictures))
    model = with_heads(net.model, {tag: fit_head(views, tag, seed) for tag in TAGS})
    check_votes(net.model, model, shown[:CHECKED])
    onnx.save(model, file)
    print(f"{file.name}: tags {', '.join(TAGS)}", flush=True)


def _write(
    out: Path,
    judged: Mapping[str, tuple[Reals, Reals]],
    told: tuple[Told, Told],
    shown: tuple[Sequence[Base], Sequence[Picture]],
) -> None:
    """Write the figures, and what is said of each real picture."""
    confidence = _confidence(out)
    views, asked = told
    bases, pictures = shown
    groups = [each.group for each in pictures]
    figures = Figures(
        confidence=confidence,
        bases=dict(sorted(Counter(base.family for base in bases).items())),
        changed=len(views.folds),
        by_eye=len(set(read_by_eye()) & {each.file for each in pictures}),
        tags={
            tag: TagFigures(
                values=list(TAGS[tag]),
                changed=counts(views.labels[tag], by_views, confidence),
                likeliest=float((by_views.argmax(1) == views.labels[tag]).mean()),
                real=counts(asked.labels[tag], by_asked, confidence),
                real_scenes=scenes(asked.labels[tag], groups, len(TAGS[tag])),
            )
            for tag, (by_views, by_asked) in judged.items()
        },
    )
    results = out / "training" / "results"
    results.mkdir(parents=True, exist_ok=True)
    text = msgspec.json.format(msgspec.json.encode(figures), indent=1)
    (results / FILE).write_bytes(text + b"\n")
    told_apart = {
        tag: (TAGS[tag], asked.labels[tag], by_asked) for tag, (_, by_asked) in judged.items()
    }
    write_seen(results / PICTURES, [each.file for each in pictures], told_apart, confidence)


def _confidence(out: Path) -> float:
    cascade = load_cascade(str(out / "cascades" / "lite.toml"))
    (settings,) = (
        member.settings
        for tier in cascade.tiers
        for member in tier.members
        if member.name == MEMBER
    )
    assert isinstance(settings, OnnxSettings)
    return settings.tag_confidence
