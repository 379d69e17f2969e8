"""``roadstream export triton``: what it writes, and that a real server gives the same answers."""

import shutil
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch
from msgspec.structs import replace

from roadstream.schemas.cascade.loading import load_cascade, parse_cascade
from roadstream.schemas.cascade.model import Cascade, Isotonic, Member
from roadstream.schemas.cascade.routes import Route
from roadstream.schemas.errors import ConfigError
from roadstream.schemas.settings.local import OnnxSettings
from roadstream.schemas.settings.triton import TritonSettings
from roadstream.sinks.files.readers import read_answers
from roadstream.stages.inference import Pictures, Score
from roadstream.workers.demo.render import write_drive
from roadstream.workers.engines.registry import build_engine
from roadstream.workers.engines.torch.classes import Verdict
from roadstream.workers.engines.triton.export import Wanted, export_members
from roadstream.workers.engines.triton.from_torch import log_odds_of
from roadstream.workers.engines.triton.repository import CannotExportError
from roadstream.workers.engines.triton.toml import cascade_toml
from tests.kits.builders import cascade, member, tier
from tests.kits.checkpoints import backbones, others
from tests.kits.command import roadstream
from tests.kits.torch_kit import engine_of, pictures, raws, torch_cascade, torch_member
from tests.kits.triton_kit import KINDS, SHARED
from tests.kits.triton_server import TritonServer, two_tiers

LITE = ["glance", "objects", "closer"]


def export(chosen: Cascade, folder: Path, **wanted: Any) -> tuple[Cascade, list[str]]:
    """Export; return the new cascade, loaded, and what was told."""
    told: list[str] = []
    (folder / "models").mkdir(parents=True)
    path = export_members(chosen, Wanted(**wanted), folder, told.append)
    return load_cascade(str(path)), told


def members(chosen: Cascade) -> dict[str, Member]:
    return {one.name: one for each in chosen.tiers for one in each.members}


def settings_of(one: Member) -> TritonSettings:
    assert isinstance(one.settings, TritonSettings)
    return one.settings


def test_a_repository_holds_the_files_and_a_cascade_that_uses_them(tmp_path: Path) -> None:
    lite = load_cascade("lite")
    exported, told = export(lite, tmp_path / "out", url="far:9", kind="KIND_CPU", instances=2)

    moved = members(exported)
    assert {name: one.engine for name, one in moved.items()} == dict.fromkeys(LITE, "triton") | {
        "cones": "cones"
    }
    for name in LITE:
        source, folder = lite.model_path(members(lite)[name]), tmp_path / "out/models" / name
        assert (folder / "1/model.onnx").read_bytes() == source.read_bytes()
        assert moved[name].model == name
        assert settings_of(moved[name]).url == "far:9"
        was = members(lite)[name]
        assert replace(moved[name], engine="onnx", model="", settings=was.settings) == replace(
            was, model=""
        )
    assert [each.routes for each in exported.tiers] == [each.routes for each in lite.tiers]
    assert (exported.pool, exported.threshold) == (lite.pool, lite.threshold)
    assert told[0].endswith("MB → models/glance, without its tags light")
    assert told[1] == "cones: stays on cones (a rule without weights)"
    kinds = {name: settings_of(moved[name]).kinds for name in LITE}
    assert kinds["objects"] == kinds["closer"] == KINDS
    assert not kinds["glance"]
    config = (tmp_path / "out/models/objects/config.pbtxt").read_text()
    for line in (
        "max_batch_size: 8",
        "kind: KIND_CPU",
        "default_timeout_microseconds: 6",
        "count: 2",
        "dims: [ 384, 672, 3 ]",
        "TYPE_INT64\n  dims: [ 8 ]",
    ):
        assert line in config


def test_a_member_that_stays_is_found_from_the_new_folder(tmp_path: Path) -> None:
    exported, told = export(load_cascade("lite"), tmp_path / "out", members=["glance"])
    assert {one.engine for one in members(exported).values()} == {"triton", "cones", "onnx"}
    assert exported.model_path(members(exported)["objects"]).is_file()
    assert "objects: stays on onnx (not asked for)" in told


def test_files_that_the_settings_of_a_member_that_stays_name_are_found_too(tmp_path: Path) -> None:
    files = {"own.toml": b'version = "1"\ntext = "Is there roadwork?"\n', "cone.jpg": b"cone"}
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    lite = load_cascade("lite")
    glance = replace(members(lite)["glance"], model=str(lite.model_path(members(lite)["glance"])))
    settings = {"prompt": "own.toml", "examples": ["cone.jpg"], "roadwork": ["cone"]}
    stays = replace(torch_member("far", "org/model", settings), sizes=[(64, 96)])
    chosen = replace(cascade(tier("one", glance, stays)), folder=str(tmp_path))

    exported, _ = export(chosen, tmp_path / "out" / "more", members=["glance"])

    assert exported.snapshot.files == {f"../../{name}": data for name, data in files.items()}
    far = members(exported)["far"]
    assert (far.model, far.sizes) == ("org/model", [(64, 96)])
    assert far.settings == replace(
        stays.settings, prompt="../../own.toml", examples=["../../cone.jpg"]
    )


