"""Decisions alone: microseconds per image of routes, votes, rules and tags, over all tiers.

Ten members on seven tiers judge images of which 65, 15, 10, 8 and 2 % are ever harder, so that the
ladder of routes ends for them after ever more tiers. No picture is read and no model runs. ``on``
has an ensemble, a conflict rule, four that adapt, difficulty, and routes by tags; ``off`` is the
same cascade with the members, weights and confidences of its routes alone. Both are measured in
turn, in processor time. The limit beside the figure is the bytecodes that this takes, at what a
bytecode of the plainest loop takes.

``cascade check`` is timed as a process of its own, for every cascade that ships. Fusing boxes has a
benchmark of its own: ``python -m roadstream.bench.parts.fusion``.
"""

import argparse
import random
import resource
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any, NamedTuple

import msgspec
import numpy as np

from roadstream.bench.harness import Spread, show, spread, write_result
from roadstream.schemas.cascade.loading import parse_cascade, shipped_cascades
from roadstream.schemas.cascade.model import Cascade, Tier
from roadstream.schemas.records.image import Head
from roadstream.schemas.records.votes import (
    NO_EVIDENCE,
    Box,
    Evidence,
    ImageVotes,
    MemberRun,
    PriorVote,
    VotesPack,
)
from roadstream.sinks.consensus.answer import Answerer, TierVotes
from roadstream.stages.inference import Finding, Picture, Score
from roadstream.stages.rules.difficulty import surface
from roadstream.stages.voting.evidence import evidence_after
from roadstream.stages.voting.picture_rules import NOTHING_SEEN, PictureRules, Seen, picture_rules
from roadstream.stages.voting.rules import Votes, vote_math
from roadstream.stages.voting.tier_votes import TierVoting, Timing

# The plan's shares of the five bins, and log-odds at which members agree on their images: the
# ladder of the routes turns these into ever longer ways.
SHARES = (0.65, 0.15, 0.10, 0.08, 0.02)
LOG_ODDS = (4.8, 3.0, 2.1, 1.2, 0.4)
WEATHERS = ("dry",) * 16 + ("rain", "rain", "fog", "snow")
TIMING = Timing(0.001, 0.002, 0.003)
TARGET = 40.0
FILE = b"""
name = "seven"
threshold = 0.5
{tiers}

[[rules]]
rule = "difficulty"
[[rules]]
rule = "adapt"
tags_any = ["weather=rain", "weather=snow"]
weights = { zero-shot = 1.15, detection = 0.9 }
[[rules]]
rule = "adapt"
tags_all = ["weather=fog"]
weights = { detection = 0.85 }
box_confidence = 0.85
box_margin = 0.1
[[rules]]
rule = "adapt"
tags_all = ["light=night"]
weights = { segmentation = 1.2 }
[[rules]]
rule = "adapt"
tags_all = ["zone=ends"]
shift = -2.0
[[rules]]
rule = "conflict"
tier = "power"
"""
TIERS: dict[str, tuple[str, Sequence[str]]] = {
    "foundation": ("segmentation", ["backbone"]),
    "detection": ("detection", ["yolo", "rt-detr", "d-fine", "grounding"]),
    "scene": ("zero-shot", ["concepts"]),
    "fast": ("fast-vlm", ["small"]),
    "careful": ("fast-vlm", ["thinking"]),
    "power": ("power-vlm", ["mixture"]),
    "precision": ("precision-vlm", ["strongest"]),
}
ROUTES = {
    "detection": [
        'to = "scene"\nmax_confidence = 0.4\ntags_any = ["difficulty=5", "weather=fog"]',
        'to = "exit"\nmin_confidence = 0.95\nmax_disagreement = 1.5',
        'to = "fast"\nmin_confidence = 0.85',
        'to = "careful"\nmin_confidence = 0.7',
        'to = "careful"\nmin_confidence = 0.55\ntags_none = ["weather=fog"]',
        'to = "careful"\nmin_confidence = 0.4',
        'to = "scene"\nmin_confidence = 0.25',
    ],
    "fast": ['to = "exit"\nmin_confidence = 0.8'],
    "careful": [
        'to = "exit"\nmin_confidence = 0.65\nmax_losing = 2',
        'to = "power"\nmin_disagreement = 2.0',
    ],
    "power": [
        'to = "precision"\ntags_any = ["conflict=power-yes", "conflict=power-no"]',
        'to = "exit"\nmin_confidence = 0.4',
    ],
}


