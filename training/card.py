"""Refresh the tables of MODEL_CARD.md from results/lite.json: no number is typed by hand."""

import argparse
import json
from collections import Counter
from typing import Any

from corpus import HERE, add_folder_options, load_pictures
from evaluate import RESULT_FILE

LEAST_PICTURES = 10  # smaller sources stand in results/lite.json only
CARD = HERE / "MODEL_CARD.md"
COLUMNS = ("accuracy", "mcc", "f1", "auc", "ece", "recall", "specificity")


def table(head: list[str], rows: list[list[object]]) -> str:
    """Lay out a Markdown table."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def score_table(name: str, parts: dict[str, dict[str, Any]]) -> str:
    """Lay out metrics, one row per part; what a part cannot have stays empty."""
    used = [column for column in COLUMNS if any(column in part for part in parts.values())]
    rows = [
        [key, part["pictures"], part["roadwork"]]
        + [f"{part[column]:.3f}" if column in part else "" for column in used]
        for key, part in parts.items()
    ]
    return table([name, "pictures", "roadwork", *used], rows)


def members_table(report: dict[str, Any]) -> str:
    """List tier, input, calibration, weight and cost of each member."""
    rows: list[list[object]] = []
    for name, facts in report["members"].items():
        size = f"{facts['input_width']} x {facts['input_height']}"
        fitted = [f"{facts['a']:.4f}", f"{facts['b']:.4f}"]
        rows.append([name, facts["tier"], size, *fitted, facts["weight"], facts["milliseconds"]])
    return table(["member", "tier", "input", "a", "b", "weight", "ms"], rows)


def tiers_table(report: dict[str, Any]) -> str:
    """List exit, share leaving and accuracy of each tier on the test pictures."""
    rows: list[list[object]] = []
    for name, facts in report["test"]["tiers"].items():
        right = facts["accuracy_of_leaving"]
        shown = "" if right is None else f"{right:.3f}"
        rows.append([name, report["exits"][name], f"{facts['share_leaving']:.3f}", shown])
    return table(["tier", "exit at confidence", "share leaving", "accuracy of these"], rows)


def test_table(report: dict[str, Any]) -> str:
    """Compare the cascade, everything running, and each member alone on the test pictures."""
    names = [n for n in report["test"] if "_at_" in n or n.startswith(("only_", "up_to_"))]
    return score_table("on test", {n.replace("_", " "): report["test"][n] for n in names})


def confusion_table(report: dict[str, Any]) -> str:
    """Show the cascade's confusion on the test pictures at the chosen threshold."""
    cells = report["test"][f"cascade_at_{report['threshold']:.2f}"]["confusion"]
    rows: list[list[object]] = [
        ["ordinary", cells["true_negative"], cells["false_positive"]],
        ["roadwork", cells["false_negative"], cells["true_positive"]],
    ]
    return table(["truth", "answered ordinary", "answered roadwork"], rows)


def left_out_table(report: dict[str, Any]) -> str:
    """Show nets and pools on the sources they were trained without."""
    parts = []
    for name, groups in report["left_out"].items():
        if name != "schedules" and groups:
            shown = {k: v for k, v in groups.items() if v["pictures"] >= LEAST_PICTURES}
            parts.append(score_table(f"{name} on left-out", shown))
    schedules = report["left_out"]["schedules"]
    told = "; ".join(f"{name}: {schedule}" for name, schedule in schedules.items())
    return f"Schedules of these runs: {told}.\n\n" + "\n\n".join(parts)


def sources_table(options: argparse.Namespace) -> str:
    """List sources and licences of all training and test pictures, from the manifest."""
    pictures = load_pictures(options.data)
    counts = Counter((p.repo, p.licence, p.label) for p in pictures)
    rows: list[list[object]] = [
        [repo, licence, counts[repo, licence, 1], counts[repo, licence, 0]]
        for repo, licence in sorted({(p.repo, p.licence) for p in pictures})
    ]
    return table(["taken from", "licence", "roadwork", "ordinary"], rows)


def summary_line(report: dict[str, Any]) -> str:
    """Say the main results in a sentence."""
    test, threshold = report["test"], report["threshold"]
    cascade = test[f"cascade_at_{threshold:.2f}"]
    low, high = report["mcc_interval"]
    return (
        f"On {cascade['pictures']} test pictures of unseen scenes the cascade has MCC "
        f"{cascade['mcc']:.3f} (95 % interval over scenes {low:.2f} to {high:.2f}), accuracy "
        f"{cascade['accuracy']:.3f}, AUC {cascade['auc']:.3f} and ECE {cascade['ece']:.3f} at the "
        f"decision threshold {threshold:.2f}. It spends {test['milliseconds']:.0f} ms per picture "
        f"on one thread, where running everything takes {test['everything_milliseconds']:.0f} ms "
        f"({100 * test['compute_saved']:.0f} % saved)."
    )


def pool_line(report: dict[str, Any]) -> str:
    """Say how the votes are pooled."""
    pool = report["pool"]
    return (
        f"Effective voters s = {pool['voters']}, prior {pool['prior']}, log-odds clipped to "
        f"+-{pool['clip']:.0f}, decision threshold {report['threshold']}."
    )


def refill(text: str, name: str, part: str) -> str:
    """Replace what stands between the markers of one part; exits if they are not there once."""
    head, tail = f"<!-- begin {name} -->", "<!-- end -->"
    if text.count(head) != 1:
        raise SystemExit(f"{CARD.name}: expected one marker {head!r}, got {text.count(head)}")
    before, _, rest = text.partition(head)
    _, _, after = rest.partition(tail)
    return f"{before}{head}\n{part}\n{tail}{after}"


def main() -> None:
    """Rewrite what stands between the markers of the model card."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_folder_options(parser)
    options = parser.parse_args()
    report = json.loads(RESULT_FILE.read_text())
    versions = ", ".join(f"{key} {value}" for key, value in report["versions"].items())
    parts = {
        "summary": summary_line(report),
        "members": members_table(report),
        "pool": pool_line(report),
        "tiers": tiers_table(report),
        "test": test_table(report),
        "confusion": confusion_table(report),
        "conditions": score_table("condition", report["conditions"]),
        "sources": score_table("source", report["sources"]),
        "left-out": left_out_table(report),
        "licences": sources_table(options),
        "split": table(list(report["splits"]), [list(report["splits"].values())]),
        "versions": versions,
    }
    text = CARD.read_text()
    for name, part in parts.items():
        text = refill(text, name, part)
    CARD.write_text(text)


if __name__ == "__main__":
    main()
