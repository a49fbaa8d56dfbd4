"""This benchmark counts enqueues a second of threads in one process that send one message a call: each with requests of
its own, and sharing them (`Client(batch=True)`).
"""

import asyncio
import threading
import time

from benchmarks.enqueue import AT_ONCE, PAYLOAD
from benchmarks.row import Row
from benchmarks.setting import Setting, until
from mqueue.client import Client

SECONDS = 2.0
RUNS = 5
TIMES = 5.0


async def run(place: Setting, runs: int = RUNS) -> list[Row]:
    """The two take turns, so that other work on the machine affects both alike."""
    return await asyncio.to_thread(_run, place, runs)


def _run(place: Setting, runs: int) -> list[Row]:
    alone, shared, lone, lone_shared = [], [], [], []
    for _ in range(runs):
        alone.append(_rate(place, AT_ONCE, batch=False))
        shared.append(_rate(place, AT_ONCE, batch=True))
        lone.append(_rate(place, 1, batch=False))
        lone_shared.append(_rate(place, 1, batch=True))
    times = [of_shared / of_alone for of_shared, of_alone in zip(shared, alone, strict=True)]
    return [
        Row("share", f"{AT_ONCE} threads, a request each", "messages/s", alone),
        Row("share", f"{AT_ONCE} threads, batch=True", "messages/s", shared),
        Row("share", "how many times as many", "times", times, TIMES),
        Row("share", "one thread", "messages/s", lone),
        Row("share", "one thread, batch=True", "messages/s", lone_shared),
    ]


def _rate(place: Setting, threads: int, *, batch: bool) -> float:
    until(lambda: place.metric("mqueue_buffer_queue_depth") == 0, "the run before is flushed")
    sent = [0] * threads
    with Client(place.broker.url, place.broker.token, connections=threads, batch=batch) as client:
        client.health()
        began = time.perf_counter()

        def produce(number: int) -> None:
            while time.perf_counter() < began + SECONDS:
                client.enqueue("share", PAYLOAD)
                sent[number] += 1

        producers = [threading.Thread(target=produce, args=(number,)) for number in range(threads)]
        for producer in producers:
            producer.start()
        for producer in producers:
            producer.join()
        return sum(sent) / (time.perf_counter() - began)
