"""What a handler leaves in its context (who is logged in, which tenant it is) is gone with it."""

import asyncio
from contextvars import ContextVar

import pytest
from fake_broker import FakeBroker
from working import working

from mqueue.worker.tasks.app import MQueue
from tests.waiting import until

user: ContextVar[str] = ContextVar("user", default="nobody")


@pytest.mark.parametrize("on_loop", [True, False])
async def test_a_job_begins_with_the_context_of_the_worker(broker: FakeBroker, on_loop: bool) -> None:
    app = MQueue(broker.url, broker.token)
    found: list[str] = []

    def visit(name: str) -> None:
        found.append(user.get())
        user.set(name)

    async def visit_on_loop(name: str) -> None:
        visit(name)
        await asyncio.sleep(0)
        assert user.get() == name

    task = app.task(topic="visits", name="visit")(visit_on_loop if on_loop else visit)
    token = user.set("worker")
    async with working(app, broker, concurrency=2):
        user.reset(token)
        for round in range(3):  # one after the other: what follows from a job's end must not carry it on
            broker.enqueue([task.message(f"{round} {n}") for n in range(10)])
            await until(lambda: not broker.live())
    assert found == ["worker"] * 30
