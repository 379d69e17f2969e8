"""Light and weather: changed pictures, what is taken for true, and heads that change no vote."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from roadstream.stages.decoding.decode import resize
from roadstream.workers.demo.render import render_drive
from training.corpus import Picture
from training.heads import (
    TAGS,
    Head,
    Told,
    check_votes,
    features,
    fit_head,
    shares,
    with_heads,
    without_heads,
)
from training.tag_figures import counts
from training.tagging import SIZE, Net, bases_of, change, truth_of
from training.weather import LIGHT, WEATHER, under

GLANCE = Path(__file__).parents[2] / "cascades/lite/glance.onnx"
IMAGES = [frame.image for frame in render_drive(6, 320, 200, seed=5)]
SHOWN = [resize(image, *SIZE) for image in IMAGES]


def picture(*conditions: str, file: str = "negatives/a__1.jpg") -> Picture:
    return Picture(file, 0, "scene", "owner/a", "CC0-1.0", conditions, ())


def test_each_light_and_weather_changes_a_picture_in_its_way_and_the_same_again() -> None:
    image = IMAGES[0]
    made = {
        (light, weather): under(image, light, weather, np.random.default_rng(1))
        for light in LIGHT
        for weather in WEATHER
    }

    assert np.array_equal(made["day", "dry"], image)
    assert len({each.tobytes() for each in made.values()}) == len(LIGHT) * len(WEATHER)
    again = under(image, "dusk", "snow", np.random.default_rng(1))
    assert np.array_equal(made["dusk", "snow"], again)
    day, dusk, night = (made[light, "dry"].mean() for light in LIGHT)
    assert day > dusk > night
    assert made["day", "fog"].std() < 0.8 * image.std()
    assert made["day", "snow"][120:].mean() > image[120:].mean()


@pytest.mark.parametrize(
    ("conditions", "truth"),
    [
        (("day", "dashcam"), ("day", "dry")),
        (("photo", "night", "snow"), ("night", "snow")),
        (("usa", "day", "rain/fog"), ("day", "")),
        (("day", "dusk", "rain"), ("", "rain")),
        (("dashcam", "winter"), ("", "")),
        (("night", "haze"), ("night", "")),
    ],
)
def test_light_and_weather_are_as_noted_or_unclear(
    conditions: tuple[str, ...], truth: tuple[str, str]
) -> None:
    assert tuple(truth_of(picture(*conditions), {}).values()) == truth
    by_eye = {"negatives/a__1.jpg": {"light": "dusk", "weather": ""}}
    assert truth_of(picture(*conditions), by_eye) == {"light": "dusk", "weather": ""}


def test_bases_are_dry_days_some_of_each_scene_and_drawn_ones() -> None:
    pictures = [picture("day")] * 5 + [picture("night"), picture("day", "rain")]

    bases = bases_of(pictures, [IMAGES[0]] * 7, [truth_of(each, {}) for each in pictures])

    assert [base.family for base in bases] == ["a"] * 3
    many = [Picture(f"negatives/a__{i}.jpg", 0, f"g{i}", "o", "l", ("day",), ()) for i in range(5)]
    bases = bases_of(many, [IMAGES[0]] * 5, [truth_of(each, {}) for each in many])
    assert [base.family for base in bases] == ["a"] * 5 + ["drawn"] * 3


def test_heads_leave_the_vote_as_it_is_and_can_be_taken_off_again() -> None:
    bare = without_heads(onnx.load(GLANCE))
    told = features(bare, iter(SHOWN))
    torch.manual_seed(1)
    heads = {tag: Head(told, len(values)) for tag, values in TAGS.items()}

    model = with_heads(bare, heads)

    check_votes(bare, model, SHOWN)
    assert [output.name for output in model.graph.output] == ["logit", "tag_light", "tag_weather"]
    assert without_heads(model) == bare
    said = {one.key: one.value for one in model.metadata_props}
    assert said["tag_light"] == "day,dusk,night"
    moved = onnx.ModelProto()
    moved.CopyFrom(model)
    bias = next(one for one in moved.graph.initializer if one.name == "scene.logit.bias")
    bias.raw_data = np.float32(7).tobytes()
    with pytest.raises(ValueError, match="with heads: expected a logit of"):
        check_votes(bare, moved, SHOWN)


def test_the_head_in_the_file_says_what_was_fitted(tmp_path: Path) -> None:
    bare = without_heads(onnx.load(GLANCE))
    rng = np.random.default_rng(2)
    dark = [change(image, {"light": "night", "weather": "dry"}, rng) for image in IMAGES]
    net = Net(bare, tmp_path)
    told = net.see("few", iter([*SHOWN, *dark]))
    assert np.array_equal(net.see("few", iter([])), told)  # kept
    truth = np.array([0] * len(SHOWN) + [2] * len(dark))
    views = Told(told, {"light": truth}, truth)

    head = fit_head(views, "light", seed=1)

    found = shares(head, views)
    assert counts(truth, found, 0.5)[0][0] == len(SHOWN)
    assert counts(truth, found, 0.5)[2][2] == len(dark)
    assert counts(truth, found, 1.1) == [[0, 0, 0, 6], [0, 0, 0, 0], [0, 0, 0, 6]]
    from training.heads import opened

    session = opened(with_heads(bare, {"light": head}))
    (logits,) = session.run(["tag_light"], {"images": SHOWN[0][None]})
    assert np.allclose(np.exp(logits) / np.exp(logits).sum(), found[:1], atol=1e-4)
