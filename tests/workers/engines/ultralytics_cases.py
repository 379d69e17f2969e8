"""Tests of YOLO detectors; `test_ultralytics` runs them where the package can be imported."""

import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from ultralytics import YOLO
from ultralytics.nn.tasks import DetectionModel
from ultralytics.utils.nms import non_max_suppression

from roadstream.schemas.errors import ConfigError
from roadstream.stages.inference import Picture, Pictures, Score
from roadstream.workers.engines.torch.families.ultralytics import thinned
from tests.kits.checkpoints.common import seeded
from tests.kits.torch_kit import engine_of, pictures

DOCS = Path(__file__).parents[3] / "docs" / "guide" / "models.md"
NAMES = {0: "car", 1: "traffic cone", 2: "person", 3: "barrier"}
ROADWORK = ["traffic cone", "barrier"]
COLUMNS = [1, 3]
SIZE = (128, 96)
LIKELY = 0.4
HEADS = ("cv3", "one2one_cv3")
# YOLO26's head gives one place per object; YOLO11's wants its places thinned out.
KINDS = {"yolo26": True, "yolo11": False}


def pickled(folder: Path, kind: str) -> Path:
    """Write a tiny random detector as the package itself writes it."""
    model: Any = seeded(lambda: DetectionModel(f"{kind}n.yaml", nc=len(NAMES), verbose=False))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim == 4 and weight.requires_grad:
                weight.normal_(0.0, 1.2 / weight[0].numel() ** 0.5, generator=generator)
        # As trained ones, it tells pictures apart, and is sure of some places alone.
        head = model.model[-1]
        last = [layer[-1] for name in HEADS for layer in getattr(head, name, ())]
        for layer in last:
            layer.bias.fill_(-2.0)
        _, raw = model(pixels(at_size()))
        spread = raw.get("one2one", raw)["scores"].std()
        for layer in last:
            layer.weight.div_(spread)
    model.names = NAMES
    torch.save({"model": model, "train_args": {}}, folder / f"{kind}.pt")
    return folder / f"{kind}.pt"


def conversion() -> str:
    """Return the program that docs/guide/models.md tells users to run."""
    found = re.search(r"```python\n(import sys\n.*?)```", DOCS.read_text(), re.DOTALL)
    assert found, "docs/guide/models.md says how weights are converted"
    return found.group(1)


