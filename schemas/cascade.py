"""The cascade file: tiers, members, calibration, pool and routes, as data.

A cascade is TOML. Unknown keys are errors, names are checked against each other, and every message
names the file and the key. ``load_cascade`` also hashes the file and the weights it points to, so
that an answer says exactly what judged it.
"""

import hashlib
import re
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from schemas.errors import ConfigError

Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]
Share = Annotated[float, Meta(ge=0, le=1)]
# TOML knows nan and inf; the bounds keep both out.
Finite = Annotated[float, Meta(ge=-1e9, le=1e9)]
NonNegative = Annotated[float, Meta(ge=0, le=1e9)]
Positive = Annotated[float, Meta(gt=0, le=1e9)]
PositiveInt = Annotated[int, Meta(ge=1)]
Probability = Annotated[float, Meta(gt=0, lt=1)]

EXIT = "exit"


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
        engine: Which engine runs it: ``onnx``, ``cones``, or ``noop`` (benchmarks).
        model: Weight file, relative to the cascade file; unused by rules.
        model_version: Shown in every vote.
        weight: Weight of its vote; 0 makes it a shadow member that never changes an answer.
        width: Width in pixels of the picture it is given.
        height: Height likewise.
        calibration: Fitted calibrator; without one, σ(raw) is taken and the vote says so.
        settings: Engine-specific settings.
    """

    name: Name
    engine: Literal["onnx", "cones", "noop"]
    model: str | None = None
    model_version: str = "1"
    weight: NonNegative = 1.0
    width: PositiveInt = 512
    height: PositiveInt = 352
    calibration: Calibration | None = None
    settings: dict[str, Any] = {}


class Route(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A routing rule: the first whose conditions all hold decides.

    Attributes:
        to: ``exit``, or the name of a later tier.
        min_confidence: Holds when the decision confidence so far is at least this.
        max_confidence: Holds when it is below this.
        max_disagreement: Holds when the disagreement (log-odds) is at most this.
        reason: Said in the votes; made from the conditions when absent.
    """

    to: Name
    min_confidence: Share | None = None
    max_confidence: Share | None = None
    max_disagreement: NonNegative | None = None
    reason: str = ""


