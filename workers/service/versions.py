"""The versions of the cascade that a process judges by, as they come and go on a running system."""

import contextlib
import time
from collections.abc import Collection, Mapping
from functools import partial

import anyio
import msgspec
import structlog
from anyio import to_thread

from roadstream.schemas.cascade.model import Cascade
from roadstream.schemas.errors import LogUnavailableError, OutputError, RoadstreamError
from roadstream.schemas.records.image import Head
from roadstream.streams.log import Log
from roadstream.streams.topics.versions import Versions
from roadstream.workers.service.lifecycle import in_thread_until_stopped
from roadstream.workers.service.loading import EnginePool, Loaded, placed
from roadstream.workers.tier.devices import Devices
from roadstream.workers.tier.judge import Judge, JudgeOptions
from roadstream.workers.tier.members import absent_run
from roadstream.workers.tier.versions import Unavailable, place

logger = structlog.get_logger()

# Versions beyond which those that nobody uses now are let go of before another one is loaded.
MOST_LOADED = 4
# Seconds that a version which nobody uses is kept: its next images may be on their way.
KEPT_FOR = 60.0
# Seconds until a version that could not be loaded is tried again: its weights may have come.
TRIED_AGAIN = 30.0
# Seconds after which one that nobody has asked for since is forgotten.
FORGOTTEN_AFTER = 600.0
# Main versions before the last that are tried at the start, where that cannot be loaded.
FALLEN_BACK_ON = 3


class _Version(msgspec.Struct):
    """A version that is loaded here.

    Attributes:
        cascade: The cascade, with its weights' folder on this host.
        loaded: Its engines.
        judges: Its judges by tier.
        users: Tiers of this process at which images of it may be.
        used_at: When it was last asked for, in monotonic seconds.
    """

    cascade: Cascade
    loaded: Loaded
    judges: dict[str, Judge] = {}
    users: set[str] = set()
    used_at: float = 0.0


class _Missing(msgspec.Struct):
    """A version that cannot be loaded here.

    Attributes:
        reason: Why.
        since: Since when, in monotonic seconds.
        tried_at: When it was tried last.
        cascade: The cascade, if that is known.
    """

    reason: str
    since: float
    tried_at: float
    cascade: Cascade | None

    def at(self, tier: str) -> Unavailable:
        """Return what becomes of its images at a tier."""
        if self.cascade is None or tier not in self.cascade.tier_names:
            return Unavailable(self.reason, self.since)
        runs = list(map(absent_run, self.cascade.tier(tier).members))
        return Unavailable(self.reason, self.since, self.cascade.name, runs)


