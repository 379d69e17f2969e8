"""Votes of made-up pictures: scenes of several frames, three families, members of known worth."""

import numpy as np

from training.judged import Judged

TEMPLATE = """
name = "small"
threshold = 0.5

[pool]
effective_voters = ${voters}

[[tiers]]
name = "first"

[[tiers.members]]
name = "quick"
engine = "noop"
weight = ${quick_weight}
calibration = { method = "platt", slope = ${quick_slope}, intercept = ${quick_intercept} }

[[tiers.routes]]
min_confidence = ${first_confidence}
to = "exit"

[[tiers]]
name = "second"

[[tiers.members]]
name = "slow"
engine = "noop"
weight = ${slow_weight}
calibration = { method = "platt", slope = ${slow_slope}, intercept = ${slow_intercept} }
"""


def pictures(count: int = 900, frames: int = 3, seed: int = 7, hard: float = 0.2) -> list[Judged]:
    """Make pictures whose votes are raw scores.

    ``slow`` states true log-odds times 3 plus 2. ``quick`` sees the easy pictures as well, and of
    the ``hard`` share only noise.
    """
    rng = np.random.default_rng(seed)
    made = []
    for scene in range(count // frames):
        label = int(rng.random() < 0.4)
        for frame in range(frames):
            clear = (4.0 if label else -4.0) + rng.normal(0, 2.0)
            dim = rng.normal(0, 1.0) if rng.random() < hard else clear
            family = f"family{scene % 3}"
            made.append(
                Judged(
                    file=f"{family}__{scene:04}-{frame}.jpg",
                    label=label,
                    group=f"scene{scene:04}",
                    repo=f"owner/{family}",
                    conditions=("day",),
                    kinds=frozenset({"cone"} if label else ()),
                    votes={"quick": dim, "slow": 3 * clear + 2},
                )
            )
    return made
