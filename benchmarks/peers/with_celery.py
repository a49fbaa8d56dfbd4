"""Celery. Its bulk (`group`) publishes one by one, so it has none."""

from celery import Celery

from benchmarks.peers import job, peer

PACKAGE = "celery"
SETTINGS = "prefork; no results; acks late"

app = Celery("bench", broker=peer.URL.replace("unix://", "redis+socket://").partition("?")[0])
app.conf.update(task_ignore_result=True, task_acks_late=True, broker_connection_retry_on_startup=True)


@app.task
def run(payload: str) -> None:
    job.run(payload)


def prepare() -> None: ...


def workers(count: int) -> list[list[str]]:
    return [peer.module("celery", "-A", "benchmarks.peers.with_celery", "worker", "--concurrency", str(count), "--loglevel", "WARNING")]


class Producer(peer.Producer):
    def enqueue(self, payload: str) -> None:
        run.delay(payload)
