"""Every metric, and every label, that the alerts and the dashboard of contrib/ name is one that a real broker or a real
worker shows.
"""

import json
import re
import urllib.request
from collections import defaultdict
from collections.abc import Iterator, Mapping

import pytest
import yaml

from mqueue.client import Client
from tests import ROOT
from tests.processes.broker import Broker, free_ports
from tests.processes.place import Place
from tests.waiting import wait_until

PROMETHEUS = {"up": {"job", "instance"}}  # Prometheus' own
SCRAPED = {"job", "instance"}  # added to each
GROUPS = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)")
OPERATORS = {"and", "or", "unless", "bool", "offset"}
TASKS = """
from mqueue import task


@task(topic="jobs", name="job")
def job() -> None: ...
"""


def metrics_of(query: str) -> set[str]:
    """A name that is no function, no operator, and stands in no string, selector, range or list of labels."""
    rest = GROUPS.sub(" ", re.sub(r"\{[^}]*\}|\[[^\]]*\]", " ", re.sub(r'"[^"]*"', "", query)))
    return set(re.findall(r"\b[a-zA-Z_:][\w:]*\b(?!\s*\()", rest)) - OPERATORS


def labels_of(query: str) -> set[str]:
    in_selectors = [label for part in re.findall(r"\{([^}]*)\}", re.sub(r'"[^"]*"', "", query)) for label in re.findall(r"(\w+)\s*[=!]", part)]
    return {*in_selectors, *(label.strip() for part in GROUPS.findall(query) for label in part.split(",") if label.strip())}


@pytest.mark.parametrize(
    ("query", "metrics", "labels"),
    [
        ("a_total", {"a_total"}, set()),
        ('sum by (x, y) (rate(a_total{z=~"b|c{2}", w!="d"}[5m])) > 0.5 * 1024', {"a_total"}, {"x", "y", "z", "w"}),
        ("max(a) and on (shard) b == 1", {"a", "b"}, {"shard"}),
        ("a unless a offset 15m > 1e9", {"a"}, set()),
        ("histogram_quantile(0.9, sum by(le)(rate(a_bucket[$__rate_interval]))) or vector(0)", {"a_bucket"}, {"le"}),
    ],
)
def test_names_in_a_query(query: str, metrics: set[str], labels: set[str]) -> None:
    assert (metrics_of(query), labels_of(query)) == (metrics, labels)


def queries() -> Iterator[tuple[str, str, str]]:
    """Where it stands, the query, and the text that goes with its result."""
    for group in yaml.safe_load((ROOT / "contrib/prometheus/alerts.yml").read_text())["groups"]:
        for rule in group["rules"]:
            yield rule["alert"], rule["expr"], ""
    dashboard = json.loads((ROOT / "contrib/grafana/mqueue.json").read_text())
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"], target["legendFormat"]
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            metric, label = re.findall(r"label_values\((\w+), (\w+)\)", variable["definition"])[0]
            yield variable["name"], metric, f"{{{{{label}}}}}"


def shown(url: str) -> dict[str, set[str]]:
    """The metrics of a page, each with the labels it has."""
    with urllib.request.urlopen(url, timeout=10) as reply:
        text = reply.read().decode()
    found: dict[str, set[str]] = defaultdict(set)
    for name, labels in re.findall(r"^([a-zA-Z_:][\w:]*)(?:\{([^}]*)\})? ", text, re.MULTILINE):
        found[name] |= set(re.findall(r'(\w+)="', labels))
    return found


@pytest.fixture(scope="module")
def metrics(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, set[str]]:
    """Of a broker where a little of everything has happened, and of a worker."""
    [port] = free_ports(1)
    with Broker() as broker, Client(broker.url, broker.token) as client:
        kept, *_ = client.enqueue("calls", b"x", max_retries=0), client.enqueue("calls", b"x", max_retries=0)
        client.cancel(kept)
        client.nack(client.fetch("calls"), error="no")
        place = Place(tmp_path_factory.mktemp("place"), broker, TASKS)
        place.python("import e2e_tasks; e2e_tasks.job.enqueue()")
        worker = place.worker("--probe-host", "127.0.0.1", "--probe-port", str(port))
        try:
            wait_until(lambda: broker.metric("mqueue_ack_total") == 1, "the worker has run its job", 30)
            wait_until(lambda: broker.metric("mqueue_flush_seconds_count") > 0, "a flush", 10)
            return {**shown(broker.metrics_url), **shown(f"http://127.0.0.1:{port}/metrics"), **PROMETHEUS}
        finally:
            worker.terminate()
            assert worker.wait(40) == 0


def test_every_metric_and_label_is_there(metrics: Mapping[str, set[str]]) -> None:
    asked = list(queries())
    assert len(asked) > 60
    for where, query, text in asked:
        names = metrics_of(query)
        assert names, (where, query)
        assert names <= metrics.keys(), (where, names - metrics.keys())
        there = SCRAPED.union(*(metrics[name] for name in names))
        named = labels_of(query) | set(re.findall(r"\{\{(\w+)\}\}", text))
        assert named <= there, (where, query, named - there)


def test_the_dashboard_shows_all_that_a_broker_tells(metrics: Mapping[str, set[str]]) -> None:
    """Each family of ours is looked at somewhere, but for two: how much a refill reads says more than how many there
    are.
    """
    asked = set().union(*(metrics_of(query) for _, query, _ in queries()))
    families = {re.sub(r"_(bucket|sum|count|created)$", "", name) for name in metrics if name.startswith("mqueue_")}
    unused = {family for family in families if not any(name.startswith(family) for name in asked)}
    assert unused <= {"mqueue_mirrored_leases", "mqueue_refill_total"}, unused
