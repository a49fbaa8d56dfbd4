"""A blocked loop is told of, with the place it is blocked at."""

import asyncio
import time
from typing import Any

import pytest

from mqueue.worker.watching import watchdog
from mqueue.worker.watching.watchdog import Watchdog
from tests.waiting import until


class Log:
    def __init__(self) -> None:
        self.lines: list[tuple[str, dict[str, Any]]] = []

    def warning(self, event: str, **values: Any) -> None:
        self.lines.append((event, values))


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Log:
    made = Log()
    monkeypatch.setattr(watchdog, "log", made)
    monkeypatch.setattr(watchdog, "LOOK_S", 0.01)
    monkeypatch.setattr(watchdog, "BLOCKED_S", 0.2)
    return made


def block_it(seconds: float) -> None:
    time.sleep(seconds)  # the loop is blocked


async def test_a_blocked_loop_is_told_of_once_with_its_stack(log: Log) -> None:
    dog = Watchdog(asyncio.get_running_loop())
    dog.start()
    await asyncio.sleep(0.05)  # it has looked before
    block_it(0.8)
    await until(lambda: len(log.lines) >= 2)
    dog.stop()
    (first, told), (second, after) = log.lines
    assert (first, second) == ("event loop blocked", "event loop no longer blocked")
    assert "in block_it" in told["stack"] and "test_worker_watchdog.py" in told["stack"]
    assert after["seconds"] >= 0.5


async def test_a_loop_that_turns_is_no_news(log: Log) -> None:
    dog = Watchdog(asyncio.get_running_loop())
    dog.start()
    await asyncio.sleep(0.3)  # longer than BLOCKED_S, and the loop turns
    dog.stop()
    assert log.lines == []


def test_it_ends_with_its_loop(log: Log) -> None:
    async def begin() -> Watchdog:
        made = Watchdog(asyncio.get_running_loop())
        made.start()
        return made

    dog = asyncio.run(begin())
    dog._thread.join(5)
    assert not dog._thread.is_alive() and log.lines == []
