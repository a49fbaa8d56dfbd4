"""mqueue, through `Client(batch=True)`: threads that enqueue at the same time share a request."""

from benchmarks.peers import with_mqueue_sync
from benchmarks.peers.with_mqueue import PACKAGE, prepare, workers
from mqueue.client import Client

__all__ = ["PACKAGE", "SETTINGS", "Producer", "prepare", "workers"]
SETTINGS = "Client(batch=True); `async def`, 100 slots"


class Producer(with_mqueue_sync.Producer):
    client = Client(batch=True)