def test_what_a_member_says_of_its_boxes_goes_with_it(tmp_path: Path) -> None:
    lite = load_cascade("lite")
    said = [OnnxSettings(boxes=False), OnnxSettings(box_threshold=0.5, pictures_per_run=2)]
    objects = members(lite)["objects"]
    file = str(lite.model_path(objects))
    some = [
        replace(objects, model=file, name=f"m{i}", settings=settings)
        for i, settings in enumerate(said)
    ]
    exported, _ = export(cascade(tier("one", *some)), tmp_path / "out")
    silent, strict = (settings_of(one) for one in members(exported).values())
    assert (silent.boxes, silent.kinds) == (False, [])
    assert (strict.box_threshold, strict.kinds) == (0.5, KINDS)


def test_what_a_cascade_says_survives_being_written() -> None:
    odd = Member(
        name="odd", engine="triton", model='na"me', model_version="ü 1", weight=0.5,
        calibration=Isotonic(raw=[-1.5, 2.0], probability=[0.0, 1.0]),
        settings=TritonSettings(url="unix:/a b", timeout=1e-3, boxes=False),
    )  # fmt: skip
    routes = [Route(to="two", max_confidence=0.5, reason='say "why"\n')]
    given = cascade(tier("one", odd, routes=routes), tier("two", member("noop")), threshold=0.65)
    text = cascade_toml(given, "a comment")
    assert parse_cascade(text.encode(), "x") == replace(given, hash="")


