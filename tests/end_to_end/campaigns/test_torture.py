"""The short form of `mqueue torture`; the long one stands in docs/reliability.md."""

import subprocess
import sys

import pytest

from tests.processes.broker import Broker

FAULTS = {
    "of servers and links": ("leader-kill", "broker-stop", "redis-flush", "redis-and-broker", "postgres-kill", "redis-cut", "worker-kill"),
    "of stores that answer": ("redis-full", "redis-readonly", "postgres-forgets", "postgres-refuses", "many-topics"),
}


@pytest.mark.parametrize("faults", FAULTS.values(), ids=FAULTS)
def test_nothing_is_lost_doubled_or_out_of_order_under_faults(faults: tuple[str, ...]) -> None:
    command = [sys.executable, "-m", "mqueue.cli", "torture", "--minutes", "0.6", "--seed", "11", "--faults", ",".join(faults)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, env=Broker.environment({}), check=False)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    assert all(f"| {fault} |" in done.stdout for fault in faults)


def test_a_fault_nobody_knows_is_refused() -> None:
    command = [sys.executable, "-m", "mqueue.cli", "torture", "--faults", "meteor"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=Broker.environment({}), check=False)
    assert done.returncode == 2
    assert "no such fault: meteor" in done.stderr
