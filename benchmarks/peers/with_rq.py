"""RQ. Its worker forks a process for each job."""

from collections.abc import Sequence

from redis import Redis
from rq import Queue

from benchmarks.peers import job, peer

PACKAGE = "rq"
SETTINGS = "forks for each job; results not kept"


def prepare() -> None: ...


def workers(count: int) -> list[list[str]]:
    return [peer.program("rq", "worker", "--url", peer.URL, "--quiet", "default")] * count


class Producer(peer.Producer):
    BULK = True
    queue = Queue(connection=Redis.from_url(peer.URL))  # for all threads

    def enqueue(self, payload: str) -> None:
        self.queue.enqueue(job.run, payload, result_ttl=0)

    def enqueue_many(self, payloads: Sequence[str]) -> None:
        self.queue.enqueue_many([Queue.prepare_data(job.run, (payload,), result_ttl=0) for payload in payloads])
