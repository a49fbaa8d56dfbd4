"""The demo starts broker and worker, queues jobs, watches them, counts what came of them, and stops."""

import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from types import FrameType

import click

from mqueue.client import Client
from mqueue.demo import load, report
from mqueue.demo.progress import Progress
from mqueue.demo.tasks import RESULTS, TOPIC
from mqueue.errors import MQueueError
from mqueue.launch import Broker, DemoError, Worker, home

CONCURRENCY = 100
START_S = 30.0  # for the worker to ask for jobs
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
    stage = Stage(broker, worker)
    singles = min(load.SINGLES, jobs // 10)
    stage.until(lambda: broker.metric("mqueue_waiting_fetches") > 0, START_S, "the worker asks for no jobs")
    began = time.monotonic()
    queued = load.enqueue(client, load.plan(jobs - singles, Random()), stage.show)
    enqueue_s = time.monotonic() - began
    stage.until_ended(len(queued))
    queued |= load.enqueue_singly(client, singles)
    stage.until_ended(len(queued))
    stage.end()
    with results.open() as file:
        runs = report.parse(file)
    found = report.tally(queued, runs, _dead(client))
    click.echo()
    for line in report.lines(found, runs, enqueue_s):
        click.echo(line)
    if not found.complete:
        click.echo(f"\nError: {found.missing:,} of {jobs:,} jobs neither done nor dead, {len(found.done & found.dead):,} both", err=True)
    return found.complete


class Stage:
    """It shows a line that moves while the jobs run, by what the broker counts since it started."""

    def __init__(self, broker: Broker, worker: Worker) -> None:
        self._broker, self._worker = broker, worker
        self._progress = Progress()
        self._began = time.monotonic()
        self._queued = 0

    def show(self, queued: int) -> None:
        self._queued = queued
        self._progress.show(self._line)

    def end(self) -> None:
        self._progress.end(self._line())

    def until_ended(self, count: int) -> None:
        """Waits until so many are acked or dead, for END_S at most: what is missing then, the tally tells."""

        def ended() -> bool:
            self.show(count)
            return self._broker.metric("mqueue_ack_total") + self._broker.metric("mqueue_dead_total") >= count

        self.until(ended, END_S, None)

    def until(self, condition: Callable[[], bool], patience: float, complaint: str | None) -> None:
        deadline = time.monotonic() + patience
        while not condition():
            self._broker.check()
            self._worker.check()
            if time.monotonic() > deadline:
                if complaint is None:
                    return
                raise DemoError(f"{complaint} after {patience:g} s")
            time.sleep(LOOK_S)

    def _line(self) -> str:
        acked, dead = self._broker.metric("mqueue_ack_total"), self._broker.metric("mqueue_dead_total")
        return f"{self._queued:>7,} queued  {acked:>7,.0f} done  {dead:>4,.0f} dead  {time.monotonic() - self._began:>5.1f} s"


def _dead(client: Client) -> list[int]:
    ids: list[int] = []
    while page := client.dead_letters(TOPIC, limit=PAGE, after=ids[-1] if ids else 0):
        ids += (letter.id for letter in page)
    return ids


def _go_on(data_dir: Path | None) -> None:
    programs = Path(sys.executable).parent
    where = f" --data-dir {data_dir}" if data_dir is not None else ""
    click.echo(
        "\nAll that was started is stopped. To go on by hand, each in its own terminal:\n"
        f"  {programs}/mqueue broker{where}\n"
        f"  {programs}/mqueue worker examples.emails\n"
        f"  {programs}/python -m examples.emails\n"
        f"  {programs}/mqueue topics"
    )


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
