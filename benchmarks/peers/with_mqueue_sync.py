"""mqueue, through `Client`: its calls block."""

from collections.abc import Sequence

from benchmarks.peers import peer
from benchmarks.peers.with_mqueue import PACKAGE, prepare, run, workers
from mqueue.client import Client

__all__ = ["PACKAGE", "SETTINGS", "Producer", "prepare", "workers"]
SETTINGS = "Client; `async def`, 100 slots"


class Producer(peer.Producer):
    BULK = True
    client = Client()  # for all threads

    def enqueue(self, payload: str) -> None:
        self.client.enqueue_many([run.message(payload)])

    def enqueue_many(self, payloads: Sequence[str]) -> None:
        self.client.enqueue_many([run.message(payload) for payload in payloads])
