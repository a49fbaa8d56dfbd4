"""The files of contrib/prometheus and contrib/grafana, as far as no broker is needed:
`tests/end_to_end/documented/test_dashboards.py` holds their metrics to a real one.
"""

import itertools
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from mqueue.broker.config import Settings
from tests import ROOT

PROMETHEUS = ROOT / "contrib" / "prometheus"
RULES = {rule["alert"]: rule for group in yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())["groups"] for rule in group["rules"]}
DASHBOARD = json.loads((ROOT / "contrib/grafana/mqueue.json").read_text())
PODS = {
    each["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/name"]: each["spec"]["template"]["spec"]["containers"][0]
    for name in ("broker.yaml", "worker.yaml")
    for each in yaml.safe_load_all((ROOT / "contrib/kubernetes" / name).read_text())
    if "template" in each["spec"]
}
promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is missing")

# An alert, series (from minute 0, one value a minute), the minute at which it is looked at, and the labels of those
# that fire.
Case = tuple[str, dict[str, str], int, list[dict[str, str]]]
A, B = 'instance="a", shard="0"', 'instance="b", shard="0"'
CASES: list[Case] = [
    ("MQueueBrokerDown", {'up{job="mqueue-broker", instance="a"}': "1x3 0x9"}, 8, [{"job": "mqueue-broker", "instance": "a"}]),
    ("MQueueBrokerDown", {'up{job="other", instance="a"}': "0x9"}, 8, []),
    ("MQueueNoBroker", {'up{job="mqueue-broker", instance="a"}': "0x9"}, 5, [{}]),
    ("MQueueNoBroker", {'up{job="mqueue-broker", instance="a"}': "0x9", 'up{job="mqueue-broker", instance="b"}': "1x9"}, 5, []),
    ("MQueueShardNotServing", {f"mqueue_shard_health{{{A}}}": "1x3 0x9"}, 8, [{"instance": "a", "shard": "0"}]),
    ("MQueueShardNotServing", {f"mqueue_shard_health{{{A}}}": "1x3 0 1x9"}, 4, []),
    ("MQueueNoLeader", {f"mqueue_leader{{{A}}}": "1x3 0x9", f"mqueue_leader{{{B}}}": "0x12"}, 8, [{"shard": "0"}]),
    ("MQueueNoLeader", {f"mqueue_leader{{{A}}}": "1x3 0x9", f"mqueue_leader{{{B}}}": "0x3 1x9"}, 8, []),
    ("MQueueRedisAway", {f"mqueue_cold{{{A}}}": "0 1x9", f"mqueue_cold{{{B}}}": "0x9"}, 8, [{"shard": "0"}]),
    (
        "MQueueRedisMisconfigured",
        {f"mqueue_redis_misconfigured{{{A}}}": "0 1x9", f"mqueue_redis_misconfigured{{{B}}}": "0x9"},
        5,
        [{"shard": "0"}],
    ),
    ("MQueueRedisMisconfigured", {f"mqueue_redis_misconfigured{{{A}}}": "0 1 1 0x9"}, 8, []),
    ("MQueuePostgresFails", {f"mqueue_circuit_open{{{A}}}": "0x9 1 0 1 1 0 1 1 1 0 1"}, 19, [{"shard": "0"}]),
    ("MQueuePostgresFails", {f"mqueue_circuit_open{{{A}}}": "0x9 1 0x9"}, 12, []),
    ("MQueueBufferFillsUp", {f"mqueue_buffer_bytes{{{A}}}": "60000000x9"}, 5, [{"shard": "0"}]),
    ("MQueueBufferFillsUp", {f"mqueue_buffer_bytes{{{A}}}": "50000000x9"}, 5, []),
    ("MQueueLogFillsUp", {f"mqueue_wal_bytes{{{A}}}": "3e9x9", 'mqueue_wal_bytes{instance="a", shard="1"}': "3e9x9"}, 8, [{"instance": "a"}]),
    (
        "MQueueLogIsSlow",
        {f'mqueue_wal_commit_seconds_bucket{{{A}, le="{le}"}}': f"0+{step}x30" for le, step in (("0.2", 50), ("0.5", 100), ("+Inf", 100))},
        20,
        [{"instance": "a"}],
    ),
    ("MQueueEpochsClose", {f"mqueue_epoch{{{A}}}": "5+1x9"}, 9, [{"shard": "0"}]),
    ("MQueueEpochsClose", {f"mqueue_epoch{{{A}}}": "5 6 6 7x9"}, 9, []),
    (
        "MQueueErrors",
        {
            'mqueue_http_requests_total{route="/enqueue", status="503"}': "0+10x20",
            'mqueue_http_requests_total{route="/enqueue", status="200"}': "0+90x20",
        },
        15,
        [{"route": "/enqueue"}],
    ),
    ("MQueueErrors", {'mqueue_http_requests_total{route="/enqueue", status="404"}': "0+10x20"}, 15, []),
    ("MQueueLedgerDrift", {f"mqueue_ledger_drift{{{A}}}": "2x20", f"mqueue_leader{{{A}}}": "1x20"}, 15, [{"instance": "a", "shard": "0"}]),
    ("MQueueLedgerDrift", {f"mqueue_ledger_drift{{{A}}}": "2x20", f"mqueue_leader{{{A}}}": "0x20"}, 15, []),
    ("MQueueRefusedRows", {f"mqueue_flush_refused_rows_total{{{A}}}": "0x5 3x20"}, 15, [{"instance": "a", "shard": "0"}]),
    ("MQueueStrays", {f"mqueue_reconciler_strays_total{{{A}}}": "0x5 3x20"}, 15, [{"instance": "a", "shard": "0"}]),
    ("MQueueClockAhead", {f"mqueue_clock_ahead_seconds{{{A}}}": "90x20", f"mqueue_clock_ahead_seconds{{{B}}}": "0x20"}, 15, [{"shard": "0"}]),
    (
        "MQueueClockOff",
        {f"mqueue_clock_off_seconds{{{A}}}": "-3600x20", f"mqueue_clock_off_seconds{{{B}}}": "0x20"},
        15,
        [{"instance": "a", "shard": "0"}],
    ),
    ("MQueueDeadLetters", {'mqueue_dead_total{instance="a", namespace="n"}': "5x10 6x30"}, 12, [{"namespace": "n"}]),
    ("MQueueDeadLetters", {'mqueue_dead_total{instance="a", namespace="n"}': "_x10 1x30"}, 12, [{"namespace": "n"}]),
    ("MQueueDeadLetters", {'mqueue_dead_total{instance="a", namespace="n"}': "_x10 1x60"}, 40, []),
    ("MQueueNobodyFetches", {f"mqueue_ready_queue_depth{{{A}}}": "7x30", f"mqueue_leader{{{A}}}": "1x30"}, 20, [{}]),
    (
        "MQueueNobodyFetches",
        {
            f"mqueue_ready_queue_depth{{{A}}}": "7x30",
            f"mqueue_leader{{{A}}}": "1x30",
            'mqueue_dequeue_total{instance="b", namespace="n"}': "0+1x30",
        },
        20,
        [],
    ),
    ("MQueueNobodyFetches", {f"mqueue_ready_queue_depth{{{A}}}": "7x30", f"mqueue_leader{{{A}}}": "0x30"}, 20, []),
    ("MQueueDelayedComeLate", {f"mqueue_clock_lag_seconds{{{A}}}": "90x20", f"mqueue_leader{{{A}}}": "1x20"}, 15, [{"shard": "0"}]),
    ("MQueueWorkerNotReady", {'mqueue_worker_ready{instance="w"}': "0x20"}, 15, [{"instance": "w"}]),
    ("MQueueWorkersAreBusy", {'mqueue_worker_running{instance="w"}': "20x60", 'mqueue_worker_slots{instance="w"}': "20x60"}, 50, [{}]),
    ("MQueueWorkersAreBusy", {'mqueue_worker_running{instance="w"}': "19x60", 'mqueue_worker_slots{instance="w"}': "20x60"}, 50, []),
    (
        "MQueueJobsFail",
        {f'mqueue_worker_jobs_total{{outcome="{outcome}"}}': f"0+{step}x60" for outcome, step in (("ack", 70), ("nack", 20), ("bury", 10))},
        50,
        [{}],
    ),
]  # fmt: skip


