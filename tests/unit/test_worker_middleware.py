"""Hooks around enqueues and handlers: their order, what they see and may change, the context of logs."""

import asyncio
import json
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import process_jobs
import pytest
import structlog
from fake_broker import FakeBroker
from working import working

from mqueue import Bury, Current, LogContext, Middleware, MQueue, wire
from tests.waiting import until


class Noting(Middleware):
    def __init__(self, name: str, notes: list[str]) -> None:
        self._name, self._notes = name, notes

    @contextmanager
    def enqueue(self, messages: Sequence[wire.EnqueueItem]) -> Iterator[None]:
        self._notes.append(f"{self._name} sends {len(messages)}")
        for message in messages:
            message.metadata = {**(message.metadata or {}), self._name: 1}
        try:
            yield
        finally:
            self._notes.append(f"{self._name} sent")

    @contextmanager
    def run(self, job: Current) -> Iterator[None]:
        self._notes.append(f"{self._name} runs {job.task} {sorted(job.metadata)}")
        try:
            yield
        except ValueError as error:
            self._notes.append(f"{self._name} saw {error}")
            raise
        finally:
            self._notes.append(f"{self._name} ran")


@pytest.mark.parametrize("on_loop", [True, False])
async def test_the_first_is_the_outermost_on_both_sides(broker: FakeBroker, on_loop: bool) -> None:
    notes: list[str] = []
    app = MQueue(broker.url, broker.token, middleware=[Noting("a", notes), Middleware(), Noting("b", notes)])

    def handle() -> None:
        notes.append("handler")
        raise ValueError("no")

    async def handle_async() -> None:
        handle()

    task = app.task(topic="t", name="x", max_retries=0)(handle_async if on_loop else handle)
    if on_loop:
        await task.enqueue_async()
    else:
        await asyncio.to_thread(app.enqueue_many, [task.options(metadata={"m": 0}).message()])
    async with working(app, broker):
        await until(broker.dead)
    metadata = ["a", "b"] if on_loop else ["a", "b", "m"]
    assert notes == [
        "a sends 1", "b sends 1", "b sent", "a sent",
        f"a runs x {metadata}", f"b runs x {metadata}", "handler", "b saw no", "b ran", "a saw no", "a ran",
    ]  # fmt: skip


async def test_what_a_hook_raises_is_the_jobs_failure_and_the_outer_ones_leave(broker: FakeBroker) -> None:
    notes: list[str] = []

    class Gate(Middleware):
        def run(self, job: Current) -> AbstractContextManager[object]:
            raise Bury("not here")

    app = MQueue(broker.url, broker.token, middleware=[Noting("a", notes), Gate()])

    @app.task(topic="t", name="x")
    async def never() -> None:
        notes.append("handler")

    broker.enqueue([never.message()])
    async with working(app, broker):
        await until(broker.dead)
    assert notes == ["a runs x []", "a ran"]
    assert "Bury: not here" in (broker.dead()[0].error or "")


def test_an_enqueue_that_a_hook_refuses_is_not_sent(broker: FakeBroker) -> None:
    class Gate(Middleware):
        def enqueue(self, messages: Sequence[wire.EnqueueItem]) -> AbstractContextManager[object]:
            raise PermissionError("not now")

    task = MQueue(broker.url, broker.token, middleware=[Gate()]).task(lambda: None)
    with pytest.raises(PermissionError):
        task.enqueue()
    with pytest.raises(PermissionError):
        asyncio.run(task.enqueue_async())
    assert not broker.messages


async def test_logs_of_a_handler_say_which_job_it_is(broker: FakeBroker, tmp_path: Path) -> None:
    seen: dict[str, Any] = {}
    app = MQueue(broker.url, broker.token)

    @app.task(topic="t", name="threaded")
    def threaded() -> None:
        seen["threaded"] = structlog.contextvars.get_contextvars()

    @app.task(topic="t", name="looped")
    async def looped() -> None:
        structlog.contextvars.bind_contextvars(task="mine")  # the same variable: it wins
        seen["looped"] = structlog.contextvars.get_contextvars()

    file = tmp_path / "seen"
    app.include(process_jobs.app)
    ids = broker.enqueue([threaded.message(), looped.message(), process_jobs.context.message(str(file))])
    async with working(app, broker):
        await until(lambda: not broker.live())
    seen["context"] = json.loads(file.read_text())
    assert seen["looped"].pop("task") == "mine"
    assert seen == {
        "threaded": {"task": "threaded", "message_id": ids[0], "attempt": 1},
        "looped": {"message_id": ids[1], "attempt": 1},
        "context": {"task": "context", "message_id": ids[2], "attempt": 1},
    }
    assert structlog.contextvars.get_contextvars() == {}


async def test_without_middleware_there_is_no_context(broker: FakeBroker) -> None:
    seen: list[dict[str, Any]] = []
    app = MQueue(broker.url, broker.token, middleware=[])
    app.task(topic="t", name="x")(lambda: seen.append(structlog.contextvars.get_contextvars()))
    app.enqueue_many([app.get("x").message()])  # type: ignore[union-attr]
    async with working(app, broker):
        await until(lambda: seen)
    assert seen == [{}]
    assert isinstance(LogContext(), Middleware)