class Tier(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Members that run together on the same images, and where these go next.

    When no route holds, an image goes to the next tier, or exits after the last.
    """

    name: Name
    members: Annotated[list[Member], Meta(min_length=1)]
    routes: list[Route] = []
    max_batch: PositiveInt = 16


class Pool(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How votes become one probability.

    Attributes:
        method: ``log`` (logarithmic opinion pool), ``geometric`` (one-sided weighted geometric
            mean) or ``linear`` (weighted arithmetic mean).
        prior: Probability of roadwork before any vote.
        effective_voters: ``s`` of the log pool, ``M/(1+(M−1)ρ)``; 1 when unknown.
    """

    method: Literal["log", "geometric", "linear"] = "log"
    prior: Probability = 0.5
    effective_voters: Positive = 1.0


class Cascade(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A cascade: tiers in order, cheap first.

    Attributes:
        name: Shown in every answer.
        threshold: Probability from which the label is ``roadwork``; 0.65 unless the file says so.
        pool: How votes are pooled.
        tiers: In order; images start at the first.
        hash: Filled on loading: identifies the file and its weights.
        folder: Filled on loading: what ``model`` paths are relative to.
    """

    name: Name
    tiers: Annotated[list[Tier], Meta(min_length=1)]
    threshold: Probability = 0.65
    pool: Pool = Pool()
    description: str = ""
    hash: str = ""
    folder: str = ""

    @property
    def tier_names(self) -> list[str]:
        """Names of the tiers, in order."""
        return [tier.name for tier in self.tiers]

    def tier(self, name: str) -> Tier:
        """Return the tier of that name.

        Raises:
            ConfigError: There is none.
        """
        for tier in self.tiers:
            if tier.name == name:
                return tier
        raise ConfigError(f"cascade {self.name}", f"a tier of {', '.join(self.tier_names)}", name)

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


def shipped_cascades() -> dict[str, Path]:
    """Return the cascades that come with Roadstream, by name."""
    import cascades

    folder = Path(next(iter(cascades.__path__)))
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def load_cascade(name_or_path: str) -> Cascade:
    """Load a cascade by the name of a shipped one or by path, and check it whole.

    Raises:
        ConfigError: The file is missing, is not TOML, has an unknown key or a wrong value, a route
            leads nowhere, or a weight file is not there.
    """
    path = shipped_cascades().get(name_or_path, Path(name_or_path))
    try:
        data = path.read_bytes()
    except OSError as error:
        names = ", ".join(shipped_cascades())
        raise ConfigError(
            "--cascade", f"a cascade file or one of {names}", f"{name_or_path} ({error.strerror})"
        ) from None
    cascade = parse_cascade(data, str(path))
    cascade = msgspec.structs.replace(cascade, folder=str(path.resolve().parent))
    return msgspec.structs.replace(cascade, hash=_hash(cascade, data, str(path)))


def parse_cascade(data: bytes, where: str) -> Cascade:
    """Decode and check a cascade file's bytes; ``where`` names it in errors.

    Raises:
        ConfigError: As ``load_cascade``, weight files aside.
    """
    try:
        cascade = msgspec.toml.decode(data, type=Cascade)
    except msgspec.ValidationError as error:
        raise _config_error(error, data, where) from None
    # The parser of the standard library recurses into nested arrays and tables.
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(where, "a TOML file", str(error)) from None
    _check_names(cascade, where)
    for index, tier in enumerate(cascade.tiers):
        _check_tier(tier, cascade.tier_names[index + 1 :], f"{where}: tiers[{index}]")
    return cascade


def _check_names(cascade: Cascade, where: str) -> None:
    members = [member.name for tier in cascade.tiers for member in tier.members]
    for kind, names in (("tier", cascade.tier_names), ("member", members)):
        for name in names:
            if names.count(name) > 1:
                raise ConfigError(where, f"{kind} names to be unique", f"{name} twice")
    if EXIT in cascade.tier_names:
        raise ConfigError(where, "tier names other than 'exit'", EXIT)


def _check_tier(tier: Tier, later: list[str], where: str) -> None:
    if not any(member.weight > 0 for member in tier.members):
        raise ConfigError(f"{where}.members", "a member of weight above 0", "only shadow members")
    for index, route in enumerate(tier.routes):
        if route.to not in (EXIT, *later):
            raise ConfigError(
                f"{where}.routes[{index}].to", f"one of {', '.join((EXIT, *later))}", route.to
            )
    for index, member in enumerate(tier.members):
        fitted = member.calibration
        if member.engine == "onnx" and member.model is None:
            raise ConfigError(f"{where}.members[{index}].model", "a weight file", "nothing")
        if isinstance(fitted, Isotonic) and not _increases(fitted):
            raise ConfigError(
                f"{where}.members[{index}].calibration",
                "as many probabilities as raw scores, at least 2, raw increasing",
                f"raw={fitted.raw}, probability={fitted.probability}",
            )


def _increases(fitted: Isotonic) -> bool:
    pairs = zip(fitted.raw, fitted.raw[1:], strict=False)
    return len(fitted.raw) == len(fitted.probability) >= 2 and all(a < b for a, b in pairs)


def _hash(cascade: Cascade, data: bytes, where: str) -> str:
    digest = hashlib.sha256(data)
    for i, tier in enumerate(cascade.tiers):
        for j, member in enumerate(tier.members):
            if member.model is None:
                continue
            weights = Path(cascade.folder, member.model)
            try:
                digest.update(hashlib.sha256(weights.read_bytes()).digest())
            except OSError as error:
                missing = isinstance(error, FileNotFoundError)
                why = "does not exist" if missing else f"cannot be read ({error.strerror})"
                raise ConfigError(
                    f"{where}: tiers[{i}].members[{j}].model",
                    "a weight file",
                    f"{weights}, which {why}",
                ) from None
    return digest.hexdigest()[:16]


_AT = re.compile(r"^(?P<problem>.*?)(?: - at `\$(?P<path>[^`]*)`)?$", re.DOTALL)


def _config_error(error: msgspec.ValidationError, data: bytes, where: str) -> ConfigError:
    match = _AT.match(str(error))
    assert match is not None
    problem, path = match["problem"], (match["path"] or "").removeprefix(".")
    if found := re.match(r"Object contains unknown field `(.*)`", problem):
        known = "a known key (see `roadstream schema cascade`)"
        return ConfigError(f"{where}: {path or 'top level'}", known, f"the unknown key {found[1]}")
    if found := re.match(r"Object missing required field `(.*)`", problem):
        key = f"{path}.{found[1]}".removeprefix(".")
        return ConfigError(f"{where}: {key}", "a value", "nothing")
    if problem.startswith("Invalid "):
        known = "a known value (see `roadstream schema cascade`)"
        return ConfigError(f"{where}: {path}", known, _value_at(data, path))
    expected, _, got = problem.removeprefix("Expected ").partition(", got ")
    return ConfigError(f"{where}: {path or 'top level'}", expected, got or _value_at(data, path))


def _value_at(data: bytes, path: str) -> str:
    value: Any = msgspec.toml.decode(data)
    for key in re.findall(r"[^.\[\]]+", path):
        try:
            value = value[int(key)] if isinstance(value, list) else value[key]
        except (KeyError, IndexError, ValueError, TypeError):
            return "nothing"
    return repr(value)
