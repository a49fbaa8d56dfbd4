"""A peer is a module with these names:

PACKAGE            the distribution whose version is shown
SETTINGS           how it runs, in a few words for the table
prepare()          makes what its fresh store needs; once
workers(count)     the commands that together are `count` worker processes
Producer           a subclass of `Producer` or of `AsyncProducer`
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

URL = os.environ.get("BENCH_URL", "")  # of the store, or of the broker


class Producer:
    """It sends from one thread, with connections of its own. A call returns once the system has answered."""

    BULK = False  # does it have `enqueue_many`?

    def open(self) -> None: ...

    def enqueue(self, payload: str) -> None:
        raise NotImplementedError

    def enqueue_many(self, payloads: Sequence[str]) -> None:
        raise NotImplementedError


class AsyncProducer:
    """The same on an event loop: all coroutines share one."""

    BULK = False

    async def open(self) -> None: ...

    async def enqueue(self, payload: str) -> None:
        raise NotImplementedError

    async def enqueue_many(self, payloads: Sequence[str]) -> None:
        raise NotImplementedError


class Peer(Protocol):
    PACKAGE: str
    SETTINGS: str
    Producer: type[Producer] | type[AsyncProducer]

    def prepare(self) -> None: ...
    def workers(self, count: int) -> list[list[str]]: ...


def program(name: str, *words: str) -> list[str]:
    """Returns the command of a program that stands beside this interpreter."""
    return [str(Path(sys.executable).parent / name), *words]


def module(name: str, *words: str) -> list[str]:
    return [sys.executable, "-m", name, *words]
