"""Fit calibrators, weights, pool and exits on out-of-fold scores, and fill them into a cascade.

    python -m training.calibrate SCORES TEMPLATE CASCADE --milliseconds glance=4.2 look=40

SCORES is a file of judged pictures (see ``judged``) whose votes are raw scores, each by a model
that never saw the picture's scene. TEMPLATE is described in ``cascade_fit``. Beside CASCADE, what
it answers on these pictures is written to ``results/``: each picture's answer is that of a cascade
fitted without the picture's scene.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from training.cascade_fit import Numbers, cross_fit, family_folds, fit, tier_names
from training.judged import Judged, read_judged, write_judged
from training.platt import Scored, cross_calibrate, folds, scored, tempered
from training.quality import ece, figures, scene_weights
from training.replay import everything

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Calibrated:
    """A fitted cascade and what it answers on pictures that it was not fitted on.

    Attributes:
        text: The cascade file.
        answers: Of the cascade; fitted without the picture's scene.
        whole: Of all members on every picture; fitted without the scene.
        strangers: Of the cascade; fitted without the picture's whole source family.
        facts: What was fitted, as JSON values.
    """

    text: str
    answers: list[Judged]
    whole: list[Judged]
    strangers: list[Judged]
    facts: dict[str, object]


def calibrate(
    pictures: Sequence[Judged], template: str, milliseconds: Mapping[str, float]
) -> Calibrated:
    """Fit a cascade, and judge every picture by cascades fitted without it.

    Args:
        pictures: With raw scores for votes.
        template: See the module.
        milliseconds: Of each tier, by name.

    Raises:
        KeyError: A tier has no milliseconds, or as ``fit``.
    """
    votes = scored(pictures)
    costs = [milliseconds[name] for name in tier_names(template, votes)]
    fitted = fit(template, votes, costs)
    families = family_folds(votes.families)
    by_scene = cross_fit(template, pictures, costs)
    answers, whole = by_scene.judged(), by_scene.judged(everything)
    return Calibrated(
        text=fitted.numbers.fill(template),
        answers=answers,
        whole=whole,
        strangers=cross_fit(template, pictures, costs, families).judged(),
        facts={
            "milliseconds": dict(milliseconds),
            "voters": fitted.numbers.voters,
            "members": _members(votes, fitted.numbers),
            "chosen": asdict(fitted.chosen),
            "held_out": _held_out(answers, whole, milliseconds),
        },
    )


def _members(votes: Scored, numbers: Numbers) -> dict[str, dict[str, float]]:
    """Return each member's numbers, and its calibration error when calibrated without the scene."""
    truth, scenes = votes.labels == 1, tempered(votes.groups, 1.0)
    found = {}
    for name, odds in cross_calibrate(votes, folds(votes)).items():
        kept = ~np.isnan(odds)
        p = 1 / (1 + np.exp(-odds[kept]))
        found[name] = {
            "slope": numbers.calibrators[name].slope,
            "intercept": numbers.calibrators[name].intercept,
            "weight": numbers.weights[name],
            "ece": ece(truth[kept], p, np.ones(len(p))),
            "ece_by_scene": ece(truth[kept], p, scenes[kept]),
        }
    return found


def _held_out(
    answers: Sequence[Judged], whole: Sequence[Judged], milliseconds: Mapping[str, float]
) -> dict[str, float]:
    """Return what exits cost and lose on pictures that they were not chosen on."""
    names = list(milliseconds)
    spent = {name: sum(list(milliseconds.values())[: i + 1]) for i, name in enumerate(names)}
    plain, by_scene = (
        (figures(whole, weights).mcc or 0.0) - (figures(answers, weights).mcc or 0.0)
        for weights in (None, scene_weights(answers))
    )
    cost = sum(spent[one.tier] for one in answers) / len(answers) / sum(milliseconds.values())
    return {"cost": cost, "loss": plain, "loss_by_scene": by_scene}


def write_results(found: Calibrated, results: Path = RESULTS) -> None:
    """Write what ``training.card`` describes: votes per picture, and what was fitted."""
    results.mkdir(parents=True, exist_ok=True)
    write_judged(results / "lite.csv", found.answers)
    write_judged(results / "everything.csv", found.whole)
    write_judged(results / "strangers.csv", found.strangers)
    text = json.dumps(_rounded(found.facts), indent=1)
    (results / "calibration.json").write_text(text + "\n", encoding="utf-8")


def _rounded(value: object) -> object:
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, Mapping):
        return {name: _rounded(each) for name, each in value.items()}
    return [_rounded(each) for each in value] if isinstance(value, list | tuple) else value


def _tier_cost(text: str) -> tuple[str, float]:
    name, _, cost = text.partition("=")
    return name, float(cost)


def main() -> None:
    """Fit a cascade file and write it, with results beside."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("scores", type=Path, help="judged pictures, with raw scores for votes")
    parser.add_argument("template", type=Path, help="cascade file with placeholders")
    parser.add_argument("cascade", type=Path, help="file to write")
    parser.add_argument(
        "--milliseconds", type=_tier_cost, nargs="+", required=True, metavar="TIER=MS"
    )
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder to write to")
    options = parser.parse_args()
    template = options.template.read_text(encoding="utf-8")
    found = calibrate(read_judged(options.scores), template, dict(options.milliseconds))
    options.cascade.write_text(found.text, encoding="utf-8")
    write_results(found, options.results)


if __name__ == "__main__":
    main()