def test_the_command_explains_itself_and_spares_what_is_there(tmp_path: Path) -> None:
    arguments = ("export", "triton", "--cascade", "lite", "--member", "glance", "--out", "out")
    done = roadstream(*arguments, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    lite = load_cascade("lite")
    megabytes = lite.model_path(members(lite)["glance"]).stat().st_size / 1e6
    assert f"glance: onnx, {megabytes:.1f} MB → models/glance" in done.stderr
    assert "roadstream score --cascade out/cascade.toml PICTURES" in done.stderr

    again = roadstream(*arguments, folder=tmp_path)
    assert (again.returncode, again.stdout) == (2, "")
    assert again.stderr == (
        "roadstream: --out: expected an empty folder, got out; --force overwrites\n"
    )
    (tmp_path / "out/models/old").mkdir()
    forced = roadstream(*arguments, "--force", folder=tmp_path)
    assert forced.returncode == 0, forced.stderr
    assert not (tmp_path / "out/models/old").exists()


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--member", "cones"], "--member cones: expected a member with weights to export, got a"),
        (["--member", "nobody"],
         "--member: expected one of glance, cones, objects, closer, got nobody"),
        (["--instances", "0"], "--instances: expected instances, 1 to 1024, got 0"),
        (["--cascade", "nope"], "--cascade: expected a cascade file or one of dual-h100"),
    ],
)  # fmt: skip
def test_what_cannot_be_exported_is_refused(
    arguments: list[str], problem: str, tmp_path: Path
) -> None:
    done = roadstream("export", "triton", *arguments, "--out", "out", folder=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith(f"roadstream: {problem}")
    assert not (tmp_path / "out/cascade.toml").exists()


def classifier(folder: Path) -> dict[str, Any]:
    backbones.classifier(folder / "model")
    return {"roadwork": ["cones", "barrier"]}


def backbone(folder: Path) -> dict[str, Any]:
    backbones.dinov3_vit(folder / "model")
    backbones.head(folder / "head.safetensors", {"linear.weight": [1, 64], "linear.bias": [1]})
    return {"head": "head.safetensors", "layers": [1, 3]}


def siglip(folder: Path) -> dict[str, Any]:
    backbones.siglip2(folder / "model")
    return {"prompts": ["road work ahead", "traffic cones"], "other_prompts": ["a clear road"]}


def listed(folder: Path) -> dict[str, Any]:
    backbones.siglip2(folder / "model")
    return {"concepts": "roadwork-objects"}


@pytest.mark.parametrize("write", [backbone, siglip, listed])
def test_a_torch_member_becomes_an_onnx_file_of_the_same_scores(write: Any, tmp_path: Path) -> None:
    size = (64, 64)
    settings = write(tmp_path)
    member_ = torch_member("m", "model", {"device": "cpu", **settings}, size)
    export(torch_cascade(tmp_path, member_), tmp_path / "out")

    engine = engine_of(tmp_path, size=size, **settings)
    engine.load()
    batch = pictures(5)
    file = tmp_path / "out/models/m/1/model.onnx"
    session = onnxruntime.InferenceSession(str(file))
    (found,) = session.run(["logit"], {"images": batch.stack(*size)})
    expected = raws(engine, batch)
    engine.close()
    assert found.shape == (5,)
    assert found.tolist() == pytest.approx(expected, abs=1e-4)
    assert max(expected) - min(expected) > 1e-2, "all pictures score alike: nothing is compared"


@pytest.mark.parametrize(
    "verdict", [Verdict([1, 3], several=False), Verdict([1, 3], several=True), Verdict([], True)]
)
def test_a_classifiers_graph_judges_as_its_engine_does(verdict: Verdict) -> None:
    logits = torch.randn((6, 5), generator=torch.Generator().manual_seed(0)) * 4
    found = log_odds_of(verdict, logits).tolist()
    assert found == pytest.approx(verdict.raws(logits.numpy()), abs=1e-5)


def test_a_torch_member_that_is_no_graph_stays_or_is_refused(tmp_path: Path) -> None:
    settings = classifier(tmp_path / "classes")
    light = {"light": {"day": ["cones"], "night": ["barrier"]}}
    others.depth_anything(tmp_path / "depth")
    chosen = torch_cascade(
        tmp_path,
        torch_member("classes", "classes/model", settings, (64, 64)),
        torch_member("depth", "depth", {"device": "cpu"}, (56, 56)),
        torch_member("light", "classes/model", {**settings, "tags": light}, (64, 64)),
    )
    exported, told = export(chosen, tmp_path / "out")
    assert told[1].startswith("depth: stays on torch (test: member depth: family: expected a class")
    assert told[2].startswith("light: stays on torch (test: member light: settings: expected a mem")
    assert told[2].endswith("without tags, which a model on a server cannot give, got light)")
    assert not (tmp_path / "out/models/depth").exists()
    assert exported.model_source(members(exported)["depth"]) == tmp_path / "out/../depth"
    with pytest.raises(CannotExportError, match=r"got Depth\w*, whose scores are made on the host"):
        export(chosen, tmp_path / "more", members=["depth"])


def test_an_onnx_file_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    broken = Member(
        name="m", engine="onnx", model="broken.onnx", width=8, height=8, settings=OnnxSettings()
    )
    chosen = replace(cascade(tier("one", broken)), folder=str(tmp_path))
    with pytest.raises(ConfigError, match=r"member m: .*broken\.onnx: expected an ONNX model, got"):
        export(chosen, tmp_path / "out")


def test_an_onnx_file_of_another_size_is_refused(tmp_path: Path) -> None:
    lite = load_cascade("lite")
    glance = members(lite)["glance"]
    other = replace(glance, model=str(lite.model_path(glance)), width=300)
    chosen = replace(cascade(tier("one", other)), folder=str(tmp_path))
    expected = (
        r"expected one input, images UINT8 \[-1, 160, 300, 3\], got images UINT8 \[-1, 160, 25"
    )
    with pytest.raises(ConfigError, match=expected):
        export(chosen, tmp_path / "out")


@pytest.mark.triton
def test_an_exported_cascade_answers_as_the_local_one(triton_lite: Path, tmp_path: Path) -> None:
    write_drive(tmp_path / "drive", 6, width=640, height=360)
    here_ = two_tiers()
    tiers = [
        replace(
            each,
            members=[replace(m, model=m.model and str(here_.model_path(m))) for m in each.members],
        )
        for each in here_.tiers
    ]
    (tmp_path / "local.toml").write_text(cascade_toml(replace(here_, tiers=tiers), "local"))
    for name, chosen in (("local", "local.toml"), ("triton", str(triton_lite))):
        done = roadstream(
            "score", "drive", "--cascade", chosen, "--out", f"{name}.jsonl", "--sort",
            folder=tmp_path,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    local, served = (list(read_answers(tmp_path / f"{n}.jsonl")) for n in ("local", "triton"))

    assert len(local) == len(served) == 6
    assert [a["exit_tier"] for a in served] == [a["exit_tier"] for a in local]
    assert {a["exit_tier"] for a in local} >= {"glance", "look"}, "no member but the first is asked"
    for here, there in zip(local, served, strict=True):
        assert there["probability"] == pytest.approx(here["probability"], abs=1e-4)
        votes = [{v["member"]: v["probability"] for v in a["votes"]} for a in (here, there)]
        assert votes[1] == pytest.approx(votes[0], abs=1e-4)
        kinds = [[box["label"] for v in a["votes"] for box in v["boxes"]] for a in (here, there)]
        assert kinds[1] == kinds[0]


@pytest.mark.triton
def test_an_exported_torch_member_scores_on_the_server(
    triton: TritonServer, tmp_path: Path
) -> None:
    settings = classifier(tmp_path)
    chosen = torch_cascade(
        tmp_path, torch_member("torchy", "model", {"device": "cpu", **settings}, (64, 64))
    )
    exported, _ = export(chosen, tmp_path / "out", url=triton.url, kind="KIND_CPU")
    shutil.copytree(tmp_path / "out/models", triton.repository, dirs_exist_ok=True)
    triton.load("torchy")
    batch = pictures(6)  # more than the tier's largest batch, which is the model's
    scores = []
    for one in (chosen, exported):
        engine = build_engine(one, members(one)["torchy"], SHARED)
        engine.load()
        scores.append([s.raw for s in engine.infer(Pictures(batch)) if isinstance(s, Score)])
        engine.close()
    assert len(scores[0]) == 6
    assert scores[1] == pytest.approx(scores[0], abs=1e-4)
