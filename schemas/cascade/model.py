"""The cascade file: tiers, members, calibration, pool and routes, as data.

A cascade is TOML. Unknown keys are errors, names are checked against each other, and every message
names the file and the key. ``load_cascade`` of ``loading`` reads it and all small files that it
names once, and hashes them and the weights it points to, so that an answer says exactly what judged
it.
"""

import re
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from roadstream.schemas.cascade.routes import Route
from roadstream.schemas.cascade.rules import Adapt, Conflict, Ensemble, Exploration, Kind, Rule
from roadstream.schemas.cascade.weights import digest_of
from roadstream.schemas.engines import MODEL_KINDS, engine_named
from roadstream.schemas.errors import ChangedError, ConfigError
from roadstream.schemas.records.bounds import (
    Finite,
    Name,
    NonNegative,
    Positive,
    PositiveInt,
    Probability,
    Share,
    Short,
)
from roadstream.schemas.settings.base import EngineSettings

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


class Platt(
    msgspec.Struct, frozen=True, tag_field="method", tag="platt", forbid_unknown_fields=True
):
    """``p = σ(slope·raw + intercept)`` (Platt 1999); temperature scaling is slope 1/T."""

    slope: Finite
    intercept: Finite = 0.0


class Isotonic(
    msgspec.Struct, frozen=True, tag_field="method", tag="isotonic", forbid_unknown_fields=True
):
    """Piecewise-linear map from raw score to probability; ``raw`` must increase."""

    raw: list[Finite]
    probability: list[Share]


Calibration = Platt | Isotonic


