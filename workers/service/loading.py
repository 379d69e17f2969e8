"""Loads the engines of a process, each once, however many versions of the cascade have the same."""

from collections.abc import Iterable, Mapping, Sequence

import msgspec
import structlog
from structlog.contextvars import bound_contextvars

from roadstream.schemas import codec
from roadstream.schemas.cascade.model import Cascade, Member
from roadstream.schemas.cascade.weights import digest_of_bytes
from roadstream.schemas.errors import ChangedError
from roadstream.stages.batching.latency_model import AffineLatency
from roadstream.stages.batching.shapes import Size
from roadstream.stages.inference import Engine
from roadstream.stages.voting.fusion import load_fusions
from roadstream.workers.engines.options import EngineOptions
from roadstream.workers.engines.registry import build_engine
from roadstream.workers.service.machine import trim_heap
from roadstream.workers.tier.judge import Learnt
from roadstream.workers.tier.warm_up import learn

logger = structlog.get_logger()

Loaded = tuple[dict[str, Engine], Learnt]


def load_engines(
    cascade: Cascade, tiers: Sequence[str], threads: int, known: Mapping[str, Engine] | None = None
) -> dict[str, Engine]:
    """Load and warm the engines of these tiers (blocking).

    Args:
        cascade: The cascade.
        tiers: Names of tiers of it.
        threads: Threads of each model call.
        known: Engines that are loaded already, by member.

    Returns:
        The engines by member.

    Raises:
        ConfigError: A tier or weight file is not there, or a file is not what it should be.
        ChangedError: Weights have changed since the cascade was loaded.
    """
    engines: dict[str, Engine] = {}
    known, options = known or {}, EngineOptions(threads)
    load_fusions(cascade, tiers)
    try:
        # The largest models mostly stand last. Loaded first, they leave room for the others.
        for name in reversed(tiers):
            tier = cascade.tier(name)
            with bound_contextvars(tier=name):
                for member in tier.members:
                    if member.name not in known:
                        engine = engines[member.name] = _load_engine(cascade, member, options)
                        engine.warm_up(tier.max_batch)
    except BaseException:
        _close(engines.values())
        raise
    return {**known, **engines}


def _load_engine(cascade: Cascade, member: Member, options: EngineOptions) -> Engine:
    cascade.check_weights(member)
    engine = build_engine(cascade, member, options)
    try:
        engine.load()
    finally:  # whatever came of it if they changed meanwhile
        cascade.check_weights(member)
    return engine


def learn_paces(cascade: Cascade, tiers: Sequence[str], engines: Mapping[str, Engine]) -> Learnt:
    """Learn what the members of these tiers take (blocking, about a second per member at most)."""
    found: dict[tuple[str, Size], AffineLatency] = {}
    for name in tiers:
        tier = cascade.tier(name)
        with bound_contextvars(tier=name):
            for member in tier.members:
                if member.name in engines:
                    found |= learn(engines[member.name], member, tier.max_batch)
    return found


def _close(engines: Iterable[Engine]) -> None:
    for engine in engines:
        engine.close()


class _Shared(msgspec.Struct):
    """An engine, what its member takes, and how many versions have it."""

    engine: Engine
    learnt: Learnt
    users: int = 0


class EnginePool:
    """The engines of a process. Not for several threads at once.

    Args:
        threads: Threads of each model call.
        learns: Whether it finds out what members take, about a second for each; else that is learnt
            as pictures come.
    """

    def __init__(self, threads: int, *, learns: bool = True) -> None:
        self._threads, self._learns = threads, learns
        self._shared: dict[bytes, _Shared] = {}

    def load(self, cascade: Cascade, tiers: Sequence[str]) -> Loaded:
        """Load and warm the engines of a version's tiers, but those that are here (blocking).

        Raises:
            ConfigError, ChangedError: See ``load_engines``. Then nothing has changed here.
        """
        keys = engine_keys(cascade, tiers)
        here = {name: self._shared[key] for name, key in keys.items() if key in self._shared}
        known = {name: one.engine for name, one in here.items()}
        engines = load_engines(cascade, tiers, self._threads, known)
        new = {name: one for name, one in engines.items() if name not in here}
        try:
            learnt = dict(learn_paces(cascade, tiers, new)) if self._learns else {}
        except BaseException:
            _close(new.values())
            raise
        trim_heap()
        for name, engine in new.items():
            own = {about: pace for about, pace in learnt.items() if about[0] == name}
            here[name] = self._shared[keys[name]] = _Shared(engine, own)
        for one in here.values():
            one.users += 1
            learnt |= one.learnt
        return engines, learnt

    def release(self, cascade: Cascade, tiers: Sequence[str]) -> None:
        """Give back what ``load`` gave; close the engines that no other version has (blocking)."""
        for key in engine_keys(cascade, tiers).values():
            one = self._shared[key]
            one.users -= 1
            if not one.users:
                del self._shared[key]
                one.engine.close()

    def close(self) -> None:
        """Close all engines."""
        _close(one.engine for one in self._shared.values())
        self._shared.clear()


def engine_keys(cascade: Cascade, tiers: Sequence[str]) -> dict[str, bytes]:
    """Return, by member, what tells its engine from those of other versions.

    What only its votes are made of is left out: weight, calibration and the version that they show.
    """
    return {
        member.name: _engine_key(cascade, member, cascade.tier(name).max_batch)
        for name in tiers
        for member in cascade.tier(name).members
    }


def _engine_key(cascade: Cascade, member: Member, largest: int) -> bytes:
    plain = msgspec.structs.replace(
        member, weight=1.0, calibration=None, model_version="", licence="", stand_in=""
    )
    taken = cascade.snapshot
    weights = taken.weights.get(member.name, "")
    files = {name: digest_of_bytes(cascade.read(name)) for name in member.settings.files()}
    # Of weights whose digest is not known, only those of one folder are surely the same.
    folder = "" if weights or member.model is None else cascade.folder
    origin = taken.engines.get(member.engine, "")
    return codec.encode((plain, member.settings, weights, files, folder, origin, largest))


def placed(cascade: Cascade, tiers: Sequence[str], folder: str) -> Cascade:
    """Return a cascade with the folder in which its weights lie on this host.

    Args:
        cascade: As it was loaded, perhaps on another host.
        tiers: Names of the tiers whose weights are needed.
        folder: Where they may lie too.

    Raises:
        ChangedError: They lie in neither place, or are others there.
    """
    try:
        _check(cascade, tiers)
    except ChangedError:
        moved = msgspec.structs.replace(cascade, folder=folder)
        try:
            _check(moved, tiers)
        except ChangedError:
            pass
        else:
            return moved
        raise
    return cascade


def _check(cascade: Cascade, tiers: Sequence[str]) -> None:
    for name in tiers:
        for member in cascade.tier(name).members:
            cascade.check_weights(member)
