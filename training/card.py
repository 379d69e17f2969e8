"""Refresh the figures of docs/quality.md and training/MODEL_CARD.md from ``results/``.

    python -m training.card

Only what stands between ``<!-- begin NAME -->`` and ``<!-- end -->`` is written: prose is by hand,
numbers never are. What was not measured is said to be so.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

from roadstream.schemas.cascade.model import Platt
from roadstream.schemas.cascade.routes import EXIT
from roadstream.stages.voting.route import describe
from training import rules, slices, tag_figures
from training.judged import Judged
from training.measured import RUNS, Results, load_results
from training.quality import figures, intervals, reliability, scene_weights
from training.sources import attribution
from training.svg import Axis, Series, chart, reliability_chart
from training.tables import figures_table, interval, sights_table, table, wrong_table

ROOT = Path(__file__).parent.parent
# Within the repository, or a folder laid out like it.
CARD = Path("training/MODEL_CARD.md")
PAGE = Path("docs/quality.md")
RELIABILITY = Path("docs/quality-reliability.svg")
LEARNING = Path("docs/quality-learning.svg")

PAIRED = "before_sources"
LEAST_PICTURES = 5  # smaller conditions and sources tell nothing
MOST_ROWS = 15
NOT_MEASURED = "*Not measured.*"


def summary(results: Results) -> str:
    """Say the main figures in a sentence."""
    judged, threshold = results.main, results.cascade.threshold
    plain, by_scene = (figures(judged, w, threshold) for w in (None, scene_weights(judged)))
    bounds = intervals(judged, threshold)
    return (
        f"On {plain.pictures} pictures of {plain.scenes} scenes from "
        f"{len({one.repo for one in judged})} sources ({RUNS[results.name]}): MCC "
        f"**{interval(plain.mcc, bounds.get('mcc'))}**, with every scene weighing the same "
        f"**{interval(by_scene.mcc, bounds.get('mcc_by_scene'))}**; F1 {plain.f1:.3f}; AUC "
        f"{interval(plain.auc, bounds.get('auc'))}; calibration error (ECE) "
        f"{plain.ece:.3f}, by scene {by_scene.ece:.3f}. In brackets: 95 % intervals over scenes."
    )


def runs_table(results: Results) -> str:
    """Compare all runs; ``lite`` also on the pictures that an older revision had not seen."""
    shown = [(RUNS[name], results.pictures(name)) for name in results.runs]
    if "lite" in results.runs and PAIRED in results.runs:
        files = {one.file for one in results.pictures(PAIRED)}
        same = [one for one in results.pictures("lite") if one.file in files]
        shown.append((f"`lite`, on the pictures of: {RUNS[PAIRED]}", same))
    shown += [(f"crops of signs: {RUNS[name]}", results.crops(name)) for name in results.runs]
    head = ("what was judged", "pictures", "scenes", "MCC", "MCC by scene", "F1")
    rows = [_run(title, judged, results.cascade.threshold) for title, judged in shown if judged]
    return table((*head, "AUC", "AUC by scene", "ECE", "ECE by scene", "Brier"), rows)


def _run(title: str, judged: list[Judged], threshold: float) -> list[object]:
    plain, by_scene = (figures(judged, w, threshold) for w in (None, scene_weights(judged)))
    bounds = intervals(judged, threshold)
    mcc = interval(plain.mcc, bounds.get("mcc")), interval(by_scene.mcc, bounds.get("mcc_by_scene"))
    rest = [plain.auc, by_scene.auc, plain.ece, by_scene.ece, plain.brier]
    return [title, plain.pictures, plain.scenes, *mcc, plain.f1, *rest]


def members_table(results: Results) -> str:
    """List tier, input, calibration and weight of each member of the cascade file."""
    rows = []
    for tier in results.cascade.tiers:
        for member in tier.members:
            fitted = member.calibration
            pair = (fitted.slope, fitted.intercept) if isinstance(fitted, Platt) else (None, None)
            size = f"{member.width} × {member.height}"
            rows.append([f"`{member.name}`", f"`{tier.name}`", size, *pair, member.weight])
    return table(("member", "tier", "input", "slope", "intercept", "weight"), rows)


def pool_line(results: Results) -> str:
    """Say how votes are pooled and where a picture leaves."""
    cascade = results.cascade
    exits = [
        f"`{tier.name}` when {describe(route)}"
        for tier in cascade.tiers
        for route in tier.routes
        if route.to == EXIT
    ]
    return (
        f"Effective voters {cascade.pool.effective_voters:g}, prior {cascade.pool.prior:g}, "
        f"decision threshold {cascade.threshold:g}. A picture leaves "
        f"{', '.join(exits) or 'after all tiers'}."
    )


def tiers_table(results: Results) -> str:
    """Show what share leaves at each tier, and how right it is there."""
    found = slices.by(results.main, slices.tiers, results.cascade.threshold)
    order = [name for name in results.cascade.tier_names if name in found]
    order += [name for name in found if name not in order]
    total = len(results.main)
    rows = [
        [f"`{name}`", f.pictures / total, f.accuracy, f.recall, f.specificity, f.mcc, f.ece]
        for name, f in ((name, found[name]) for name in order)
    ]
    return table(("tier", "share leaving", "accuracy", "recall", "specificity", "mcc", "ece"), rows)


def cost_line(results: Results) -> str:
    """Say what exits save and lose, chosen on other scenes than those judged."""
    if not results.calibration:
        return NOT_MEASURED
    held = results.calibration["held_out"]
    tiers = ", ".join(f"`{k}` {v:.3g} ms" for k, v in results.calibration["milliseconds"].items())
    return (
        f"Against all members on every picture, exits chosen on other scenes spend "
        f"{100 * held['cost']:.0f} % of the compute and lose {_signed(held['loss'])} MCC, by scene "
        f"{_signed(held['loss_by_scene'])}. One picture on one thread: {tiers}."
    )


def _signed(value: float) -> str:
    return f"{value:.3f}".replace("-", "−")


def calibration_table(results: Results) -> str:
    """Show each member's own calibration error on scenes it was not calibrated on."""
    members = results.calibration.get("members")
    if not members:
        return NOT_MEASURED
    rows = [[f"`{name}`", m["ece"], m["ece_by_scene"]] for name, m in members.items()]
    return table(("member", "ECE", "ECE by scene"), rows)