def ruled() -> Cascade:
    """Return the cascade of seven tiers and ten members, with all rules."""
    return parse_cascade(FILE.replace(b"{tiers}", "\n".join(map(_tier, TIERS)).encode()), "seven")


def _tier(name: str) -> str:
    kind, members = TIERS[name]
    lines = ["[[tiers]]", f'name = "{name}"']
    lines += ["ensemble = {}"] if name == "detection" else []
    for member in members:
        lines += ["[[tiers.members]]", f'name = "{member}"', 'engine = "noop"', f'kind = "{kind}"']
    for route in ROUTES.get(name, ()):
        lines += ["[[tiers.routes]]", route]
    return "\n".join(lines)


def plain(cascade: Cascade) -> Cascade:
    """Return a cascade without rules and ensembles, whose routes go by confidence alone."""
    tiers = [
        msgspec.structs.replace(one, ensemble=None, routes=_plain(one)) for one in cascade.tiers
    ]
    return msgspec.structs.replace(cascade, rules=[], tiers=tiers)


def _plain(tier: Tier) -> list[Any]:
    kept = [one for one in tier.routes if not one.tags_any and one.min_disagreement is None]
    return [msgspec.structs.replace(one, tags_none=[], max_losing=None) for one in kept]


class Waiting(NamedTuple):
    """An image on its way: see ``JudgedImage``."""

    head: Head
    prior: list[PriorVote]
    evidence: Evidence


class Step(NamedTuple):
    """An image at a tier: all that is decided there is a function of this."""

    voting: TierVoting
    rules: PictureRules | None
    image: Waiting
    found: Sequence[Finding]
    seen: Seen


class Ways(NamedTuple):
    """What images pass.

    Attributes:
        steps: All their steps.
        passed: Per image the votes of its tiers.
        tiers: Tiers per image, on average.
        exits: Images by the tier that they leave at.
    """

    steps: list[Step]
    passed: list[list[TierVotes]]
    tiers: float
    exits: Counter[str]


NO_PICTURE = Picture()


class Stand:
    """A cascade's tiers, ready to judge made-up findings."""

    def __init__(self, cascade: Cascade) -> None:
        self.cascade = cascade
        self._voting = {name: TierVoting(cascade, name) for name in cascade.tier_names}
        self._rules = {name: picture_rules(cascade, name) for name in cascade.tier_names}
        self._runs = {
            tier.name: [MemberRun(m.name, "1", m.weight, False, 0.001, 16) for m in tier.members]
            for tier in cascade.tiers
        }
        self.math = vote_math(cascade)
        self.answerer = Answerer(cascade, self.math)

    def ways(self, images: int, seed: int = 72) -> Ways:
        """Send images through, and note every step."""
        chance, steps = random.Random(seed), list[Step]()
        passed = [self._way(number, chance, steps) for number in range(images)]
        exits = Counter(one[-1].pack.tier for one in passed)
        return Ways(steps, passed, len(steps) / images, exits)

    def _way(self, number: int, chance: random.Random, steps: list[Step]) -> list[TierVotes]:
        hard = chance.choices(range(len(SHARES)), SHARES)[0]
        odds = LOG_ODDS[hard] * chance.choice((-1, 1))
        waiting = Waiting(Head(image_id=f"{number:08}", uri=f"file:{number}"), [], NO_EVIDENCE)
        passed: list[TierVotes] = []
        name: str | None = self.cascade.tier_names[0]
        while name is not None:
            found = [_finding(name, odds, chance) for _ in self._runs[name]]
            rules = self._rules[name]
            seen = rules.look(waiting, NO_PICTURE, found, None) if rules else NOTHING_SEEN
            steps.append(Step(self._voting[name], rules, waiting, found, seen))
            said = vote(steps[-1])
            runs = self._runs[name]
            passed.append(TierVotes(pack(name, runs, said), said))
            waiting = _after(waiting, said, runs)
            name = said.next_tier
        return passed


