"""The table of engines, and engines that other distributions bring."""

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from roadstream.schemas.cascade.loading import cascade_of, load_cascade
from roadstream.schemas.cascade.model import Cascade
from roadstream.schemas.engines import ENGINES, engine_named, plug_ins
from roadstream.schemas.errors import ChangedError, ConfigError
from tests.kits.plug_in_kit import write_distribution

ROOT = Path(__file__).parents[2]
PLAIN = """
from roadstream.schemas.engines import EngineTraits
from roadstream.schemas.settings.base import EngineSettings

class Settings(EngineSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    shade: int = 3
    notes: str = "notes.txt"

    def files(self):
        return [self.notes]

class Plain:
    traits = EngineTraits(settings=Settings, model="folder", several_sizes=True)

class Bare:
    pass

class Odd:
    traits = {"model": "file"}

class File:
    traits = EngineTraits(model="weights")

class Typeless:
    traits = EngineTraits(settings={})

class Lax:
    class Settings(EngineSettings, frozen=True, kw_only=True):
        pass

    traits = EngineTraits(settings=Settings)
"""
Bring = Callable[..., None]


@pytest.fixture
def bring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bring:
    """Return what installs a distribution: its name and version, its module, its entry points."""
    monkeypatch.setattr(plug_ins, "_loaded", {})

    def install(name: str, version: str, source: str = PLAIN, **entry_points: str) -> None:
        group = "roadstream.engines"
        site = write_distribution(tmp_path, (name, version), source, group, **entry_points)
        monkeypatch.syspath_prepend(site)

    return install


def refused(name: str) -> str:
    with pytest.raises(ConfigError) as caught:
        engine_named(name, "c.toml: engine")
    return str(caught.value)


def test_an_engine_of_ours_is_found_without_a_look_at_what_is_installed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(plug_ins, "group")
    for name, entry in ENGINES.items():
        assert engine_named(name) is entry


def test_extras_of_the_table_are_those_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = {entry.extra for entry in ENGINES.values() if entry.extra}
    assert extras <= set(project["optional-dependencies"])


def test_settings_of_ours_refuse_what_they_do_not_know() -> None:
    for entry in ENGINES.values():
        assert entry.settings.__struct_config__.forbid_unknown_fields, entry.name


def test_an_engine_of_another_distribution_has_its_own_traits(bring: Bring) -> None:
    bring("brought-traits", "2.5", plain="Plain", bare="Bare")
    plain, bare = engine_named("plain"), engine_named("bare")
    assert (plain.model, plain.several_sizes, plain.settings.__name__) == (
        "folder",
        True,
        "Settings",
    )
    assert (plain.implementation, plain.origin) == ("brought_traits:Plain", "brought-traits 2.5")
    assert (bare.model, bare.several_sizes, bare.settings()) == (
        "none",
        False,
        ENGINES["noop"].settings(),
    )
    assert plug_ins.names() == [*ENGINES, "plain", "bare"]


def test_an_unknown_engine_is_told_those_that_are_there_and_the_likely_one(bring: Bring) -> None:
    bring("brought-names", "1.0", plain="Plain", onnx="Plain")
    ours = "onnx, torch, vllm, openai, triton, cones, noop"
    taken = "onnx (of brought-names 1.0, which is not used: the name is taken)"
    assert refused("plane") == (
        f"c.toml: engine: expected one of {ours}, plain (of brought-names 1.0), {taken}, "
        "got 'plane' (did you mean plain?)"
    )
    assert refused("zzz").endswith("got 'zzz'")
    assert engine_named("onnx").origin == ""


WRONG = {
    "gone": (
        "import no_such_module\n",
        "Plain",
        "(brought_gone:Plain) to be importable, got ModuleNotFoundError: No module named 'no_such",
    ),
    "broken": ("raise ValueError('a\\nb')\n", "Plain", "to be importable, got ValueError: a b"),
    "empty": (PLAIN, "Nothing", "to be importable, got AttributeError: module 'brought_empty' has"),
    "odd": (PLAIN, "Odd", "to have EngineTraits as traits, got {'model': 'file'}"),
    "leaving": ("raise SystemExit(3)", "Plain", "to be importable, got SystemExit: 3"),
    "plain": (
        f"{PLAIN}\nthing = Plain()\n",
        "thing",
        "to be a class, got <brought_plain.Plain obj",
    ),
    "module": (PLAIN, "", "to be a class, got <module 'brought_module' from"),
    "file": (
        PLAIN,
        "File",
        "to have one of none, file, folder, hub, server as traits.model, got 'weights'",
    ),
    "typeless": (PLAIN, "Typeless", "to have a type of EngineSettings as traits.settings, got {}"),
    "lax": (PLAIN, "Lax", "to have settings with forbid_unknown_fields=True, got Lax.Settings"),
}


@pytest.mark.parametrize("case", WRONG)
def test_one_that_cannot_be_used_is_named_with_its_distribution_and_fault(
    bring: Bring, case: str
) -> None:
    source, value, problem = WRONG[case]
    bring(f"brought-{case}", "0.1", source, wrong=value)
    said = refused("wrong")
    assert said.startswith(f"c.toml: engine: expected the engine wrong of brought-{case} 0.1 ")
    assert problem in said
    assert "\n" not in said


def test_two_distributions_cannot_bring_one_engine(bring: Bring) -> None:
    bring("brought-twice", "1.0", plain="Plain")
    bring("brought-again", "2.0", plain="Plain")
    assert refused("plain") == (
        "c.toml: engine: expected one distribution that brings the engine plain, "
        "got brought-again 2.0 and brought-twice 1.0"
    )


@pytest.fixture
def judged(bring: Bring, tmp_path: Path) -> Cascade:
    """A cascade, loaded, whose only member is run by somebody else's engine."""
    bring("brought-judge", "1.0", plain="Plain")
    (tmp_path / "notes.txt").write_text("notes")
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "weights").write_text("weights")
    (tmp_path / "c.toml").write_text(
        'name = "c"\n[[tiers]]\nname = "t"\n[[tiers.members]]\nname = "m"\nengine = "plain"\n'
        'model = "w"\nsizes = [[8, 16]]\nsettings = { shade = 4 }\n'
    )
    return load_cascade(str(tmp_path / "c.toml"))


def test_a_cascade_reads_settings_files_and_weights_of_somebody_elses_engine(
    judged: Cascade,
) -> None:
    settings: Any = judged.tiers[0].members[0].settings
    assert settings.shade == 4
    assert judged.snapshot.files == {"notes.txt": b"notes"}
    assert set(judged.snapshot.weights) == {"m"}
    assert cascade_of(judged.snapshot) == judged


def test_a_process_that_finds_another_version_judges_nothing(
    judged: Cascade, bring: Bring, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged.check_weights(judged.tiers[0].members[0])
    bring("brought-judge", "1.1", plain="Plain")  # as a process that starts later does
    monkeypatch.setattr(plug_ins, "_loaded", {})
    again = cascade_of(judged.snapshot)
    changed = r"^c: member m: engine: changed .*: expected brought-judge 1\.0, got brought-judge 1"
    with pytest.raises(ChangedError, match=changed):
        again.check_weights(again.tiers[0].members[0])
