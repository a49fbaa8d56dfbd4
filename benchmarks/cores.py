"""Jobs a second of tasks that keep a processor busy (`executor="process"`): with one slot, and with one for each core."""

import os
import time

from benchmarks import tasks
from benchmarks.row import Row
from benchmarks.setting import Setting, until

SECONDS = 6.0  # about, of jobs for one core
RUNS = 3
LOOK_S = 0.02
SHARE = 0.75  # of a core, at least, that each further one must bring


async def run(place: Setting, runs: int = RUNS) -> list[Row]:
    """The two in turn, so that what else the machine does meets both."""
    cores = os.cpu_count() or 1
    rates: dict[int, list[float]] = {1: [], cores: []}
    for _ in range(runs):
        for slots in rates:
            rates[slots].append(await _rate(place, slots))
    rows = [Row("cores", f"process tasks, {slots} at a time", "jobs/s", of_slots) for slots, of_slots in rates.items()]
    if cores > 1:
        times = [many / one for one, many in zip(rates[1], rates[cores], strict=True)]
        rows.append(Row("cores", f"how many times as many, {cores} cores", "times", times, 1 + SHARE * (cores - 1)))
    return rows


async def _rate(place: Setting, slots: int) -> float:
    """From the end of the first jobs, when the processes are started, to the last."""
    before = place.metric("mqueue_ack_total")
    jobs = int(SECONDS / tasks.CRUNCH_S)
    await place.client.enqueue_many([tasks.crunch.message() for _ in range(jobs)])
    with place.worker(slots):
        until(lambda: place.metric("mqueue_ack_total") >= before + 2 * slots, "the first jobs", LOOK_S)
        first, began = place.metric("mqueue_ack_total"), time.perf_counter()
        until(lambda: place.metric("mqueue_ack_total") >= before + jobs, "the last job", LOOK_S)
        return (before + jobs - first) / (time.perf_counter() - began)