def confusion_table(results: Results) -> str:
    """Count calls against the truth."""
    called = [
        (one.label, int(one.probability >= results.cascade.threshold)) for one in results.main
    ]
    rows = [
        [name, called.count((label, 0)), called.count((label, 1))]
        for label, name in ((0, "ordinary"), (1, "roadwork"))
    ]
    return table(("truth", "called ordinary", "called roadwork"), rows)


def slices_table(name: str, names: slices.Names) -> Callable[[Results], str]:
    """Return the function that measures each slice of the pictures."""

    def show(results: Results) -> str:
        threshold = results.cascade.threshold
        return figures_table(name, slices.by(results.main, names, threshold, LEAST_PICTURES))

    return show


def kinds_table(results: Results) -> str:
    """Show how often roadwork with each kind of object is found."""
    return sights_table(slices.sights(results.main, results.cascade.threshold))


def blind_table(label: int) -> Callable[[Results], str]:
    """Return the function that lists in what pictures of a label go wrong."""

    def show(results: Results) -> str:
        found = slices.blind_spots(results.main, label, results.cascade.threshold)
        return wrong_table("missed" if label else "called roadwork", found, MOST_ROWS)

    return show


def worst_table(results: Results) -> str:
    """List the ten kinds of pictures that hold most of the errors."""
    found = slices.worst(results.main, results.cascade.threshold)
    wrong = sum(slices.is_wrong(one, results.cascade.threshold) for one in results.main)
    held = sum(each.wrong for each in found)
    return f"{wrong_table('kind', found)}\n\nThey hold {held} of all {wrong} errors."


def ablations_table(results: Results) -> str:
    """Show ablations as they were written."""
    rows = results.ablations
    return table(list(rows[0]), [list(row.values()) for row in rows]) if rows else NOT_MEASURED