class Member(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One model or rule that votes.

    Attributes:
        name: Unique in the cascade.
        engine: Name of the engine that runs it.
        model: What it runs, as its engine takes it: a weight file or folder, relative to the
            cascade file; the id of a model on the hub, ``org/name``; or its name on a server.
            Unused by rules.
        model_version: Shown in every vote.
        weight: Weight of its vote; 0 makes it a shadow member that never changes an answer.
        width: Width in pixels of the picture it is given.
        height: Height likewise.
        sizes: More sizes that it takes, as ``[width, height]``; it is given a picture at the one
            nearest to its aspect ratio, in batches of one size.
        calibration: Fitted calibrator; without one, σ(raw) is taken and the vote says so.
        settings: The engine's own settings, in a type of its own.
        licence: Licence of the model, as an SPDX identifier or in words; only shown.
        gated: Whether its publisher hands it out only to who has accepted the licence.
        stand_in: What may take its place where it cannot be had; only shown.
        kind: What kind of model it is; a file that gives no ``weight`` means the kind's.
    """

    name: Name
    engine: str
    model: str | None = None
    model_version: Short = "1"
    weight: NonNegative = 1.0
    width: PositiveInt = 512
    height: PositiveInt = 352
    sizes: list[tuple[PositiveInt, PositiveInt]] = []
    calibration: Calibration | None = None
    settings: EngineSettings = EngineSettings()
    licence: Short = ""
    gated: bool = False
    stand_in: Short = ""
    kind: Kind | None = None


FusionConfidence = Literal["avg", "max", "box_and_model_avg", "absent_model_aware_avg", "geometric"]


class Fusion(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the boxes of a tier's detectors become one set; see ``roadstream.stages.voting.fusion``.

    Attributes:
        method: ``wbf``, weighted boxes fusion. Detectors weigh what their votes weigh.
        iou: Boxes of one label that overlap by more than this share are one.
        skip: Boxes of less confidence are left out.
        confidence: How that of a fused box is made, by the names of ensemble-boxes; ``geometric``
            is the weighted geometric mean, lowered as ``avg`` by detectors that did not see it.
        members: The detectors; empty for all members of the tier but shadow members.
        labels: What a detector's label is called in the answer, where they differ in words.
        own_duplicates: Several boxes of one detector that are one by ``iou``: ``keep`` counts each,
            as ensemble-boxes does; with ``merge`` only its most confident one counts.
    """

    method: Literal["wbf"] = "wbf"
    iou: Share = 0.55
    skip: Share = 0.05
    confidence: FusionConfidence = "avg"
    members: list[str] = []
    labels: dict[str, Short] = {}
    own_duplicates: Literal["keep", "merge"] = "keep"


class Tier(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Members that run together on the same images, and where these go next.

    When no route holds, an image goes to the next tier, or exits after the last.

    Attributes:
        name: Unique in the cascade.
        members: Who votes.
        routes: In order; the first that holds decides.
        max_batch: Largest batch.
        fusion: How boxes of its detectors become one set; ``None`` leaves them apart.
        give_up_after: Seconds after which an image that was sent here and has no votes from here is
            answered without them, ``degraded``; ``None`` waits as long as it takes.
        down_after: Seconds for which no worker must have polled for the tier before it is down, of
            which ``tiers_down`` of earlier tiers' routes speaks.
        ensemble: Makes its detectors one voter; ``None`` leaves each a voter.
        off_path: Whether images come here by a route alone: it is nobody's next tier, and images
            that are explored pass it by.
    """

    name: Name
    members: Annotated[list[Member], Meta(min_length=1)]
    routes: list[Route] = []
    max_batch: PositiveInt = 16
    fusion: Fusion | None = None
    give_up_after: Positive | None = None
    down_after: Annotated[float, Meta(ge=3, le=1e9)] = 10.0
    ensemble: Ensemble | None = None
    off_path: bool = False

    @property
    def fused(self) -> list[Member]:
        """The members whose boxes are fused; none without ``fusion``."""
        if self.fusion is None:
            return []
        named = self.fusion.members
        return [m for m in self.members if (m.name in named if named else m.weight > 0)]

    @property
    def united(self) -> list[Member]:
        """The members of its ensemble; none without one."""
        if self.ensemble is None:
            return []
        named = self.ensemble.members
        return [
            one
            for one in self.members
            if one.weight > 0 and (one.name in named if named else one.kind == "detection")
        ]


class Pool(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How votes become one probability.

    Attributes:
        method: ``log`` (logarithmic opinion pool), ``geometric`` (one-sided weighted geometric
            mean) or ``linear`` (weighted arithmetic mean).
        prior: Probability of roadwork before any vote.
        effective_voters: ``s`` of the log pool, ``M/(1+(M−1)ρ)``; 1 when unknown.
        quorum: Share of the weight, among the members of the tiers that an image passed, that must
            have voted; with less its answer is ``degraded``.
    """

    method: Literal["log", "geometric", "linear"] = "log"
    prior: Probability = 0.5
    effective_voters: Positive = 1.0
    quorum: Share = 1.0


class CascadeFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A cascade file: tiers in order, cheap first.

    Attributes:
        name: Shown in every answer.
        threshold: Probability from which the label is ``roadwork``; 0.65 unless the file says so.
        pool: How votes are pooled.
        tiers: In order; images start at the first.
        rules: In order.
        exploration: Which images pass all tiers.
    """

    name: Name
    tiers: Annotated[list[Tier], Meta(min_length=1)]
    threshold: Probability = 0.65
    pool: Pool = Pool()
    description: str = ""
    rules: list[Rule] = []
    exploration: Exploration = Exploration()


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """What was read when a cascade was loaded; from it the same cascade can be made again.

    Attributes:
        where: The cascade file, as errors name it; paths need not be text, so ``os.fsencode``'s.
        text: Its bytes.
        folder: What names in it are relative to; as ``where``.
        hash: Identifies the file and all that it names.
        files: Prompts, heads and example pictures, by their names in it.
        weights: The first 16 hexadecimal digits of the digests of weights on this machine, by
            member.
        engines: Distribution and version of the engines that others bring, by engine.
        without: Members and tiers that are left out, by name.
    """

    where: bytes = b""
    text: bytes = b""
    folder: bytes = b""
    hash: str = ""
    files: dict[str, bytes] = {}
    weights: dict[str, str] = {}
    engines: dict[str, str] = {}
    without: list[str] = []


class Cascade(CascadeFile, frozen=True, kw_only=True):
    """A cascade, as its file says it, and what was found on loading.

    Attributes:
        hash: Identifies the file and its weights.
        folder: What ``model`` paths are relative to.
        snapshot: What was read.
        absent: Members that are left out of the tiers that are there, by tier.
        all_tiers: Names of all tiers of the file, in order, where something is left out.
        all_off_path: Names of those of them that are ``off_path``.
    """

    hash: str = ""
    folder: str = ""
    snapshot: Snapshot = Snapshot()
    absent: dict[str, list[Member]] = {}
    all_tiers: list[str] = []
    all_off_path: list[str] = []

    @property
    def ruled(self) -> bool:
        """Whether its rules or ensembles change how votes are pooled."""
        return any(tier.ensemble is not None for tier in self.tiers) or any(
            rule.enabled
            and (isinstance(rule, Conflict) or (isinstance(rule, Adapt) and rule.votes))
            for rule in self.rules
        )

    @property
    def tier_names(self) -> list[str]:
        """Names of the tiers, in order."""
        return [tier.name for tier in self.tiers]

    @property
    def named_tiers(self) -> list[str]:
        """Names of all tiers that the file has, in order, left out or not."""
        return self.all_tiers or self.tier_names

    def following(self, name: str) -> list[str]:
        """Return the tiers that images come to after one without a route, left out or not."""
        names = self.named_tiers
        off_path = {*self.all_off_path, *(tier.name for tier in self.tiers if tier.off_path)}
        return [one for one in names[names.index(name) + 1 :] if one not in off_path]

    @property
    def left_out(self) -> list[str]:
        """Names of the tiers that are left out as a whole, in order."""
        names = self.tier_names
        return [name for name in self.all_tiers if name not in names]

    def tier(self, name: str) -> Tier:
        """Return the tier of that name.

        Raises:
            ConfigError: There is none.
        """
        for tier in self.tiers:
            if tier.name == name:
                return tier
        got = f"{name}, which is left out" if name in self.left_out else name
        raise ConfigError(f"cascade {self.name}", f"a tier of {', '.join(self.tier_names)}", got)

    def read(self, name: str) -> bytes:
        """Return a prompt, a head or an example picture as it was when the cascade was loaded.

        Raises:
            OSError: It cannot be read, in a cascade that was not loaded.
        """
        found = self.snapshot.files.get(name)
        return Path(self.folder, name).read_bytes() if found is None else found

    def check_weights(self, member: Member) -> None:
        """Check that a member's weights are still those that the cascade was loaded with.

        An engine that another distribution brings must be of the same version, too.

        Raises:
            ChangedError: They are not.
        """
        origin = engine_named(member.engine).origin
        if (loaded := self.snapshot.engines.get(member.engine, origin)) != origin:
            raise ChangedError(f"{self.name}: member {member.name}: engine", loaded, origin)
        expected = self.snapshot.weights.get(member.name)
        if expected is None:
            return  # it has none here, or was not loaded
        path = Path(self.folder, member.model or "")
        try:
            got = shown(digest(path, member))
        except OSError as error:
            got = f"nothing ({error.strerror})"
        if got != expected:
            raise ChangedError(f"{self.name}: member {member.name}: model: {path}", expected, got)

    def model_path(self, member: Member) -> Path:
        """Return where a member's weights lie.

        Raises:
            ConfigError: The member names no weight file, or it is not there.
        """
        where = f"{self.name}: member {member.name}: model"
        if member.model is None:
            raise ConfigError(where, "a weight file", "nothing")
        path = Path(self.folder, member.model)
        if not path.is_file():
            raise ConfigError(where, "a weight file", f"{path}, which does not exist")
        return path

    def model_source(self, member: Member) -> Path | str:
        """Return the folder or file with a member's weights, or the id of its model on the hub.

        Raises:
            ConfigError: The member names neither.
        """
        where = f"{self.name}: member {member.name}: model"
        expected = MODEL_KINDS[engine_named(member.engine).model]
        if member.model is None:
            raise ConfigError(where, expected, "nothing")
        if (path := Path(self.folder, member.model)).exists():
            return path
        if is_hub_id(member):
            return member.model
        raise ConfigError(where, expected, f"{path}, which does not exist")


def digest(path: Path, member: Member) -> bytes:
    """Return what tells a member's weights at a path from others.

    Raises:
        OSError: They cannot be read.
    """
    return digest_of(path, folders=engine_named(member.engine).model != "file")


def shown(digest: bytes) -> str:
    """Return as much of a digest as tells weights apart: for small files, of their SHA-256."""
    return digest.hex()[:16]


def is_hub_id(member: Member) -> bool:
    """Tell whether a member's ``model`` may be the id of a model on the hub."""
    hub = engine_named(member.engine).model == "hub"
    return hub and _HUB_ID.fullmatch(member.model or "") is not None
