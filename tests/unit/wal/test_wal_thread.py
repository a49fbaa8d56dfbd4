"""The log's own thread: one after the other, and told to the loop that asked."""

import asyncio
import threading
from collections.abc import Iterator

import pytest

from mqueue.broker.wal.thread import Thread


@pytest.fixture
def thread() -> Iterator[Thread]:
    made = Thread("a log's")
    yield made
    made.close()


async def test_work_is_done_in_order_and_off_the_loop(thread: Thread) -> None:
    seen: list[tuple[int, str]] = []

    def work(number: int) -> int:
        seen.append((number, threading.current_thread().name))
        return number * number

    assert await asyncio.gather(*(thread.call(work, n) for n in range(100))) == [n * n for n in range(100)]
    assert seen == [(n, "a log's") for n in range(100)]


async def test_an_error_reaches_who_asked_and_no_other(thread: Thread) -> None:
    wrong, right = thread.call(lambda: 1 // 0), thread.call(lambda: 1)
    with pytest.raises(ZeroDivisionError):
        await wrong
    assert await right == 1


async def test_cancelling_stops_the_waiting_alone(thread: Thread) -> None:
    held, done = threading.Event(), threading.Event()
    first = thread.call(held.wait, 10)
    second = thread.call(done.set)
    first.cancel()
    second.cancel()
    held.set()
    assert await asyncio.to_thread(done.wait, 10)
    assert await thread.call(lambda: "and it goes on") == "and it goes on"


async def test_what_was_given_is_done_before_it_ends() -> None:
    thread = Thread("a log's")
    held, seen = threading.Event(), list[str]()
    asyncio.get_running_loop().call_later(0.05, held.set)
    waiting = [thread.call(held.wait, 10), thread.call(lambda: True)]
    thread.submit(lambda: seen.append("submitted"))
    await asyncio.to_thread(thread.close)
    assert seen == ["submitted"]
    assert await asyncio.gather(*waiting) == [True, True]
    thread.close()
    for refused in (lambda: thread.call(int), lambda: thread.submit(lambda: None)):
        with pytest.raises(RuntimeError, match="closed"):
            refused()


def test_a_loop_that_has_ended_and_work_that_fails_do_not_end_it(thread: Thread) -> None:
    held = threading.Event()

    async def leave() -> None:
        thread.call(held.wait, 10)

    asyncio.run(leave())
    held.set()
    thread.submit(lambda: 1 // 0)

    async def ask() -> str:
        return await thread.call(lambda: "still here")

    assert asyncio.run(ask()) == "still here"