def convert(source: Path, folder: Path) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["convert.py", str(source), str(folder)])
        exec(compile(conversion(), "convert.py", "exec"), {"__name__": "__main__"})
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a converted checkpoint of each kind, and what it was made from."""
    made = tmp_path_factory.mktemp("yolo")
    for kind in KINDS:
        convert(pickled(made, kind), made / kind)
    return made


def at_size() -> Pictures:
    return Pictures([Picture(one.at(*SIZE)) for one in pictures(3)])


def pixels(batch: Pictures) -> torch.Tensor:
    return torch.from_numpy(batch.stack(*SIZE)).permute(0, 3, 1, 2).float() / 255


def infer(folder: Path, kind: str, **settings: Any) -> list[Score]:
    given = {"family": "ultralytics", "roadwork": ROADWORK, "max_boxes": 5, **settings}
    engine = engine_of(folder, kind, SIZE, **given)
    engine.load()
    return [one for one in engine.infer(at_size()) if isinstance(one, Score)]


@pytest.mark.parametrize("kind", KINDS)
@torch.inference_mode()
def test_the_score_is_that_of_the_likeliest_place_of_roadwork(folder: Path, kind: str) -> None:
    found = infer(folder, kind)

    network: Any = YOLO(folder / f"{kind}.pt").model.eval()
    _, raw = network(pixels(at_size()))
    logits = raw["one2one"]["scores"] if KINDS[kind] else raw["scores"]
    expected = logits[:, COLUMNS].amax((1, 2))
    assert [one.raw for one in found] == pytest.approx(expected.tolist(), abs=1e-3)
    assert float(expected.max() - expected.min()) > 0.01


@pytest.mark.parametrize("kind", KINDS)
@torch.inference_mode()
def test_boxes_are_those_that_the_library_keeps(folder: Path, kind: str) -> None:
    found = infer(folder, kind, min_confidence=LIKELY, max_boxes=300)

    network: Any = YOLO(folder / f"{kind}.pt").model.eval()
    network.end2end = KINDS[kind]
    told, _ = network(pixels(at_size()))
    kept = non_max_suppression(
        told, LIKELY, 0.7, classes=COLUMNS, multi_label=True, end2end=KINDS[kind]
    )
    sides = torch.tensor((*SIZE, *SIZE))
    assert sum(len(one.boxes) for one in found) > 4
    for one, rows in zip(found, kept, strict=True):
        confidences = [box.confidence for box in one.boxes]
        assert confidences == pytest.approx(rows[:, 4].tolist(), abs=1e-3)
        assert [box.label for box in one.boxes] == [NAMES[int(n)] for n in rows[:, 5].tolist()]
        corners = [side for box in one.boxes for side in (box.x1, box.y1, box.x2, box.y2)]
        expected = rows[:, :4].div(sides).clamp(0, 1).flatten().tolist()
        assert corners == pytest.approx(expected, abs=1e-3)


def test_two_members_with_other_classes_share_the_network(folder: Path) -> None:
    shared: dict[Any, Any] = {}
    given: dict[str, Any] = {"family": "ultralytics", "shared": shared}
    cones = engine_of(folder, "yolo26", SIZE, roadwork=["traffic cone"], **given)
    barriers = engine_of(folder, "yolo26", SIZE, roadwork=["barrier"], **given)
    cones.load()
    barriers.load()

    assert cones.model.backbone is barriers.model.backbone
    assert cones.infer(at_size()) != barriers.infer(at_size())


def copied(folder: Path, target: Path, **changes: Any) -> None:
    target.mkdir()
    model = yaml.safe_load((folder / "yolo11" / "model.yaml").read_text())
    changed = {key: value for key, value in {**model, **changes}.items() if value is not None}
    (target / "model.yaml").write_text(yaml.safe_dump(changed))
    save_file(load_file(folder / "yolo11" / "model.safetensors"), target / "model.safetensors")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"activation": "__import__('os').system('true')"}, "activation: nn.Something(numbers)"),
        ({"names": None}, "names of its 4 classes in model.yaml"),
        ({"names": ["cone"]}, "names of its 4 classes in model.yaml"),
        ({"head": None}, "with nc, backbone and head"),
        ({"scales": {"n": [0.5, 0.125, 1024]}}, "weights of the network in model.yaml"),
        ({"backbone": [[-1, 1, "NoSuchLayer", [64]]]}, "a model.yaml of Ultralytics"),
    ],
)
def test_a_damaged_model_yaml(
    folder: Path, tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    copied(folder, tmp_path / "model", **changes)

    with pytest.raises(ConfigError) as error:
        infer(tmp_path, "model")

    assert said in str(error.value)


def test_an_activation_of_pytorch_is_let_through(folder: Path, tmp_path: Path) -> None:
    copied(folder, tmp_path / "model", activation="torch.nn.LeakyReLU(0.1)")

    assert infer(tmp_path, "model") != infer(folder, "yolo11")


def test_a_pickle_is_not_read(folder: Path, tmp_path: Path) -> None:
    copied(folder, tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").rename(tmp_path / "model" / "model.pt")

    with pytest.raises(ConfigError, match=r"pickles are not read\), got model\.pt"):
        infer(tmp_path, "model")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"roadwork": ["excavator"]}, "settings.roadwork: expected names among "),
        ({"roadwork": []}, "settings.roadwork: expected some of car, traffic cone"),
    ],
)
def test_settings_that_do_not_fit(folder: Path, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as error:
        infer(folder, "yolo11", **settings)

    assert said in str(error.value)


def test_places_are_thinned_out_per_class_strongest_first() -> None:
    corners = [
        [0, 0, 4, 4],
        [0, 0, 4, 3.6],
        [0, 0, 4, 4],
        [0, 0, 4, 2],
        [0, 0, 4, 3.2],
        [9, 9, 9, 9],
    ]
    columns = [1, 1, 3, 1, 1, 1]

    kept = thinned(np.array(columns, np.float32), np.array(corners, np.float32))

    assert kept.tolist() == [True, False, True, True, False, True]
