"""What compose/monitoring asks for is what is exported, at the thresholds of the settings."""

from __future__ import annotations

import ast
import json
import re
from typing import Any

import pytest
import yaml

from tests.processes import ROOT
from ww_core.config import ALERTS, Settings
from ww_core.observability.changes import QUIET_SECONDS
from ww_core.observability.metrics import WINDOW_SECONDS
from ww_core.observability.prometheus import PREFIX, TABLE, names

MONITORING = ROOT / "compose" / "monitoring"
METRIC_OF = {
    "recall_p95": "recall_latency_p95",
    "cache_hit_rate": "cache_hit_rate",
    "pool_utilization": "neo4j_pool_util",
    "error_rate": "error_rate",
}


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load((MONITORING / "rules.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def promtool_tests() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((MONITORING / "rules_test.yml").read_text())
    return found


def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((MONITORING / "grafana" / "dashboards" / "world-weaver.json").read_text())
    return found


def queries() -> list[str]:
    panels = [target["expr"] for panel in dashboard()["panels"] for target in panel.get("targets", [])]
    return [rule["expr"] for rule in rules()] + panels


def test_every_name_that_is_asked_for_is_exported() -> None:
    for query in queries():
        asked = set(re.findall(rf"{PREFIX}\w+", query))
        assert asked or query.startswith("sum(up")
        assert asked <= names(), query
        assert query.count("(") == query.count(")")


def test_every_label_that_is_asked_for_is_the_one_exported() -> None:
    labels = {PREFIX + family.name: family.label for family in TABLE} | {PREFIX + "queue_length": "queue"}
    for query in queries():
        for name, label in re.findall(rf"({PREFIX}\w+)\{{(\w+)", query):
            assert labels[name] == label, query
        for label in re.findall(r"by \((\w+)\)", query):
            (name,) = set(re.findall(rf"{PREFIX}\w+", query))
            assert labels[name] == label, query


def test_every_stage_and_counter_that_is_asked_for_is_measured_somewhere() -> None:
    measured: set[str] = set()
    for path in (ROOT / "ww_core").rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        measured |= {n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str)}
    for query in queries():
        for name in re.findall(r'(?:stage|counter)="([^"]+)"', query):
            assert name in measured, query
        for pattern in re.findall(r'stage=~"([^"]+)"', query):
            prefixes = {m for m in measured if re.fullmatch(r"[a-z_]+\.[a-z_.]*", m)}
            assert any(re.fullmatch(pattern, m) for m in prefixes), query


@pytest.mark.parametrize("name", ALERTS)
@pytest.mark.parametrize("severity", ["warning", "critical"])
def test_the_rules_have_the_thresholds_of_the_settings(name: str, severity: str) -> None:
    defaults = Settings.model_fields
    sign = "<" if ALERTS[name] else ">"
    limit = f"max({PREFIX}{METRIC_OF[name]}) {sign} {defaults[f'alert_{name}_{severity}'].default:g}"
    (rule,) = [
        r for r in rules() if r["labels"]["severity"] == severity and r["expr"].split(" and ")[0].strip() == limit
    ]
    assert rule["expr"].rstrip().endswith(f">= {defaults['alert_min_samples'].default}")


def test_no_rule_flaps_and_each_is_over_when_a_webhook_hears_so() -> None:
    assert QUIET_SECONDS == WINDOW_SECONDS
    for rule in rules():
        assert rule["keep_firing_for"] == f"{WINDOW_SECONDS / 60:g}m", rule["alert"]


@pytest.mark.parametrize("name", ALERTS)
def test_panels_and_messages_show_the_thresholds_of_the_settings(name: str) -> None:
    limits = {level: Settings.model_fields[f"alert_{name}_{level}"].default for level in ("warning", "critical")}
    (panel,) = [
        panel
        for panel in dashboard()["panels"]
        if panel["type"] == "stat" and panel["targets"][0]["expr"] == f"max({PREFIX}{METRIC_OF[name]})"
    ]
    steps = {step["color"]: step["value"] for step in panel["fieldConfig"]["defaults"]["thresholds"]["steps"]}
    # a colour begins at its step: what is low and bad turns orange above the critical limit
    begins = {"orange": "critical", "green": "warning"} if ALERTS[name] else {"orange": "warning", "red": "critical"}
    assert {color: steps[color] for color in begins} == {color: limits[level] for color, level in begins.items()}
    for level, limit in limits.items():
        shown = f"{limit:g}" if name == "recall_p95" else f"{limit:.0%}"
        said = f"{'below' if ALERTS[name] else 'above'} {shown}"
        assert said in panel["description"]
        (rule,) = [r for r in rules() if METRIC_OF[name] in r["expr"] and r["labels"]["severity"] == level]
        assert f"({said})" in rule["annotations"]["summary"]


def test_panels_answer_an_operators_questions_in_their_order() -> None:
    rows = [panel["title"] for panel in dashboard()["panels"] if panel["type"] == "row"]
    assert rows == [
        "Is anything lost, stuck, slow or failing?",
        "How slow is recall, and storing?",
        "What fails?",
        "Is the backlog moving?",
        "What does consolidation find?",
        "What do stores and workers do?",
    ]
    places = [tuple(panel["gridPos"][key] for key in "xy") for panel in dashboard()["panels"]]
    assert len(set(places)) == len(places)
    assert places == sorted(places, key=lambda place: (place[1], place[0]))
    ids = [panel["id"] for panel in dashboard()["panels"]]
    assert len(set(ids)) == len(ids)


def test_a_single_figure_is_that_of_now_or_none() -> None:
    single = [panel for panel in dashboard()["panels"] if panel["type"] == "stat"]
    assert len(single) > 5
    for panel in single:
        assert panel["fieldConfig"]["defaults"]["noValue"]
        for target in panel["targets"]:
            assert (target["instant"], target["range"]) == (True, False), f"{panel['title']}: what was there hours ago"


def test_every_figure_of_consolidation_has_a_panel() -> None:
    figures = {family.name for family in TABLE if family.name.startswith(("cluster", "unclustered", "consolidation"))}
    assert len(figures) == 6
    assert {name for name in figures if not any(f"({PREFIX}{name})" in query for query in queries())} == set()


def test_workers_serve_where_prometheus_looks_and_the_dashboard_is_provisioned() -> None:
    compose = yaml.safe_load((ROOT / "compose" / "docker-compose.yml").read_text())
    services = compose["services"]
    scraped = yaml.safe_load((MONITORING / "prometheus.yml").read_text())["scrape_configs"][0]["static_configs"]
    for target in scraped[0]["targets"]:
        host, port = target.split(":")
        assert services[host]["environment"]["T4DM_METRICS_PORT"] == port
    for name in ("prometheus", "grafana"):
        assert services[name]["profiles"] == ["monitoring"]
        for volume in services[name]["volumes"]:
            source = volume.split(":")[0]
            assert source in compose["volumes"] or (ROOT / "compose" / source).exists()
    source = yaml.safe_load((MONITORING / "grafana/provisioning/datasources/prometheus.yml").read_text())
    assert source["datasources"][0]["uid"] == dashboard()["panels"][1]["datasource"]["uid"]


def test_promtools_tests_raise_every_alert_and_leave_it() -> None:
    cases = [case for test in promtool_tests()["tests"] for case in test["alert_rule_test"]]
    alerts = {rule["alert"] for rule in rules()}
    assert {case["alertname"] for case in cases if case["exp_alerts"]} == alerts
    assert {case["alertname"] for case in cases if not case["exp_alerts"]} == alerts
    by_name = {rule["alert"]: rule for rule in rules()}
    for case in cases:
        for raised in case["exp_alerts"]:
            assert raised["exp_labels"] == by_name[case["alertname"]]["labels"]
