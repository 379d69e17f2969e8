"""Plug-ins: what other distributions bring, by the entry points of a group, imported when named.

https://packaging.python.org/en/latest/specifications/entry-points/
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from roadstream.schemas.errors import ConfigError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

T = TypeVar("T")


class PlugIn:
    """A class that another distribution brings, imported.

    Args:
        found: Its entry point.
        what: What it is and its name, as in “the engine orange”.
        where: File and key that name it, for errors.

    Attributes:
        made: The class.
        name: Its name.
        implementation: Where the class is, ``module:name``.
        origin: Distribution and version that bring it.
        told: All of that, for a person.

    Raises:
        ConfigError: It cannot be imported, or is no class.
    """

    def __init__(self, found: "EntryPoint", what: str, where: str) -> None:
        self.name, self.implementation = found.name, f"{found.module}:{found.attr}"
        self.origin = _origin(found)
        self._where, self.told = where, f"{what} of {self.origin} ({found.value})"
        try:
            made = found.load()
        except (Exception, SystemExit) as error:  # whatever somebody else's module does on import
            got = " ".join(f"{type(error).__name__}: {error}".split())
            raise self.refused("to be importable", got) from error
        if not isinstance(made, type):
            raise self.refused("to be a class", repr(made))
        self.made: type[Any] = made

    def refused(self, expected: str, got: str) -> ConfigError:
        """Return the error that it is not what is expected of it."""
        return ConfigError(self._where, f"{self.told} {expected}", got)


class PlugIns(Generic[T]):
    """Things of one kind by name: ours, and those that other distributions bring.

    Installed distributions are looked through only for a name that is none of ours.

    Args:
        group: Group of entry points, such as ``roadstream.engines``.
        kind: What it names, such as ``engine``.
        ours: Those that come with Roadstream.
        accept: Makes such a thing of a plug-in; raises what ``PlugIn.refused`` returns.
    """

    def __init__(
        self, group: str, kind: str, ours: Mapping[str, T], accept: Callable[[PlugIn], T]
    ) -> None:
        self.group, self._kind, self._ours, self._accept = group, kind, ours, accept
        self._loaded: dict[str, T] = {}

    def named(self, name: str, where: str) -> T:
        """Return the one of a name.

        Args:
            name: Its name.
            where: File and key that name it, for errors.

        Raises:
            ConfigError: There is none, there are several, or the distribution's cannot be used.
        """
        thing = self._ours.get(name) or self._loaded.get(name)
        if thing is None:
            thing = self._loaded[name] = self._accept(self._load(name, where))
        return thing

    def names(self) -> list[str]:
        """Return the names of all, ours first; those of other distributions are looked up."""
        return list(dict.fromkeys([*self._ours, *(found.name for found in self.offered())]))

    def offered(self, name: str | None = None) -> "list[EntryPoint]":
        """Return what other distributions offer, used or not; under one name, or all."""
        # Costs as much as all the rest of this room, and few names need it.
        from importlib.metadata import entry_points

        there = entry_points(group=self.group)
        return list(there if name is None else there.select(name=name))

    def _load(self, name: str, where: str) -> PlugIn:
        offered = self.offered(name)
        if not offered:
            raise self._unknown(name, where)
        what = f"the {self._kind} {name}"
        if len(offered) > 1:
            expected = f"one distribution that brings {what}"
            raise ConfigError(where, expected, " and ".join(map(_origin, offered)))
        return PlugIn(offered[0], what, where)

    def _unknown(self, name: str, where: str) -> ConfigError:
        """Say which there are, and which of them was meant."""
        from difflib import get_close_matches

        told, offered = list(self._ours), self.offered()
        for found in offered:
            taken = ", which is not used: the name is taken" if found.name in self._ours else ""
            told.append(f"{found.name} (of {_origin(found)}{taken})")
        near = get_close_matches(name, [*self._ours, *(found.name for found in offered)], n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        return ConfigError(where, f"one of {', '.join(told)}", f"{name!r}{hint}")


def unlike(made: Any, port: type[Any]) -> str | None:
    """Say what is wrong with somebody else's class as an implementation of a port, if anything."""
    if not (isinstance(made, type) and issubclass(made, port)):
        return repr(made)
    missing: frozenset[str] = getattr(made, "__abstractmethods__", frozenset())
    return f"one without {', '.join(sorted(missing))}" if missing else None


def _origin(found: "EntryPoint") -> str:
    return f"{found.dist.name} {found.dist.version}" if found.dist else found.value
