"""The demo's story: start, queue, watch, count, stop."""

import re
import signal
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from random import Random
from types import FrameType

import click

from mqueue.client import Client
from mqueue.demo import load, report
from mqueue.demo.processes import Broker, DemoError, Worker, home
from mqueue.demo.progress import Progress
from mqueue.demo.tasks import RESULTS, TOPIC
from mqueue.errors import MQueueError

CONCURRENCY = 100
END_S = 60.0  # for all jobs to end
LOOK_S = 0.1
PAGE = 1_000


@click.command()
@click.option("--jobs", type=click.IntRange(10, 1_000_000), default=load.JOBS, show_default=True, help="How many.")
@click.option("--data-dir", type=click.Path(path_type=Path), metavar="DIR", help="Keep the broker's data there. [default: none is kept]")
def main(jobs: int, data_dir: Path | None) -> None:
    """A broker, a worker and some thousand jobs in one terminal."""
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        with home() as folder:
            complete = _run(folder, (data_dir or folder / "data").absolute(), jobs)
        _go_on(data_dir)
    except MQueueError as error:
        raise click.ClickException(error.detail) from error
    except OSError as error:
        raise click.ClickException(f"{error.filename or 'system'}: {error.strerror or error}") from error
    except KeyboardInterrupt:
        raise click.ClickException("interrupted: all that was started is stopped") from None
    sys.exit(0 if complete else 1)


def _run(folder: Path, data_dir: Path, jobs: int) -> bool:
    click.echo("Starting PostgreSQL, Valkey and a broker …", err=True)
    began = time.monotonic()
    broker = Broker(folder, data_dir)
    try:
        click.echo(f"The broker is ready after {time.monotonic() - began:.1f} s: {broker.url}", err=True)
        (folder / RESULTS).touch()
        worker = Worker(broker, folder, "mqueue.demo.tasks", concurrency=CONCURRENCY)
        try:
            with Client(broker.url, broker.token) as client:
                return _play(broker, worker, client, folder / RESULTS, jobs)
        finally:
            worker.stop()
    finally:
        broker.stop()


def _play(broker: Broker, worker: Worker, client: Client, results: Path, jobs: int) -> bool:
    progress = Progress()
    singles = min(load.SINGLES, jobs // 10)
    planned = load.plan(jobs - singles, Random())
    began, began_us = time.monotonic(), time.time_ns() // 1000

    def watch(queued: int) -> int:
        acked, dead = _ended(broker)
        progress.show(f"{queued:>7,} queued {acked:>7,} done {dead:>4,} dead {time.monotonic() - began:>6.1f} s")
        return acked + dead

    def until_ended(count: int) -> None:
        deadline = time.monotonic() + END_S
        while watch(count) < count and time.monotonic() < deadline:
            broker.check()
            worker.check()
            time.sleep(LOOK_S)

    queued = load.enqueue(client, planned, lambda count: _pass(watch(count)))
    enqueue_s = time.monotonic() - began
    until_ended(len(planned))
    drain_s = time.monotonic() - began
    queued |= load.enqueue_singly(client, singles)
    until_ended(jobs)
    acked, dead = _ended(broker)
    progress.end(f"{jobs:>7,} queued {acked:>7,} done {dead:>4,} dead {time.monotonic() - began:>6.1f} s")
