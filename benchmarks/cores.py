"""This benchmark counts jobs a second of tasks that keep a processor busy (`executor="process"`), with one slot and
with one slot for each core.

How much a further core can bring depends on the machine (two may be threads of one core): bare processes that do the
same work show it.
"""

import os
import subprocess
import sys
import time

from benchmarks import tasks
from benchmarks.row import Row
from benchmarks.setting import Setting, until

SECONDS = 6.0  # about, of jobs for one core
RUNS = 3
LOOK_S = 0.02
SHARE = 0.9  # of what bare processes gain by the further cores
BARE = "import sys, time; from benchmarks.tasks import CRUNCH_S, crunch; [crunch() for _ in range(round(float(sys.argv[1]) / CRUNCH_S))]"


async def run(place: Setting, runs: int = RUNS) -> list[Row]:
    """The measurements take turns, so that other work on the machine affects all of them alike."""
    cores = os.cpu_count() or 1
    rates: dict[int, list[float]] = {1: [], cores: []}
    bare: list[float] = []
    for _ in range(runs):
        for slots in rates:
            rates[slots].append(await _rate(place, slots))
        bare.append(_bare_s(1) * cores / _bare_s(cores))
    rows = [Row("cores", f"process tasks, {slots} at a time", "jobs/s", of_slots) for slots, of_slots in rates.items()]
    if cores > 1:
        times = [many / one for one, many in zip(rates[1], rates[cores], strict=True)]
        rows.append(Row("cores", f"bare processes: how many times as many on {cores} cores", "times", bare))
        rows.append(Row("cores", "process tasks: how many times as many", "times", times, SHARE * sorted(bare)[len(bare) // 2]))
    return rows


def _bare_s(processes: int) -> float:
    """Returns the seconds in which so many processes, side by side, do the same work each."""
    command = [sys.executable, "-c", BARE, str(SECONDS / 2)]
    began = time.perf_counter()
    for process in [subprocess.Popen(command) for _ in range(processes)]:
        if process.wait():
            raise RuntimeError(f"a bare process ended with {process.returncode}")
    return time.perf_counter() - began


async def _rate(place: Setting, slots: int) -> float:
    """Returns jobs a second, from the end of the first jobs, when the processes are started, to that of the last."""
    before = place.metric("mqueue_ack_total")
    jobs = int(SECONDS / tasks.CRUNCH_S)
    await place.client.enqueue_many([tasks.crunch.message() for _ in range(jobs)])
    with place.worker(slots):
        until(lambda: place.metric("mqueue_ack_total") >= before + 2 * slots, "the first jobs", LOOK_S)
        first, began = place.metric("mqueue_ack_total"), time.perf_counter()
        until(lambda: place.metric("mqueue_ack_total") >= before + jobs, "the last job", LOOK_S)
        return (before + jobs - first) / (time.perf_counter() - began)