def test_every_alert_says_what_to_do() -> None:
    assert len(RULES) >= 20
    for name, rule in RULES.items():
        assert rule["labels"]["severity"] in {"page", "ticket"}, name
        assert rule["annotations"].keys() == {"summary", "description"}, name


def test_alerts_name_labels_that_they_have() -> None:
    for name, _, _, fires in CASES:
        named = set(re.findall(r"\$labels\.(\w+)", json.dumps(RULES[name]["annotations"])))
        assert all(named <= labels.keys() for labels in fires), name


def test_limits_that_follow_from_settings_do() -> None:
    assert f"0.8 * {Settings().buffer_max_mb} * 1024 * 1024" in RULES["MQueueBufferFillsUp"]["expr"]
    volumes = re.findall(r"requests: \{storage: (\d+)Gi\}", (ROOT / "contrib/kubernetes/broker.yaml").read_text())
    [limit] = re.findall(r"> (\d+) \* 1024 \* 1024 \* 1024", RULES["MQueueLogFillsUp"]["expr"])
    assert [2 * int(limit)] == [int(volume) for volume in volumes]


def test_every_alert_has_a_case_in_which_it_fires() -> None:
    assert {name for name, _, _, fires in CASES if fires} == set(RULES)


@promtool
def test_promtool_takes_the_files() -> None:
    """Not that for Kubernetes: Debian's promtool has no discovery there."""
    for words in (["rules", "alerts.yml"], ["config", "prometheus.yml"]):
        done = subprocess.run(["promtool", "check", *words], cwd=PROMETHEUS, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


@promtool
@pytest.mark.parametrize("number", range(len(CASES)), ids=[f"{name}-{'fires' if fires else 'silent'}" for name, _, _, fires in CASES])
def test_alerts_fire_when_they_should(tmp_path: Path, number: int) -> None:
    name, series, at, fires = CASES[number]
    expected = [{"exp_labels": {**RULES[name]["labels"], **labels}} for labels in fires]
    test = {
        "interval": "1m",
        "input_series": [{"series": key, "values": values} for key, values in series.items()],
        "alert_rule_test": [{"eval_time": f"{at}m", "alertname": name, "exp_alerts": expected}],
    }
    bare = [{**rule, "annotations": {}} for rule in RULES.values()]
    (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": [{"name": "all", "rules": bare}]}))
    (tmp_path / "test.yml").write_text(yaml.safe_dump({"rule_files": ["rules.yml"], "evaluation_interval": "1m", "tests": [test]}))
    done = subprocess.run(["promtool", "test", "rules", "test.yml"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_is_scraped_are_the_ports_there_are() -> None:
    config = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    ports = {each["job_name"]: each["static_configs"][0]["targets"][0].rpartition(":")[2] for each in config["scrape_configs"]}
    worker = (ROOT / "contrib/systemd/mqueue-worker.env.example").read_text()
    assert ports == {"mqueue-broker": str(Settings().metrics_port), "mqueue-worker": re.findall(r"--probe-port (\d+)", worker)[0]}


def test_in_kubernetes_pods_are_found_by_what_they_are_called() -> None:
    config = yaml.safe_load((PROMETHEUS / "prometheus-kubernetes.yml").read_text())
    for job in config["scrape_configs"]:
        pod, port = job["relabel_configs"][0]["regex"].split(";")
        assert (pod, job["kubernetes_sd_configs"][0]["namespaces"]) == (job["job_name"], {"names": ["mqueue"]})
        assert port in {each["name"] for each in PODS[pod]["ports"]}


def test_the_dashboard_is_one_that_grafana_takes() -> None:
    panels = DASHBOARD["panels"]
    assert len({each["id"] for each in panels}) == len(panels)
    assert DASHBOARD["uid"] == "mqueue"
    variables = {each["name"] for each in DASHBOARD["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(panels)))
    assert used == variables | {"__rate_interval"}
    for panel in panels:
        assert panel["type"] in {"row", "stat", "timeseries"}
        assert panel["type"] == "row" or [each["refId"] for each in panel["targets"]] == list("ABCDEF"[: len(panel["targets"])])


def test_no_panel_covers_another() -> None:
    taken: dict[tuple[int, int], str] = {}
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        for at in itertools.product(range(place["x"], place["x"] + place["w"]), range(place["y"], place["y"] + place["h"])):
            assert taken.setdefault(at, panel["title"]) == panel["title"]


def expressions(panel: dict[str, Any]) -> list[str]:
    return [each["expr"] for each in panel.get("targets", [])]


@promtool
def test_promtool_takes_the_dashboards_expressions(tmp_path: Path) -> None:
    queries = [query.replace("$__rate_interval", "5m") for panel in DASHBOARD["panels"] for query in expressions(panel)]
    rules = [{"record": f"query:{number}", "expr": query} for number, query in enumerate(queries)]
    (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    done = subprocess.run(["promtool", "check", "rules", "rules.yml"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