def pack(name: str, runs: list[MemberRun], said: ImageVotes) -> VotesPack:
    """Return the pack that one image's votes come in."""
    return VotesPack(
        tier=name, cascade="seven", cascade_hash="0", sent_at=0.0, runs=runs, images=[said]
    )


def _finding(tier: str, odds: float, chance: random.Random) -> Score:
    """Return a member's finding: near the image's log-odds, and at times against them."""
    raw = odds + chance.gauss(0, 0.3)
    if tier == "power" and abs(odds) < 1 and chance.random() < 0.5:
        raw = -4 * raw
    boxes = [Box(0.1, 0.2, 0.2, 0.4, 0.7, "cone"), Box(0.5, 0.2, 0.6, 0.4, 0.5, "barrier")]
    if tier == "foundation":
        return Score(raw, [], "", {"weather": chance.choice(WEATHERS)})
    return Score(raw, boxes if tier == "detection" else [])


def _after(waiting: Waiting, said: ImageVotes, runs: list[MemberRun]) -> Waiting:
    cast = zip(runs, said.probability, strict=True)
    votes = [PriorVote(run.member, run.weight, p) for run, p in cast if p is not None]
    prior = [*waiting.prior, *votes]
    return Waiting(waiting.head, prior, evidence_after(waiting.evidence, said, runs, prior))


def vote(step: Step) -> ImageVotes:
    """Have a tier vote and route."""
    return step.voting.vote(step.image, step.found, TIMING, None, step.seen)


Part = Callable[[], object]


def parts(stand: Stand, ways: Ways) -> dict[str, Part]:
    """Return what is timed: each does its part for all images once."""
    looking = [(one.rules, one) for one in ways.steps if one.rules is not None]
    counted = [_counted(one) for one in ways.passed]

    def look() -> None:
        for rules, step in looking:
            rules.look(step.image, NO_PICTURE, step.found, None)

    def tiers() -> None:
        for step in ways.steps:
            vote(step)

    def verdicts() -> None:
        for votes, tags in counted:
            stand.math(votes, tags)

    def answers() -> None:
        for passed in ways.passed:
            stand.answerer.answer(passed, first_at=0.0, now=1.0)

    return {"difficulty": look, "votes and routes": tiers, "verdict": verdicts, "answer": answers}


def _counted(passed: list[TierVotes]) -> tuple[Votes, dict[str, str]]:
    pairs = [
        (run, p)
        for one in passed
        for run, p in zip(one.pack.runs, one.votes.probability, strict=True)
        if p is not None
    ]
    votes = Votes([r.member for r, _ in pairs], [p for _, p in pairs], [r.weight for r, _ in pairs])
    tags: dict[str, str] = {}
    for one in passed:
        for given in (*(one.votes.tags or ()), one.votes.given or {}):
            tags |= given
    return votes, tags


DECISIONS = ("difficulty", "votes and routes", "verdict")


def microseconds(part: Part, images: int) -> float:
    """Return processor time per image."""
    began = time.process_time()
    part()
    return (time.process_time() - began) / images * 1e6


def bytecodes(part: Part) -> int:
    """Return how many bytecodes a part takes."""
    count = 0

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal count
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        count += event == "opcode"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        part()
    finally:
        sys.settrace(before)
    return count


def _loop() -> None:
    total = 0
    for number in range(100_000):
        total = number + number
    del total


def nanoseconds_per_bytecode() -> float:
    """Return what a bytecode of the plainest loop takes, at best."""
    codes = bytecodes(_loop)
    return min(microseconds(_loop, 1) for _ in range(10)) * 1000 / codes


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """What decisions cost, with rules on or off.

    Attributes:
        tiers: Tiers that an image passes, on average.
        exits: Share of the images by the tier that they leave at.
        microseconds: Processor time per image, by part.
        total: The same of all decisions: making the answer from them is not among them.
        bytecodes: Bytecodes of all decisions, per image.
        limit: Microseconds that they take at the speed of the plainest loop.
    """

    tiers: float
    exits: dict[str, float]
    microseconds: dict[str, Spread]
    total: Spread
    bytecodes: float
    limit: float


