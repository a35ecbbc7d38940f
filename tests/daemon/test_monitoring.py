from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from itertools import chain
from typing import TYPE_CHECKING, Any

import click
import pytest
import yaml
from celery.bin.celery import celery as celery_command
from flower.events import get_prometheus_metrics
from prometheus_client import REGISTRY
from servers import ROOT

from chat.__main__ import chat as chat_command
from tasks.metrics import NAMES

if TYPE_CHECKING:
    from pathlib import Path

PROMETHEUS = ROOT / "deploy" / "prometheus"
UNITS = ROOT / "deploy" / "systemd"

[GROUP] = yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())["groups"]
ALERTS: dict[str, Any] = {rule["alert"]: rule for rule in GROUP["rules"]}
CASES = yaml.safe_load((PROMETHEUS / "alerts_test.yml").read_text())["tests"]
CHECKS = [check for case in CASES for check in case.get("alert_rule_test", [])]
CONFIG = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
DASHBOARD = json.loads((ROOT / "deploy" / "grafana" / "pollchat.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
QUERIES = [target["expr"] for panel in PANELS for target in panel["targets"]]

# What PromQL has around the names of metrics: strings, label matchers, ranges, lists of labels, functions, words.
NO_METRIC = re.compile(
    r'"[^"]*"|\{[^}]*\}|\[[^\]]*\]'
    r"|\b(\w+ )?(by|without) *\([^)]*\)"
    r"|\b(on|ignoring|group_left|group_right) *\([^)]*\)"
    r"|\w+(?= *\()"
    r"|\b(and|or|unless|bool)\b"
)

per_alert = pytest.mark.parametrize("alert", ALERTS)
promtool = pytest.mark.skipif(not shutil.which("promtool"), reason="promtool is not installed")


def metrics_in(query: str) -> set[str]:
    return set(re.findall(r"\b[A-Za-z_:][\w:]*", NO_METRIC.sub(" ", query)))


@pytest.fixture(scope="module")
def exposed() -> set[str]:
    """Every name on Flower's page, with what Prometheus itself adds."""
    get_prometheus_metrics()  # makes Flower's, as its start does; made once in a process
    others = {name for name in REGISTRY._names_to_collectors if not name.startswith("chat_")}
    return {*NAMES, *others, "up", "ALERTS"}


def test_metrics_are_found_in_a_query() -> None:
    query = 'a_b{c="d"} > 2 * rate(e_f[5m]) unless on (g) (sum by (h) (i_j)) and k == 1'
    assert metrics_in(query) == {"a_b", "e_f", "i_j", "k"}


@pytest.mark.parametrize("query", [*(rule["expr"] for rule in ALERTS.values()), *QUERIES])
def test_a_query_asks_for_metrics_that_exist(query: str, exposed: set[str]) -> None:
    assert metrics_in(query)
    assert metrics_in(query) <= exposed


def test_the_dashboard_shows_every_metric_of_the_chat() -> None:
    assert set(NAMES) <= set(chain.from_iterable(map(metrics_in, QUERIES)))


@per_alert
def test_an_alert_says_how_bad_it_is_and_what_is_the_matter(alert: str) -> None:
    rule = ALERTS[alert]
    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert rule["annotations"].keys() == {"summary", "description"}
    assert all(rule["annotations"].values())


@per_alert
def test_an_alert_names_commands_that_exist(alert: str) -> None:
    commands = re.findall(r"`([^`]+)`", ALERTS[alert]["annotations"]["description"])
    assert commands
    for command in commands:
        confirm(*shlex.split(command))


def confirm(program: str, *words: str) -> None:
    """Fail if the command line would: nothing is run."""
    match program, words:
        case ("chat", (*rest,)) | ("celery", ("-A", "pollchat.tasks", *rest)):
            command: click.Command = chat_command if program == "chat" else celery_command
            while isinstance(command, click.Group) and rest:
                command = command.commands[rest.pop(0)]
            assert not isinstance(command, click.Group)
            command.make_context(command.name, rest)
        case ("systemctl", ("restart", unit)) | ("journalctl", ("-u", unit)):
            assert (UNITS / f"{unit}.service").exists()
        case _:
            pytest.fail(f"unknown: {program} {shlex.join(words)}")


@pytest.mark.parametrize(
    "command",
    [
        "chat nosuch",
        "chat stats",
        "chat channels --nosuch",
        "celery -A pollchat.tasks stats --nosuch",
        "celery -A pollchat.tasks clean al --now",
        "celery -A pollchat.tasks clean all --nosuch",
        "systemctl restart nosuch",
        "rm -r x",
    ],
)
def test_a_command_that_does_not_exist_is_noticed(command: str) -> None:
    with pytest.raises((SystemExit, KeyError, click.UsageError, AssertionError, pytest.fail.Exception)):
        confirm(*shlex.split(command))


@per_alert
@pytest.mark.parametrize("fires", [True, False])
def test_an_alert_is_tested_to_fire_and_to_keep_still(alert: str, *, fires: bool) -> None:
    assert [check for check in CHECKS if check["alertname"] == alert and bool(check.get("exp_alerts")) == fires]


def test_the_tests_are_of_alerts_that_exist() -> None:
    assert {check["alertname"] for check in CHECKS} == ALERTS.keys()


def test_the_scrape_job_is_the_one_that_the_alerts_ask_for() -> None:
    assert [job["job_name"] for job in CONFIG["scrape_configs"]] == ["pollchat"]
    asked = set(re.findall(r'job="([^"]*)"', json.dumps(list(ALERTS.values())).replace('\\"', '"')))
    assert asked == {"pollchat"}


@promtool
@pytest.mark.parametrize(
    "check", ["check config prometheus.yml", "check rules alerts.yml", "test rules alerts_test.yml"]
)
def test_promtool_agrees(check: str) -> None:
    ask_promtool(*check.split())


@promtool
def test_promtool_understands_the_queries_of_the_dashboard(tmp_path: Path) -> None:
    rules = [
        {"record": f"query:{number}", "expr": query.replace("$__rate_interval", "1m")}
        for number, query in enumerate(QUERIES)
    ]
    (tmp_path / "queries.yml").write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}))
    ask_promtool("check", "rules", str(tmp_path / "queries.yml"))


def ask_promtool(*words: str) -> None:
    result = subprocess.run(["promtool", *words], cwd=PROMETHEUS, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_a_panel_says_what_it_shows(panel: dict[str, Any]) -> None:
    assert panel["title"]
    assert panel["description"] or panel["fieldConfig"]["defaults"]["unit"]
    assert panel["targets"]
    assert all(target["expr"] for target in panel["targets"])


def test_the_dashboard_can_be_imported_anywhere() -> None:
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))
    variables = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    text = json.dumps(DASHBOARD)
    used = set(re.findall(r"\$\{?(\w+)", text)) - {"__rate_interval"}  # that one is Grafana's
    assert used == variables
    sources = set(re.findall(r'"uid": "([^"]*)"', text)) - {DASHBOARD["uid"]}
    assert sources == {"${DS_PROMETHEUS}"}


@pytest.mark.parametrize(
    "place",
    [
        "deploy/README.md",
        "deploy/systemd/pollchat-flower.service",
        "deploy/compose.yaml",
        "deploy/kubernetes/flower.yaml",
    ],
)
@pytest.mark.parametrize(
    "option", ["--purge_offline_workers=60", "--tasks_columns=name,state,kwargs,result,received,runtime,worker"]
)
def test_flower_is_started_with_the_same_options_everywhere(place: str, option: str) -> None:
    assert re.search(rf"{re.escape(option)}(?![\w,])", (ROOT / place).read_text())
