"""The short form of `mqueue torture`; the long one stands in docs/reliability.md."""

import subprocess
import sys

from tests.processes.broker import Broker

FAULTS = ("leader-kill", "broker-stop", "redis-flush", "redis-and-broker", "postgres-kill", "redis-cut", "worker-kill")


def test_nothing_is_lost_doubled_or_out_of_order_under_faults() -> None:
    command = [sys.executable, "-m", "mqueue.cli", "torture", "--minutes", "0.6", "--seed", "11", "--faults", ",".join(FAULTS)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=Broker.environment({}), check=False)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    assert all(f"| {fault} |" in done.stdout for fault in FAULTS)


def test_a_fault_nobody_knows_is_refused() -> None:
    command = [sys.executable, "-m", "mqueue.cli", "torture", "--faults", "meteor"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=Broker.environment({}), check=False)
    assert done.returncode == 2
    assert "no such fault: meteor" in done.stderr
