"""Each example runs on a stage: a broker with its own stores and a worker, in a temporary folder, gone when it ends."""

# ruff: noqa: T201

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from mqueue.client import Client
from mqueue.demo.progress import Progress
from mqueue.launch import Broker, Worker, home
from mqueue.wire import DeadItem

ROOT = Path(__file__).parents[1]
LOOK_S = 0.1
END_S = 60.0


class Stage:
    """`folder` is the worker's working directory."""

    def __init__(self, client: Client, folder: Path, check: Callable[[], None]) -> None:
        self.client, self.folder = client, folder
        self._check = check

    def until(self, done: Callable[[], bool], *topics: str) -> bool:
        """Shows how far it is until `done`, and returns True; returns False after END_S. Raises DemoError if the broker
        or the worker has ended.
        """
        progress, began = Progress(), time.monotonic()
        while not (ended := done()) and time.monotonic() - began < END_S:
            self._check()
            progress.show(lambda: self._line(topics, began))
            time.sleep(LOOK_S)
        progress.end(self._line(topics, began))
        return ended

    def _line(self, topics: tuple[str, ...], began: float) -> str:
        found = [topic for topic in self.client.topics() if topic.topic in topics]
        waiting = sum(topic.ready + topic.delayed + topic.waiting for topic in found)
        running, dead = sum(topic.leased for topic in found), sum(topic.dead for topic in found)
        return f"  {waiting:>4} wait  {running:>3} run  {dead:>3} dead  {time.monotonic() - began:>5.1f} s"


def first_line(letter: DeadItem) -> str:
    """Returns the first line of its error; a traceback follows."""
    return (letter.error or "no error").splitlines()[0]


@contextmanager
def stage(module: str, *, concurrency: int, **settings: str) -> Iterator[Stage]:
    """Yields a stage whose worker runs the tasks of `module`. `settings` go into the worker's environment, and into
    ours; our enqueues go to this broker.
    """
    os.environ.update(settings)
    with home() as folder:
        print("Starting PostgreSQL, Valkey, a broker and a worker …", flush=True)
        broker = Broker(folder, folder / "data")
        try:
            os.environ.update(MQUEUE_URL=broker.url, MQUEUE_TOKEN=broker.token or "")
            worker = Worker(broker, folder, module, concurrency=concurrency, path=[ROOT])

            def check() -> None:
                broker.check()
                worker.check()

            try:
                with Client(broker.url, broker.token) as client:
                    yield Stage(client, folder, check)
            finally:
                worker.stop()
        finally:
            broker.stop()