def learning_part(results: Results) -> str:
    """Show the learning curve over scenes as a picture and a table."""
    rows = results.learning
    if not rows:
        return NOT_MEASURED
    picture = f"![Learning curve over scenes]({LEARNING.name})"
    return f"{picture}\n\n{table(list(rows[0]), [list(row.values()) for row in rows])}"


def learning_chart(results: Results) -> str:
    """Return the learning curve as SVG."""
    rows = results.learning
    most = max(float(row["scenes"]) for row in rows)
    lines = [
        Series(name, [(float(row["scenes"]), float(row[key])) for row in rows if row.get(key)])
        for key, name in (("mcc", "MCC"), ("mcc_by_scene", "MCC by scene"), ("auc", "AUC"))
    ]
    return chart("Learning curve", Axis("scenes of training", 0, most), Axis("measure"), lines)


def licences_table(results: Results) -> str:
    """List sources, licences and how many pictures of each label."""
    return table(("taken from", "licence", "roadwork", "ordinary"), results.sources)


def attribution_lines(results: Results) -> str:
    """Name everybody who asks for it."""
    return attribution(results.sources)


def tags_part(results: Results) -> str:
    """Say how well light and weather are told."""
    return tag_figures.part(results.tags) if results.tags else NOT_MEASURED


def rules_part(results: Results) -> str:
    """Show what rules by tags would change."""
    return rules.rules_table(results.rules) if results.rules else NOT_MEASURED


def versions_line(results: Results) -> str:
    """Say what was used."""
    told = ", ".join(f"{name} {version}" for name, version in results.versions.items())
    return told or NOT_MEASURED


PARTS: Mapping[Path, Mapping[str, Callable[[Results], str]]] = {
    PAGE: {
        "summary": summary,
        "runs": runs_table,
        "tiers": tiers_table,
        "cost": cost_line,
        "calibration": calibration_table,
        "confusion": confusion_table,
        "sources": slices_table("source", slices.sources),
        "conditions": slices_table("condition", slices.conditions),
        "kinds": kinds_table,
        "missed": blind_table(1),
        "false alarms": blind_table(0),
        "worst": worst_table,
        "ablations": ablations_table,
        "learning": learning_part,
        "tags": tags_part,
        "rules": rules_part,
    },
    CARD: {
        "summary": summary,
        "members": members_table,
        "pool": pool_line,
        "licences": licences_table,
        "attribution": attribution_lines,
        "versions": versions_line,
    },
}


def refill(text: str, name: str, part: str, where: str) -> str:
    """Return a page with one part exchanged.

    Raises:
        ValueError: Its marker does not stand there exactly once, or has no end.
    """
    head, tail = f"<!-- begin {name} -->", "<!-- end -->"
    if text.count(head) != 1:
        raise ValueError(f"{where}: expected one marker {head}, got {text.count(head)}")
    before, _, rest = text.partition(head)
    _, found, after = rest.partition(tail)
    if not found:
        raise ValueError(f"{where}: expected {tail} after {head}, got the end of the file")
    return f"{before}{head}\n{part}\n{tail}{after}"


def render(page: Path, results: Results, root: Path) -> None:
    """Rewrite what stands between the markers of a page; its prose is the repository's at first."""
    target = root / page
    text = (target if target.exists() else ROOT / page).read_text(encoding="utf-8")
    for name, make in PARTS[page].items():
        text = refill(text, name, make(results), page.name)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text, encoding="utf-8")


def write_pages(root: Path) -> None:
    """Rewrite both pages and their pictures from the results and the cascade in the same folder."""
    results = load_results(root / "training" / "results", str(root / "cascades" / "lite.toml"))
    for page in PARTS:
        render(page, results, root)
    judged = results.main
    drawn = reliability_chart(reliability(judged), reliability(judged, scene_weights(judged)))
    (root / RELIABILITY).write_text(drawn, encoding="utf-8")
    if results.learning:
        (root / LEARNING).write_text(learning_chart(results), encoding="utf-8")


if __name__ == "__main__":
    write_pages(ROOT)
