"""docs/operate/alerts.yml: each alert rule names metrics that exist, has a reason, is tried."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from roadstream.workers.service.status.samples import METRICS

REPOSITORY = Path(__file__).parents[3]
RULES = REPOSITORY / "docs" / "operate" / "alerts.yml"
UNIT_TESTS = [
    Path(__file__).with_name(name) for name in ("alerts_test.yml", "alerts_drift_test.yml")
]
ALERTS: dict[str, dict[str, Any]] = {
    rule["alert"]: rule
    for group in yaml.safe_load(RULES.read_text())["groups"]
    for rule in group["rules"]
}


def promtool(*arguments: str | Path) -> str:
    """Run promtool; return what it says, its errors first."""
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, check=False)
    return done.stderr + done.stdout if done.returncode else ""


def test_alerts_are_about_metrics_that_exist() -> None:
    pages = [
        RULES,
        REPOSITORY / "docs" / "guide" / "kafka.md",
        REPOSITORY / "docs" / "operate" / "metrics.md",
    ]
    named = {name for page in pages for name in re.findall(r"\broadstream_\w+", page.read_text())}
    histograms = {name for name, metric in METRICS.items() if metric.kind == "histogram"}
    parts = {f"{name}_{part}" for name in histograms for part in ("bucket", "count", "sum")}
    assert named <= METRICS.keys() | parts


def test_every_alert_has_a_reason_and_says_what_to_do() -> None:
    text = RULES.read_text()
    reasons = re.findall(r"^ +# .+\n +- alert: (\w+)$", text, re.MULTILINE)
    assert reasons == list(ALERTS)
    for rule in ALERTS.values():
        assert rule["labels"]["severity"] in {"critical", "warning"}
        assert rule["annotations"].keys() == {"summary", "action"}


def test_every_alert_is_tried_firing_and_silent() -> None:
    files = [yaml.safe_load(path.read_text()) for path in UNIT_TESTS]
    tried = [case for file in files for case in file["tests"]]
    assert len(tried) == len(ALERTS)
    for name, case in zip(ALERTS, tried, strict=True):
        expected = [
            *(one.get("exp_samples", []) for one in case.get("promql_expr_test", [])),
            *(one.get("exp_alerts", []) for one in case.get("alert_rule_test", [])),
        ]
        assert [] in expected, name
        assert name in str(case), name


def test_the_series_they_are_tried_on_have_the_labels_of_those_that_are_served() -> None:
    served = {name: {*metric.labels, "job", "instance"} for name, metric in METRICS.items()}
    served |= {f"{name}_count": labels for name, labels in served.items()}
    served["up"] = served["process_start_time_seconds"] = {"job", "instance"}
    for path in UNIT_TESTS:
        for series in re.findall(r"series: '(.+?)'", path.read_text()):
            name, _, labels = series.partition("{")
            assert set(re.findall(r"(\w+)=\"", labels)) == served[name], series


@pytest.mark.prometheus
def test_promtool_takes_the_rules() -> None:
    assert promtool("check", "rules", RULES) == ""


@pytest.mark.prometheus
def test_every_alert_fires_when_it_should_and_only_then() -> None:
    assert promtool("test", "rules", *UNIT_TESTS) == ""
