"""The broker in memory (`mqueue.testing`) behind HTTP (`fake_api.py`), for tests of clients and workers: it counts, and
fails on demand.

It runs on a loop in a thread of its own, so that a test may block its loop. `start()` gives a broker to talk to: this
one, or the real one that MQUEUE_TEST_URL and MQUEUE_TEST_TOKEN name (tests that need the fake's insides skip then).
"""

import os
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
import pytest
from fake_api import Server

from mqueue import message as m
from mqueue import wire
from mqueue.clock import SystemClock
from mqueue.testing import MemoryBroker
from mqueue.testing.memory.broker import Stored

TOKEN = "fake-token"
AGAIN_S = 0.02  # a retry whose time nobody names: no test waits for the real backoff
STOLEN_S = 60.0


@dataclass
class Refusal:
    path: str
    times: int
    status: int
    code: str
    retry_after: float | None
    after_work: bool  # the request is carried out, and then the connection cut


class ShiftedClock(SystemClock):
    shift_us = 0

    def wall_us(self) -> int:
        return super().wall_us() + self.shift_us


class FakeBroker:
    """What tests do to it and see of it, from any thread."""

    def __init__(self) -> None:
        self.token = TOKEN
        self.requests: Counter[str] = Counter()  # by path
        self.polls: list[wire.Poll] = []
        self.settled: list[wire.PollSettle] = []
        self.extends: list[wire.ExtendItem] = []
        self.told: list[wire.Worker] = []
        self.schedules: list[tuple[str, wire.ScheduleItem]] = []  # as they were put
        self.cancels: list[tuple[int, str]] = []  # of running messages: id, namespace
        self.request_keys: dict[str, list[int]] = {}  # and the ids of their messages
        self.waiting = 0  # polls
        self.ended: set[str] = set()  # polls, by name
        self.deaf = False  # to the ends of polls
        self.mode: Literal["hot", "cold", "apart", "recovering"] = "hot"
        self.result_max = m.RESULT_MAX
        self.refusals: list[Refusal] = []
        self.late_s = 0.0  # every answer
        self.held: str | None = None  # requests to this path are answered later
        self.clock = ShiftedClock()
        self._memory = MemoryBroker(self.clock, first_id=(1 << 60) + 1)
        self._lock = threading.RLock()
        self.server = Server(self)

    @property
    def url(self) -> str:
        return self.server.url

    @contextmanager
    def looking(self) -> Iterator[MemoryBroker]:
        """One thread at a time may have it."""
        with self._lock:
            yield self._memory

    @contextmanager
    def changing(self) -> Iterator[MemoryBroker]:
        """… and who waits looks again afterwards."""
        with self._lock:
            yield self._memory
        self.server.ring()

    # ── the queue ──

    def enqueue(self, items: Sequence[wire.EnqueueItem]) -> list[int]:
        with self.changing() as memory:
            return memory.enqueue_many(items)

    def settle(self, settles: Sequence[tuple[m.Kind, wire.SettleItem]]) -> list[wire.Verdict]:
        with self.changing() as memory:
            return [memory.settle(kind, _soon(item) if kind == "nack" else item) for kind, item in settles]

    def cancel(self, id: int) -> wire.Cancel:
        with self.changing() as memory:
            answer = memory.cancel(id)
            if answer.status == "cancelling":
                self.cancels.append((id, self.messages[id].item.namespace))
            return answer

    def tell_cancelled(self, id: int) -> None:
        """To workers, whether there is such a message or not."""
        with self.changing():
            self.cancels.append((id, m.DEFAULT_NAMESPACE))

    def steal(self, id: int) -> None:
        """Give the lease to another."""
        with self.changing() as memory:
            memory.lease(self.messages[id], STOLEN_S)

    def live(self) -> list[Stored]:
        with self.looking() as memory:
            return memory.live()

    def dead(self) -> list[Stored]:
        with self.looking() as memory:
            return memory.dead()

    @property
    def messages(self) -> dict[int, Stored]:
        """What is there now, live or dead."""
        with self.looking() as memory:
            return {s.id: s for s in (*memory.live(), *memory.dead())}

    def result(self, id: int) -> bytes:
        """Raises Pending, JobFailed, NotFound."""
        with self.looking() as memory:
            return memory.result(id)

    # ── faults ──

    def refuse(self, path: str, times: int = 1, status: int = 503, code: str = "unavailable", retry_after: float | None = None) -> None:
        self.refusals.append(Refusal(path, times, status, code, retry_after, False))

    def cut_after_work(self, path: str, times: int = 1) -> None:
        self.refusals.append(Refusal(path, times, 0, "", None, True))

    def be_late(self, seconds: float) -> None:
        self.late_s = seconds

    def hold(self, path: str | None) -> None:
        """None: those that were held are answered."""
        with self.changing():
            self.held = path

    def shift_clock(self, seconds: float) -> None:
        """It is ahead by so much."""
        self.clock.shift_us = int(seconds * 1e6)


def _soon(item: wire.SettleItem) -> wire.SettleItem:
    return item if item.retry_after is not None else msgspec.structs.replace(item, retry_after=AGAIN_S)


@dataclass
class Real:
    """Another broker: its address, and nothing to look into."""

    url: str
    token: str

    def __getattr__(self, name: str) -> Any:
        pytest.skip(f"needs the fake broker ({name})")


@contextmanager
def start() -> Iterator[FakeBroker]:
    if url := os.environ.get("MQUEUE_TEST_URL"):
        yield Real(url, os.environ["MQUEUE_TEST_TOKEN"])  # type: ignore[misc]
        return
    broker = FakeBroker()
    broker.server.up()
    try:
        yield broker
    finally:
        broker.server.close()