def measure(images: int, rounds: int) -> dict[str, Measured]:
    """Measure decisions with rules on and off, in turn."""
    cascade = ruled()
    stands = {"on": Stand(cascade), "off": Stand(plain(cascade))}
    ways = {name: stand.ways(images) for name, stand in stands.items()}
    timed = {name: parts(stand, ways[name]) for name, stand in stands.items()}
    found: dict[str, list[dict[str, float]]] = {name: [] for name in stands}
    for _ in range(rounds + 1):
        for name, some in timed.items():
            found[name].append({part: microseconds(do, images) for part, do in some.items()})
    speed = nanoseconds_per_bytecode()
    return {name: _measured(ways[name], timed[name], found[name][1:], speed) for name in stands}


def _measured(
    ways: Ways, timed: dict[str, Part], rounds: list[dict[str, float]], speed: float
) -> Measured:
    images = len(ways.passed)
    codes = sum(bytecodes(timed[part]) for part in DECISIONS) / images
    return Measured(
        tiers=ways.tiers,
        exits={name: count / images for name, count in ways.exits.most_common()},
        microseconds={part: spread([one[part] for one in rounds]) for part in timed},
        total=spread([sum(one[part] for part in DECISIONS) for one in rounds]),
        bytecodes=codes,
        limit=codes * speed / 1000,
    )


def pixels(rounds: int) -> Spread:
    """Return microseconds of measuring a picture for its difficulty, at a member's size."""
    picture = np.random.default_rng(1).integers(0, 256, (160, 256, 3), np.uint8)

    def some() -> None:
        for _ in range(200):
            surface(picture)

    return spread([microseconds(some, 200) for _ in range(rounds + 1)][1:])


def check_seconds(name: str, rounds: int) -> Spread:
    """Return the processor time of ``roadstream cascade check``, after a first run."""
    command = [sys.executable, "-m", "roadstream.workers.cli", "cascade", "check", name]
    found = []
    for _ in range(rounds + 1):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        # What is wrong with a cascade whose weights are not here is no matter.
        subprocess.run(command, capture_output=True, check=False, timeout=120)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        found.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return spread(found[1:])


def show_all(found: dict[str, Measured], seen: Spread, checks: dict[str, Spread]) -> None:
    """Print the tables."""
    rows = [
        [part, *(found[name].microseconds[part].text(".1f") for name in found)]
        for part in next(iter(found.values())).microseconds
    ]
    rows.append(["all decisions", *(one.total.text(".1f") for one in found.values())])
    rows.append(["their bytecodes", *(f"{one.bytecodes:,.0f}" for one in found.values())])
    rows.append(["limit", *(f"{one.limit:.1f}" for one in found.values())])
    rows.append(["tiers passed", *(f"{one.tiers:.2f}" for one in found.values())])
    show("µs per image", ["", *(f"rules {name}" for name in found)], rows)
    show("other", ["", "median (low to high)"], [
        ["pixels of a picture, µs", seen.text(".1f")],
        *([f"cascade check {name}, CPU s", one.text(".2f")] for name, one in checks.items()),
    ])  # fmt: skip


def main() -> None:
    """Measure, print, and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--no-checks", action="store_true", help="leave out cascade check")
    options = parser.parse_args()
    found, seen = measure(options.images, options.rounds), pixels(options.rounds)
    names = [] if options.no_checks else sorted(shipped_cascades())
    checks = {name: check_seconds(name, 3) for name in names}
    show_all(found, seen, checks)
    facts = {"target": TARGET, "images": options.images, "shares": SHARES, "rules": found,
             "pixels": seen, "cascade_check": checks}  # fmt: skip
    print(write_result("rules", facts))


if __name__ == "__main__":
    main()
