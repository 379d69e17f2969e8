"""What rules by tags would change in the answers of `lite`, on pictures it was not trained on.

    python -m training.rules    # writes results/rules.json from results/everything.csv and tags.csv

Recorded votes are pooled and routed again, with a rule and without. Tags are those that heads gave
which had not seen the source; a rule changes pictures with its tag alone.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from roadstream.schemas.cascade.loading import load_cascade
from roadstream.schemas.cascade.model import Cascade
from roadstream.stages.voting.route import Facts, Router
from roadstream.stages.voting.vote import decision_confidence, log_odds, sigmoid, verdict
from training.judged import Judged, read_judged
from training.quality import mcc, truth_of
from training.tables import table
from training.tag_figures import PICTURES, read_said

FILE = "rules.json"
DRAWS, SEED = 1000, 72
Reals = NDArray[np.float64]


class Rule(msgspec.Struct, frozen=True):
    """A change of pictures with a tag: a shift of the pooled log-odds, or factors on weights."""

    tag: str
    value: str
    shift: float = 0.0
    weights: dict[str, float] = {}

    @property
    def name(self) -> str:
        """Say what it does."""
        shift = f"{self.shift:+g}".replace("-", "−")
        does = [f"log-odds {shift}"] if self.shift else []
        does += [f"weight of `{name}` × {factor:g}" for name, factor in self.weights.items()]
        return f"`{self.tag}={self.value}`: {', '.join(does)}"


RULES = (
    Rule("light", "night", -0.5),
    Rule("light", "night", 0.5),
    Rule("light", "dusk", -0.5),
    Rule("light", "dusk", 0.5),
    Rule("weather", "rain", 0.0, {"cones": 1.15}),
)
"""Rain: colour weighs 15 % more, see the scene rules; `cones` is what looks for colours."""


class Effect(msgspec.Struct, frozen=True, kw_only=True):
    """What a rule does on some pictures.

    Attributes:
        pictures: How many.
        scenes: Of how many scenes.
        roadwork: How many show roadwork.
        flipped: Pictures that are called something else with the rule.
        brier: Mean squared error of the probability, without and with the rule.
        brier_change: 95 % interval of the difference, over scenes; below 0 is better.
        mcc: Without and with the rule; ``None`` where a label is missing.
        mcc_change: 95 % interval of the difference; above 0 is better.
    """

    pictures: int
    scenes: int
    roadwork: int
    flipped: int
    brier: tuple[float, float]
    brier_change: tuple[float, float]
    mcc: tuple[float, float] | None = None
    mcc_change: tuple[float, float] | None = None


class Tried(msgspec.Struct, frozen=True, kw_only=True):
    """A rule, what it does on pictures with its tag (``None`` where none has it) and on all."""

    rule: str
    tagged: Effect | None
    everywhere: Effect


def answers(
    cascade: Cascade,
    judged: Sequence[Judged],
    tags: Mapping[str, Mapping[str, str]],
    rule: Rule | None,
) -> Reals:
    """Return the probability of each picture, with a rule or without, [N]."""
    routers = {tier.name: Router(cascade, tier.name) for tier in cascade.tiers}
    judge, plain = verdict(cascade.pool), Rule("", "")

    def send(one: Judged) -> float:
        used = rule if rule and has(one, tags, rule) else plain
        tier: str | None = cascade.tiers[0].name
        ps: list[float] = []
        weights: list[float] = []
        p = 0.5
        while tier is not None:
            for member in cascade.tier(tier).members:
                ps.append(sigmoid(one.votes[member.name]))
                weights.append(member.weight * used.weights.get(member.name, 1.0))
            found = judge(ps, weights)
            p = sigmoid(log_odds(found.probability) + used.shift)
            decided = routers[tier].decide(Facts(decision_confidence(p), found.disagreement))
            tier = decided.next_tier
        return p

    return np.array([send(one) for one in judged])


def has(one: Judged, tags: Mapping[str, Mapping[str, str]], rule: Rule) -> bool:
    """Tell whether a picture has the rule's tag."""
    return tags.get(one.file, {}).get(rule.tag) == rule.value


