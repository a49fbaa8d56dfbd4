"""`python -m benchmarks.peers.produce MODULE` enqueues as it is told: a line of JSON in, a line of JSON out.

It says what it is when it is ready. Then `{"kind": "one", "seconds": 2}` is answered with how many were sent in how
many seconds. The kinds: `one` call at a time; `many`, sixteen at once; `bulk`, calls of a thousand; `paced`, a hundred
a second; `fill`, `count` of them as quickly as it can.
"""

import asyncio
import json
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module, metadata
from typing import Any

from benchmarks.peers import job, peer

AT_ONCE = 16
BULK = 1_000
PACE = 100  # a second


class Threads:
    """The producers' calls block: each has a thread of its own."""

    def __init__(self, make: type[peer.Producer]) -> None:
        self._producers = [make() for _ in range(AT_ONCE)]
        self._pool = ThreadPoolExecutor(AT_ONCE)
        list(self._pool.map(lambda producer: producer.open(), self._producers))
        list(self._pool.map(lambda producer: producer.enqueue(job.payload()), self._producers))

    def one(self, more: Callable[[int], bool]) -> int:
        return self._one(self._producers[0], more)

    def many(self, more: Callable[[int], bool]) -> int:
        return sum(self._pool.map(lambda producer: self._one(producer, more), self._producers))

    def bulk(self, more: Callable[[int], bool]) -> int:
        sent = 0
        while more(sent):
            self._producers[0].enqueue_many([job.payload()] * BULK)
            sent += BULK
        return sent

    def paced(self, more: Callable[[int], bool]) -> int:
        began, sent = time.perf_counter(), 0
        while more(sent):
            self._producers[0].enqueue(job.payload())
            sent += 1
            time.sleep(max(0.0, began + sent / PACE - time.perf_counter()))
        return sent

    @staticmethod
    def _one(producer: peer.Producer, more: Callable[[int], bool]) -> int:
        sent = 0
        while more(sent):
            producer.enqueue(job.payload())
            sent += 1
        return sent


class Coroutines:
    """The producers share an event loop and a client."""

    def __init__(self, make: type[peer.AsyncProducer]) -> None:
        self._runner = asyncio.Runner()
        self._producer = self._runner.run(self._open(make))

    @staticmethod
    async def _open(make: type[peer.AsyncProducer]) -> peer.AsyncProducer:
        producer = make()
        await producer.open()
        await asyncio.gather(*(producer.enqueue(job.payload()) for _ in range(AT_ONCE)))
        return producer

    def one(self, more: Callable[[int], bool]) -> int:
        return self._runner.run(self._one(more))

    def many(self, more: Callable[[int], bool]) -> int:
        async def all_of_them() -> int:
            return sum(await asyncio.gather(*(self._one(more) for _ in range(AT_ONCE))))

        return self._runner.run(all_of_them())

    def bulk(self, more: Callable[[int], bool]) -> int:
        async def in_bulk() -> int:
            sent = 0
            while more(sent):
                await self._producer.enqueue_many([job.payload()] * BULK)
                sent += BULK
            return sent

        return self._runner.run(in_bulk())

    def paced(self, more: Callable[[int], bool]) -> int:
        async def in_pace() -> int:
            began, sent = time.perf_counter(), 0
            while more(sent):
                await self._producer.enqueue(job.payload())
                sent += 1
                await asyncio.sleep(max(0.0, began + sent / PACE - time.perf_counter()))
            return sent

        return self._runner.run(in_pace())

    async def _one(self, more: Callable[[int], bool]) -> int:
        sent = 0
        while more(sent):
            await self._producer.enqueue(job.payload())
            sent += 1
        return sent


def main(name: str) -> None:
    there: Any = import_module(f"benchmarks.peers.{name}")
    there.prepare()
    threads = issubclass(there.Producer, peer.Producer)
    load = Threads(there.Producer) if threads else Coroutines(there.Producer)
    about = {
        "package": there.PACKAGE,
        "version": metadata.version(there.PACKAGE),
        "settings": there.SETTINGS,
        "bulk": there.Producer.BULK,
        "sent": AT_ONCE,
        "workers": [there.workers(1), there.workers(2)],
    }
    print(json.dumps(about), flush=True)
    for line in sys.stdin:
        print(json.dumps(_obey(load, bulk=there.Producer.BULK, **json.loads(line))), flush=True)


def _obey(load: Threads | Coroutines, kind: str, *, bulk: bool, seconds: float = 0.0, count: int = 0) -> dict[str, float]:
    began = time.perf_counter()
    if kind == "fill":
        share = count if bulk else count // AT_ONCE
        sent = (load.bulk if bulk else load.many)(lambda sent: sent < share)
    else:
        sent = getattr(load, kind)(lambda _: time.perf_counter() < began + seconds)
    return {"sent": sent, "seconds": time.perf_counter() - began}


if __name__ == "__main__":
    main(sys.argv[1])
