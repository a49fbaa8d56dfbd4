"""Huey. It takes a job out of Redis before it runs: one whose worker dies is lost."""

from huey import RedisHuey

from benchmarks.peers import job, peer

PACKAGE = "huey"
SETTINGS = "processes; a job is lost with its worker"

huey = RedisHuey("bench", url=peer.URL)


@huey.task()
def run(payload: str) -> None:
    job.run(payload)


def prepare() -> None: ...


def workers(count: int) -> list[list[str]]:
    return [peer.module("huey.bin.huey_consumer", "benchmarks.peers.with_huey.huey", "-k", "process", "-w", str(count), "--quiet")]


class Producer(peer.Producer):
    def enqueue(self, payload: str) -> None:
        run(payload)