def effect(judged: Sequence[Judged], off: Reals, on: Reals, threshold: float) -> Effect:
    """Compare answers without and with a rule."""
    truth = truth_of(judged)
    _, scene = np.unique([one.group for one in judged], return_inverse=True)
    count = int(scene.max()) + 1
    rng = np.random.default_rng(SEED)
    errors = [(p - truth) ** 2 for p in (off, on)]
    calls = [p >= threshold for p in (off, on)]
    briers, mccs = [], []
    for _ in range(DRAWS):
        times = np.bincount(rng.integers(count, size=count), minlength=count)[scene].astype(float)
        briers.append(float(np.average(errors[1] - errors[0], weights=times)))
        mccs.append(mcc(truth, calls[1], times) - mcc(truth, calls[0], times))
    even, both = np.ones(len(truth)), bool(0 < truth.sum() < len(truth))
    return Effect(
        pictures=len(judged),
        scenes=count,
        roadwork=int(truth.sum()),
        flipped=int((calls[0] != calls[1]).sum()),
        brier=(float(errors[0].mean()), float(errors[1].mean())),
        brier_change=_middle(briers),
        mcc=(mcc(truth, calls[0], even), mcc(truth, calls[1], even)) if both else None,
        mcc_change=_middle(mccs) if both else None,
    )


def _middle(values: Sequence[float]) -> tuple[float, float]:
    low, high = np.quantile(values, (0.025, 0.975))
    return float(low), float(high)


def tried(
    cascade: Cascade, judged: Sequence[Judged], tags: Mapping[str, Mapping[str, str]], rule: Rule
) -> Tried:
    """Try a rule."""
    off, on = (answers(cascade, judged, tags, each) for each in (None, rule))
    rows = [row for row, one in enumerate(judged) if has(one, tags, rule)]
    part = [judged[row] for row in rows]
    threshold = cascade.threshold
    return Tried(
        rule=rule.name,
        tagged=effect(part, off[rows], on[rows], threshold) if rows else None,
        everywhere=effect(judged, off, on, threshold),
    )


def read_rules(path: Path) -> list[Tried]:
    """Read what ``write_rules`` wrote; nothing if it did not."""
    return msgspec.json.decode(path.read_bytes(), type=list[Tried]) if path.exists() else []


def rules_table(found: Sequence[Tried]) -> str:
    """Lay out what each rule does."""
    rows: list[list[object]] = []
    for each in found:
        for where, part in (("with the tag", each.tagged), ("all", each.everywhere)):
            if part is None:
                rows.append([each.rule, where, 0, *[None] * 7])
            else:
                rows.append([each.rule, where, *_cells(part)])
    head = ("rule", "of pictures", "pictures", "scenes", "roadwork", "called otherwise")
    return table((*head, "Brier off → on", "change", "MCC off → on", "change of MCC"), rows)


def _cells(part: Effect) -> list[object]:
    counted = [part.pictures, part.scenes, part.roadwork, part.flipped]
    brier = [_both(part.brier), _both(part.brier_change, " to ")]
    if part.mcc is None or part.mcc_change is None:
        return [*counted, *brier, None, None]
    return [*counted, *brier, _both(part.mcc), _both(part.mcc_change, " to ")]


def _both(pair: tuple[float, float], between: str = " → ") -> str:
    return between.join(f"{value + 0.0:.4f}" for value in pair).replace("-", "−")


def write_rules(root: Path) -> None:
    """Try all rules on the results of the repository, or of a folder laid out like it."""
    results = root / "training" / "results"
    cascade = load_cascade(str(root / "cascades" / "lite.toml"))
    judged, tags = read_judged(results / "everything.csv"), read_said(results / PICTURES)
    found = [tried(cascade, judged, tags, rule) for rule in RULES]
    text = msgspec.json.format(msgspec.json.encode(found), indent=1)
    (results / FILE).write_bytes(text + b"\n")


if __name__ == "__main__":
    write_rules(Path(__file__).parent.parent)
