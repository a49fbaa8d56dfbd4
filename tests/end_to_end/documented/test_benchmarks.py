"""The comparison runs, for the shortest time: mqueue and one peer that needs no package of its own. `mqueue bench`
leaves nothing behind, whatever ends it.
"""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.comparison.results import MEASURES
from mqueue import bench
from mqueue.client import Client
from tests import ROOT
from tests.processes.broker import Broker
from tests.waiting import wait_until


@pytest.mark.slow
def test_a_short_comparison(tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    options = ["--only", "mqueue,skip-locked", "--seconds", "0.2", "--rounds", "1", "--out", str(file)]
    command = [sys.executable, "-m", "benchmarks", "peers", *options]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    kept = json.loads(file.read_text())
    assert [system["name"] for system in kept["systems"]] == ["mqueue, async client", "bare PostgreSQL, SKIP LOCKED"]
    for system in kept["systems"]:
        assert system["failures"] == [] and system["runs"].keys() == {measure.key for measure in MEASURES}
        assert all(len(runs) == 1 and runs[0] > 0 for runs in system["runs"].values())
    assert "| mqueue, async client |" in done.stdout and "2 of 2" in done.stderr


def heed() -> None:
    """What runs in the background of a script is deaf to SIGINT."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_bench_that_is_interrupted_leaves_an_empty_topic(broker: Broker, number: signal.Signals) -> None:
    environment = Broker.environment({"MQUEUE_URL": broker.url, "MQUEUE_TOKEN": broker.token})
    before = broker.metric("mqueue_enqueue_total")
    command = [sys.executable, "-m", "mqueue.cli", "bench", "--seconds", "60"]
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, preexec_fn=heed)
    try:
        wait_until(lambda: broker.metric("mqueue_enqueue_total") > before + 10, "it enqueues", 60)
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 1 and b"Aborted!" in said
    with Client(broker.url, broker.token) as client:
        [topic] = [topic for topic in client.topics() if topic.topic == bench.TOPIC]
    assert (topic.ready, topic.leased, topic.waiting, topic.delayed, topic.dead) == (0, 0, 0, 0, 0)
