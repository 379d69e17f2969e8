"""Builds the engine that runs a member. Its libraries are imported only here and by itself."""

from importlib import import_module
from pkgutil import resolve_name

from roadstream.schemas.cascade.model import Cascade, Member
from roadstream.schemas.engines import EngineEntry, engine_named
from roadstream.schemas.errors import ConfigError
from roadstream.schemas.plugins import unlike
from roadstream.stages.inference import Engine
from roadstream.workers.engines.options import EngineOptions


def build_engine(cascade: Cascade, member: Member, options: EngineOptions) -> Engine:
    """Return the member's engine, not yet loaded.

    Raises:
        ConfigError: Its weights are not there, or what runs it is not installed.
    """
    where = f"{cascade.name}: member {member.name}: engine"
    entry = engine_named(member.engine, where)
    _check_installed(entry, where)
    made = resolve_name(entry.implementation)
    if entry.origin:
        _check_port(entry, made, where)
    engine: Engine = made(cascade, member, options)
    return engine


def _check_installed(entry: EngineEntry, where: str) -> None:
    for name in entry.modules:
        try:
            import_module(name)
        except ImportError as error:
            expected = f"{name} (pip install 'roadstream[{entry.extra}]')"
            raise ConfigError(where, expected, str(error)) from None


def _check_port(entry: EngineEntry, made: object, where: str) -> None:
    """Check that what another distribution calls an engine is one."""
    expected = f"{entry.implementation} of {entry.origin} to be a {Engine.__module__}.Engine"
    if (got := unlike(made, Engine)) is not None:
        raise ConfigError(where, expected, got)
