"""Engines are built as the table says, and what keeps one from being built is said."""

import sys
from pkgutil import resolve_name
from types import ModuleType

import pytest

from roadstream.schemas import engines
from roadstream.schemas.cascade.model import Member
from roadstream.schemas.engines import ENGINES, EngineEntry
from roadstream.schemas.errors import ConfigError
from roadstream.stages.inference import Engine
from roadstream.workers.engines.options import EngineOptions
from roadstream.workers.engines.registry import build_engine
from tests.kits.builders import cascade, tier


def build(engine: str) -> Engine:
    member = Member(name="m", engine=engine, settings=engines.engine_named(engine).settings())
    return build_engine(cascade(tier("one", member)), member, EngineOptions())


@pytest.mark.parametrize("entry", ENGINES.values(), ids=lambda entry: entry.name)
def test_every_engine_of_the_table_is_an_engine(entry: EngineEntry) -> None:
    made = resolve_name(entry.implementation)
    assert issubclass(made, Engine)
    assert not made.__abstractmethods__


@pytest.mark.parametrize(
    ("entry", "module"),
    [(entry, module) for entry in ENGINES.values() for module in entry.modules],
    ids=lambda one: one if isinstance(one, str) else one.name,
)
def test_a_library_that_is_not_installed_is_named_with_the_extra_that_brings_it(
    entry: EngineEntry, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for earlier in entry.modules[: entry.modules.index(module)]:
        monkeypatch.setitem(sys.modules, earlier, ModuleType(earlier))
    monkeypatch.setitem(sys.modules, module, None)
    member = Member(name="m", engine=entry.name, model="x")
    with pytest.raises(ConfigError) as caught:
        build_engine(cascade(tier("one", member)), member, EngineOptions())
    assert str(caught.value).startswith(
        f"test: member m: engine: expected {module} (pip install 'roadstream[{entry.extra}]'), got "
    )


class Half(Engine):
    """Has no ``infer``."""

    def load(self) -> None:
        """Nothing to load."""

    def close(self) -> None:
        """Nothing to give back."""


@pytest.mark.parametrize(
    ("name", "got"), [("Half", "one without infer"), ("cascade", "<function cascade at ")]
)
def test_what_somebody_else_calls_an_engine_has_to_be_one(
    name: str, got: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    implementation = f"{__name__}:{name}"
    theirs = EngineEntry(name="theirs", implementation=implementation, origin="own 1.0")
    monkeypatch.setitem(engines.plug_ins._loaded, "theirs", theirs)
    with pytest.raises(ConfigError) as caught:
        build("theirs")
    assert str(caught.value).startswith(
        f"test: member m: engine: expected {implementation} of own 1.0 to be a "
        f"roadstream.stages.inference.Engine, got {got}"
    )
