"""This benchmark tells which process spends how much processor time on a message: on a lone enqueue, and on a job of a
queue that was flushed before one worker runs it.
"""

import time

import psutil

from benchmarks import tasks
from benchmarks.row import Row
from benchmarks.setting import Setting, until

RUNS = 3
LONE = 1_500
JOBS, BATCH = 20_000, 1_000
SETTLED_S = 6.0  # a broker that has just started does not trust the clock, and asks for it
LOOK_S = 0.2
STORES = {"valkey-server": "Redis", "postgres": "PostgreSQL"}


async def run(place: Setting, runs: int = RUNS) -> list[Row]:
    time.sleep(SETTLED_S)
    spent: dict[tuple[str, str], list[float]] = {}
    for _ in range(runs):
        for what, costs in (("a lone enqueue", await _enqueue(place)), ("a job of a drained queue", await _drain(place))):
            for process, us in costs.items():
                spent.setdefault((what, process), []).append(us)
    return [Row("processor", f"{what}: {process}", "µs", us, more_is_better=False) for (what, process), us in spent.items()]


async def _enqueue(place: Setting) -> dict[str, float]:
    """Returns µs a message by process, its flush included."""
    before = _used(place)
    for _ in range(LONE):
        await place.client.enqueue("lone", b"x" * 100)
    _flushed(place)
    return _since(before, _used(place), LONE)


async def _drain(place: Setting) -> dict[str, float]:
    for _ in range(JOBS // BATCH):
        await place.client.enqueue_many([tasks.nothing.message() for _ in range(BATCH)])
    _flushed(place)
    done = place.metric("mqueue_ack_total")
    with place.worker() as worker:
        until(lambda: place.metric("mqueue_ack_total") > done, "the first job", LOOK_S / 20)
        done, before = place.metric("mqueue_ack_total"), _used(place) | {"worker": _cpu_us(psutil.Process(worker.pid))}
        until(lambda: place.metric("mqueue_ack_total") >= done + JOBS * 0.9, "most jobs", LOOK_S)
        jobs = place.metric("mqueue_ack_total") - done
        costs = _since(before, _used(place) | {"worker": _cpu_us(psutil.Process(worker.pid))}, jobs)
    until(lambda: place.metric("mqueue_leased") == 0, "the last job", LOOK_S)
    _flushed(place)
    costs.pop("client")
    return costs


def _flushed(place: Setting) -> None:
    until(lambda: place.metric("mqueue_buffer_queue_depth") == 0, "all is flushed", LOOK_S)


def _since(before: dict[str, float], after: dict[str, float], many: float) -> dict[str, float]:
    return {process: max(0.0, us - before.get(process, 0.0)) / many for process, us in after.items()}


def _used(place: Setting) -> dict[str, float]:
    """Returns µs that each has used so far. What a backend of PostgreSQL used that has ended is missing."""
    used = {"client": _cpu_us(psutil.Process()), "broker": _cpu_us(psutil.Process(place.broker.pid)), "Redis": 0.0, "PostgreSQL": 0.0}
    for process in psutil.Process(place.broker.pid).children(recursive=True):
        try:
            if kind := STORES.get(process.name()):
                used[kind] += _cpu_us(process)
        except psutil.NoSuchProcess:
            continue
    return used


def _cpu_us(process: psutil.Process) -> float:
    times = process.cpu_times()
    return (times.user + times.system) * 1e6
