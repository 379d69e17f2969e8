"""Members of the torch engine that give tags: by texts, or by classes; beside a vote, or alone."""

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import AutoModel, AutoModelForImageClassification, AutoTokenizer

from roadstream.schemas.errors import ConfigError, ImageError
from roadstream.schemas.settings.concepts import Concepts, load_concepts
from roadstream.schemas.settings.named_files import shipped_names
from roadstream.stages.inference import Abstained, EngineResult, Score
from roadstream.workers.engines.torch.classes import Verdict
from roadstream.workers.engines.torch.tagging import Tagging
from tests.kits.checkpoints import backbones
from tests.kits.torch_kit import engine_of, pictures
from tests.workers.engines.test_torch_families import OTHERS, PROMPTS, at_size, processed
from tests.workers.engines.test_torch_sharing import Counted

WEATHER = {"dry": ["a dry road"], "rain": ["a road in the rain", "a wet street"]}
LIGHT = {"day": ["a road by day"], "night": ["a road at night"]}
# Texts are what is told apart; the tiny network finds all pictures alike.
SURE = 1e-6


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a SigLIP 2 ``model``, and a classifier ``classes``."""
    made = tmp_path_factory.mktemp("tags")
    backbones.siglip2(made / "model")
    backbones.classifier(made / "classes", ["dry", "wet", "snowy", "cones"])
    return made


def found_by(folder: Path, model: str = "model", **settings: Any) -> list[EngineResult]:
    engine = engine_of(folder, model, **settings)
    engine.load()
    found = engine.infer(at_size())
    engine.close()
    return found


def refused(folder: Path, model: str = "model", **settings: Any) -> str:
    engine = engine_of(folder, model, **settings)
    with pytest.raises(ConfigError) as caught:
        engine.load()
    return str(caught.value).replace(str(folder), "").removeprefix("test: member m: settings.")


@torch.inference_mode()
def odds_of(folder: Path, texts: list[str]) -> Tensor:
    """Return the mean odds [N] over texts, as the library holds them against the pictures."""
    ids = AutoTokenizer.from_pretrained(folder)(
        texts, padding="max_length", max_length=64, return_tensors="pt"
    ).input_ids
    pixels = processed(folder, at_size())
    model = AutoModel.from_pretrained(folder).eval()
    found = model(input_ids=ids, pixel_values=pixels, interpolate_pos_encoding=True)
    mean: Tensor = found.logits_per_image.exp().mean(1)
    return mean


def test_siglip_gives_the_tags_whose_likeliest_value_is_likely_enough(folder: Path) -> None:
    odds = [odds_of(folder / "model", texts) for texts in WEATHER.values()]
    share = (odds[1] / (odds[0] + odds[1])).tolist()
    value = ["rain" if p > 0.5 else "dry" for p in share]
    likely = [max(p, 1 - p) for p in share]
    least = sum(sorted(likely)[1:3]) / 2  # between the second and the third of four

    found = found_by(folder, tags={"weather": WEATHER}, tag_confidence=least)

    assert len(likely) == 4
    assert max(likely) - min(likely) > 1e-4
    assert found == [
        Abstained("", {"weather": one})
        if p >= least
        else Abstained(f"not sure enough: weather={one} ({p:.2f})")
        for one, p in zip(value, likely, strict=True)
    ]


def test_a_member_may_give_several_tags_and_a_vote_beside_them(folder: Path) -> None:
    tags = {"weather": WEATHER, "light": LIGHT}
    votes: dict[str, Any] = {"prompts": PROMPTS, "other_prompts": OTHERS}

    both = found_by(folder, tags=tags, tag_confidence=SURE, **votes)

    alone = found_by(folder, tags=tags, tag_confidence=SURE)
    assert [one.raw for one in both if isinstance(one, Score)] == pytest.approx(
        [one.raw for one in found_by(folder, **votes) if isinstance(one, Score)], abs=1e-5
    )
    assert [one.tags for one in both if isinstance(one, Score)] == [
        one.tags for one in alone if isinstance(one, Abstained)
    ]
    assert {tuple(one.tags) for one in alone if isinstance(one, Abstained)} == {
        ("weather", "light")
    }


def test_who_gives_tags_looks_through_the_network_of_who_votes(folder: Path) -> None:
    shared: dict[Hashable, Any] = {}
    voter = engine_of(folder, shared=shared, prompts=PROMPTS)
    tagger = engine_of(folder, shared=shared, concepts="weather")
    voter.load()
    tagger.load()
    counted, batch = Counted(voter, tagger), pictures(3)
    for engine in (voter, tagger):
        engine.prepare(batch)

    found = [engine.infer(batch) for engine in (voter, tagger)]

    assert counted.runs == 1
    assert [type(one) for one in (found[0][0], found[1][0])] == [Score, Abstained]


@torch.inference_mode()
def test_a_classifier_gives_tags_by_its_classes(folder: Path) -> None:
    tags = {"weather": {"dry": ["dry"], "wet": ["Wet", "snowy"]}}

    found = found_by(folder, "classes", tags=tags, tag_confidence=SURE, roadwork=["cones"])

    model = AutoModelForImageClassification.from_pretrained(folder / "classes").eval()
    pixels = processed(folder / "classes", at_size())
    p = model(pixel_values=pixels, interpolate_pos_encoding=True).logits.softmax(1)
    wet = (p[:, 1] + p[:, 2] > p[:, 0]).tolist()
    assert [one.tags for one in found if isinstance(one, Score)] == [
        {"weather": "wet" if one else "dry"} for one in wet
    ]
    alone = found_by(folder, "classes", tags=tags, tag_confidence=SURE)
    assert [one.tags for one in alone if isinstance(one, Abstained)] == [
        {"weather": "wet" if one else "dry"} for one in wet
    ]


def test_a_head_gives_tags_by_its_outputs(tmp_path: Path) -> None:
    backbones.dinov3_vit(tmp_path / "model")
    shapes = {"linear.weight": [2, 32], "linear.bias": [2]}
    backbones.head(tmp_path / "h.safetensors", shapes)
    light = {"light": {"day": ["day"], "night": ["night"]}}

    found = found_by(tmp_path, head="h.safetensors", classes=["day", "night"], tags=light)

    assert {frozenset(one.tags) for one in found if isinstance(one, Abstained)} <= {
        frozenset({"light"}),
        frozenset[str](),
    }
    assert any(isinstance(one, Abstained) and one.tags for one in found)


LOGITS = np.array([[2.0, 1.0, 0.0], [0.0, 0.0, 3.0], [np.nan, 0.0, 0.0]], np.float32)


@pytest.mark.parametrize(
    ("several", "likely"),
    # Softmax: e²/(e² + e + 1) = 0.665 and 1/(2 + e³) = 0.0453; sigmoid: σ(2) = 0.881, σ(0).
    [(False, [0.665, 0.0453]), (True, [0.881, 0.5])],
)
def test_how_likely_a_value_is(several: bool, likely: list[float]) -> None:
    verdict = Verdict(None, several, Tagging({"weather": ["a"]}, 0.999), [[[0]]])

    found = verdict.scores(LOGITS)

    assert found[:2] == [Abstained(f"not sure enough: weather=a ({p:.2f})") for p in likely]
    assert isinstance(found[2], ImageError)
    assert "expected how likely weather is, got nan" in str(found[2])


def test_a_value_is_given_from_its_confidence_on() -> None:
    shares = [np.array([[0.4, 0.6], [0.41, 0.59]])]
    tagging = Tagging({"weather": ["dry", "rain"]}, 0.6)

    assert tagging.findings(shares, None) == [
        Abstained("", {"weather": "rain"}),
        Abstained("not sure enough: weather=rain (0.59)"),
    ]
    assert tagging.findings(shares, [1.0, 2.0]) == [
        Score(1.0, [], tags={"weather": "rain"}),
        Score(2.0, []),
    ]


@pytest.mark.parametrize(
    ("model", "settings", "said"),
    [
        ("model", {"tags": {"light": {"day": ["a"]}}},
         "tags.light: expected several values, of which one is told, got day"),
        ("model", {"tags": {"light": {"day": ["x " * 90], "night": ["b"]}}},
         "tags: expected at most 64 tokens each, got"),
        ("model", {"other_prompts": ["a"], "tags": {"light": LIGHT}},
         "prompts: expected texts that mean roadwork, got nothing"),
        ("classes", {"tags": {"weather": {"dry": ["dri"]}}},
         "tags.weather.dry: expected names among dry, wet, snowy, cones, got 'dri'"),
        ("classes", {"tags": {"weather": {"a b": ["dry"], "wet": ["wet", "DRY"]}}},
         "tags.weather.wet: expected classes that mean no other value, got dry, which means a b"),
        ("model", {"concepts": "weather", "tags": {f"t{i}": LIGHT for i in range(31)}},
         "tags: expected at most 32 with those of the concepts, got 33"),
        ("classes", {"concepts": "weather"},
         "concepts: expected nothing, as it takes no texts, got weather"),
        ("model", {"concepts": "nowhere.toml"},
         "concepts: expected a concept file or one of roadwork-concepts, roadwork-objects, "),
    ],
)  # fmt: skip
def test_tags_that_cannot_be_given_are_refused(
    folder: Path, model: str, settings: dict[str, Any], said: str
) -> None:
    assert refused(folder, model, **settings).startswith(said)


def test_a_list_of_concepts_stands_behind_a_members_own_texts(tmp_path: Path) -> None:
    backbones.siglip2(tmp_path / "model")
    (tmp_path / "own.toml").write_text(
        'version = "3"\n[roadwork]\na = ["traffic cones on the road"]\n[other]\nb = ["a river"]\n'
        '[tags.light]\nday = ["x"]\nnight = ["y"]\n[tags.weather]\ndry = ["z"]\nrain = ["w"]\n'
    )
    engine = engine_of(
        tmp_path,
        prompts=PROMPTS[:1],
        other_prompts=OTHERS,
        concepts="own.toml",
        tags={"light": LIGHT},
        tag_confidence=SURE,
    )
    engine.load()

    found = engine.infer(at_size())

    tags = {"light": LIGHT, "weather": {"dry": ["z"], "rain": ["w"]}}
    others = [*OTHERS, "a river"]
    by_hand = engine_of(
        tmp_path, prompts=PROMPTS, other_prompts=others, tags=tags, tag_confidence=SURE
    )
    by_hand.load()
    assert engine.version == "own@3"
    assert by_hand.version == ""
    assert found == by_hand.infer(at_size())


@pytest.mark.parametrize("name", shipped_names("concepts"))
def test_siglip_takes_the_lists_that_ship(folder: Path, name: str) -> None:
    found = found_by(folder, concepts=name, tag_confidence=SURE)

    concepts: Concepts = load_concepts(name, "/nowhere", "here")
    votes = {isinstance(one, Score) for one in found}
    assert votes == {bool(concepts.roadwork)}
    given = [one.tags for one in found if isinstance(one, Score | Abstained)]
    assert {frozenset(tags) for tags in given} == {frozenset(concepts.tags)}
