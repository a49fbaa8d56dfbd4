"""Dramatiq."""

import dramatiq
from dramatiq.brokers.redis import RedisBroker

from benchmarks.peers import job, peer

PACKAGE = "dramatiq"
SETTINGS = "8 threads a process"

dramatiq.set_broker(RedisBroker(url=peer.URL))


@dramatiq.actor
def run(payload: str) -> None:
    job.run(payload)


def prepare() -> None: ...


def workers(count: int) -> list[list[str]]:
    return [peer.module("dramatiq", "benchmarks.peers.with_dramatiq", "--processes", str(count), "--threads", "8")]


class Producer(peer.Producer):
    def enqueue(self, payload: str) -> None:
        run.send(payload)