class LoadedVersions:
    """Follows the topic ``cascades``, loads the versions that are wanted, and has their judges.

    The version that new images begin with changes only when another one is loaded and warm. One
    that cannot be loaded is told of in a line, and the one before goes on.

    Args:
        log: The log, open.
        own: The cascade that the process was started with.
        tiers: Names of the tiers that it works for; empty for all.
        pool: Loads and keeps their engines.
        options: What its judges may read.
    """

    def __init__(
        self,
        log: Log,
        own: Cascade,
        tiers: Collection[str],
        pool: EnginePool,
        options: JudgeOptions | None = None,
    ) -> None:
        self._log, self._own, self._only = log, own, list(tiers)
        self._options, self._devices = options, Devices()
        self._pool = pool
        self._told = Versions(log)
        self._versions: dict[str, _Version] = {}
        self._missing: dict[str, _Missing] = {}
        self._wanted: dict[str, None] = {}
        self._changed = anyio.Event()
        self.main = own.hash

    @property
    def current(self) -> Collection[str]:
        """See the port."""
        roll = self._told.roll
        return (self.main,) if roll is None or roll.candidate is None else (
            self.main, roll.candidate
        )  # fmt: skip

    @property
    def cascade(self) -> Cascade:
        """The cascade of the main version."""
        return self._versions[self.main].cascade

    def tiers_of(self, cascade: Cascade) -> list[str]:
        """Return the tiers of a version that this process works for."""
        return [name for name in cascade.tier_names if not self._only or name in self._only]

    @property
    def tiers(self) -> list[str]:
        """The tiers of all versions that are loaded, those of the main version first."""
        cascades = [self.cascade, *(one.cascade for one in self._versions.values())]
        return list(dict.fromkeys(name for one in cascades for name in self.tiers_of(one)))

    def newest(self, tier: str) -> Judge:
        """Return the main version's judge of a tier, or that of another version which has it."""
        for version in (self.main, *self._versions):
            if isinstance(found := self.judge(tier, version), Judge):
                return found
        raise AssertionError(f"no version has the tier {tier}")

    @property
    def needed(self) -> Mapping[str, float]:
        """See the port."""
        return self._told.service_times.needed(time.time())

    def begun(self, head: Head) -> str:
        """See the port: the candidate of a roll judges its share as soon as it is loaded."""
        roll = self._told.roll
        if roll is None or roll.candidate is None or roll.candidate not in self._versions:
            return self.main
        return roll.candidate if place(head) < roll.share else self.main

    def judge(self, tier: str, version: str) -> Judge | Unavailable | None:
        """See the port."""
        found = self._versions.get(version)
        if found is None:
            self._want(version)
            missing = self._missing.get(version)
            return None if missing is None else missing.at(tier)
        if tier not in found.cascade.tier_names:
            return Unavailable(f"it has no tier {tier}", 0.0, found.cascade.name)
        found.used_at = time.monotonic()
        found.users.add(tier)
        if tier not in found.judges:
            found.judges[tier] = self._new_judge(found, tier)
        return found.judges[tier]

    def _new_judge(self, version: _Version, tier: str) -> Judge:
        engines, learnt = version.loaded
        before = next(
            (one.judges[tier] for one in self._versions.values() if tier in one.judges), None
        )
        judge = Judge(
            version.cascade,
            tier,
            engines,
            devices=self._devices,
            options=self._options,
            learnt=learnt,
        )
        if before is not None:
            judge.count_on_from(before)
        return judge

    def done(self, tier: str, version: str) -> None:
        """See the port."""
        if (found := self._versions.get(version)) is not None:
            found.users.discard(tier)
            found.used_at = time.monotonic()

    def _want(self, version: str) -> None:
        if version not in self._wanted:
            self._wanted[version] = None
            self._changed.set()

    async def start(self, stopping: anyio.Event) -> bool:
        """Load the version that the log says, else one before it, else the process's own.

        Returns:
            Whether one is loaded; not if ``stopping`` was set before.

        Raises:
            RoadstreamError: That one cannot be loaded, nor can the process's own.
            LogUnavailableError: The log does not answer.
        """
        with contextlib.suppress(OutputError):  # who follows it says so
            await self._told.refresh()
        for version in self._rolled():
            if version == self._own.hash:
                break
            if await self._load(version, stopping):
                self.main = version
                logger.warning(
                    "version_rolled", going_by=version, started_with=self._own.hash,
                    hint="`roadstream cascade roll FILE` lets another one judge",
                )  # fmt: skip
                if not {*self.tiers_of(self._own)} <= {*self.tiers}:
                    # Images of an earlier version may be under way to tiers that this one lacks.
                    await self._load(self._own.hash, stopping)
                return True
        return not stopping.is_set() and await self._take(self._own, stopping)

    def _rolled(self) -> list[str]:
        """Return the main version, and those before it which stand in where it cannot be loaded."""
        roll = self._told.roll
        return [] if roll is None else [roll.main, *roll.previous[:FALLEN_BACK_ON]]

    async def run(self, stopping: anyio.Event) -> None:
        """Follow the topic and load what is wanted, until it is cancelled."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._told.follow, self._wake)
            while True:
                await self._work(stopping)
                self._changed = anyio.Event()
                with anyio.move_on_after(KEPT_FOR / 4):
                    await self._changed.wait()

    def _wake(self) -> None:
        self._changed.set()

    async def _work(self, stopping: anyio.Event) -> None:
        roll = self._told.roll
        if roll is not None:
            if roll.main != self.main:
                await self._load(roll.main, stopping)
            if roll.candidate is not None:
                await self._load(roll.candidate, stopping)
        for version in list(self._wanted):
            await self._load(version, stopping)
            self._wanted.pop(version, None)
        # Looked at anew: it may have been rolled on meanwhile, or back.
        if (roll := self._told.roll) is not None and roll.main in self._versions:
            if roll.main != self.main:
                logger.info("version_taken_up", version=roll.main, before=self.main)
            self.main = roll.main
        await self._let_go(KEPT_FOR)

    async def _load(self, version: str, stopping: anyio.Event) -> bool:
        """Load a version unless it is; return whether it is then. One that fails waits a while."""
        if version in self._versions:
            return True
        now, missing = time.monotonic(), self._missing.get(version)
        if missing is not None and now - missing.tried_at < TRIED_AGAIN:
            return False
        cascade: Cascade | None = None
        try:
            cascade = await self._told.cascade(version)
            if cascade is None:
                reason = "no record of it is on the log"
            elif await self._take(cascade, stopping):
                self._missing.pop(version, None)
                return True
            else:
                return False
        except LogUnavailableError:
            return False
        except Exception as error:  # a model may raise anything, and the old version goes on
            named = "" if isinstance(error, RoadstreamError) else f"{type(error).__name__}: "
            reason = f"{named}{error}"
        since = now if missing is None else missing.since
        self._missing[version] = _Missing(reason, since, now, cascade)
        if missing is None or missing.reason != reason:
            logger.error("version_refused", version=version, going_on_with=self.main, reason=reason)
        return False

    async def _take(self, cascade: Cascade, stopping: anyio.Event) -> bool:
        """Load the engines of a version; return whether it was done before ``stopping`` was set.

        Raises:
            Exception: Whatever keeps it from being loaded.
        """
        if len(self._versions) >= MOST_LOADED:
            await self._let_go(0.0)
        load = partial(self._placed_and_loaded, cascade)
        version = await in_thread_until_stopped(stopping, load)
        if version is not None:
            self._versions[cascade.hash] = version
        return version is not None

    def _placed_and_loaded(self, cascade: Cascade) -> _Version:
        tiers = self.tiers_of(cascade)
        here = placed(cascade, tiers, self._own.folder)
        return _Version(here, self._pool.load(here, tiers), used_at=time.monotonic())

    async def _let_go(self, kept_for: float) -> None:
        """Close what nobody has used for a while."""
        now = time.monotonic()
        for version, one in list(self._versions.items()):
            if version in self.current or one.users or now - one.used_at < kept_for:
                continue
            del self._versions[version]
            tiers = self.tiers_of(one.cascade)
            await to_thread.run_sync(partial(self._pool.release, one.cascade, tiers))
            logger.info("version_let_go", version=version)
        # Anybody may name versions that are nowhere: they are not remembered for ever.
        self._missing = {
            version: one
            for version, one in self._missing.items()
            if version in self._wanted or now - one.tried_at < FORGOTTEN_AFTER
        }
