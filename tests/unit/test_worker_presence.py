"""What a worker tells of itself, and how far its jobs are; and that nothing depends on it."""

import asyncio
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import process_jobs as jobs
import pytest
from fake_broker import FakeBroker
from working import working

from mqueue import MQueue, Worker, current, wire
from mqueue import message as m
from mqueue.clock import SystemClock
from mqueue.worker.sources import WorkerError
from mqueue.worker.tasks.job import Job, Progress
from mqueue.worker.watching.presence import Presence, new_name
from tests.waiting import until


def of(broker: FakeBroker, note: str) -> list[wire.Running]:
    return [run for told in broker.told for run in told.running if run.note == note]


async def test_a_batch_runs_since_its_first_message_came(broker: FakeBroker) -> None:
    app, gate = MQueue(broker.url, broker.token), asyncio.Event()

    @app.task(topic="t", batch=2)
    async def take(items: list[int]) -> None:
        current().progress(0.5, "half")
        await gate.wait()

    first, _ = broker.enqueue([take.message(n) for n in range(2)])
    async with working(app, broker) as worker:
        await until(lambda: of(broker, "half"))
        assert broker.told[-1].busy == 1
        [run] = broker.told[-1].running
        [job] = worker._jobs
        assert run.id == first and job.batch is not None and job.began == job.batch[0].began > 0
        gate.set()


async def test_a_worker_tells_who_it_is_what_it_runs_and_that_it_goes(broker: FakeBroker) -> None:
    app = MQueue(broker.url, broker.token, namespace="shop")
    go_on, cut = threading.Event(), asyncio.Event()

    @app.task(topic="t", name="threaded")
    def threaded() -> None:
        current().progress(0.25, "in a thread")
        go_on.wait(20)

    @app.task(topic="u", name="looped")
    async def looped() -> None:
        current().progress(1)
        await cut.wait()

    async with working(app, broker, concurrency=7, name="one") as worker:
        await until(lambda: broker.told)
        first = broker.told[0]
        assert (first.name, first.slots, first.busy, first.state) == ("one", 7, 0, "running")
        assert (first.topics, first.tasks) == (["shop/t", "shop/u"], ["looped", "threaded"])
        ids = [(await task.enqueue_async()).id for task in (threaded, looped)]
        await until(lambda: {run.progress for run in broker.told[-1].running} == {0.25, 1.0})
        assert {run.id: (run.task, run.attempt, run.note) for run in broker.told[-1].running} == {
            ids[0]: ("threaded", 1, "in a thread"),
            ids[1]: ("looped", 1, None),
        }
        worker.stop()
        await until(lambda: broker.told[-1].state == "stopping" and broker.told[-1].busy == 2)
        go_on.set()
        cut.set()
        await until(lambda: worker.counts["ack"] == 2)
    assert (broker.told[-1].state, broker.told[-1].counts) == ("stopped", {"ack": 2})


async def test_a_process_tells_how_far_it_is(broker: FakeBroker, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    broker.enqueue([jobs.steps.message(str(gate))])
    async with working(jobs.app, broker, concurrency=1) as worker:
        await until(lambda: of(broker, "last of many"), seconds=20)
        gate.touch()
        await until(lambda: worker.counts["ack"] == 1)
        broker.enqueue([jobs.steps.message(str(gate))])  # the next job in that process has told nothing yet
        await until(lambda: worker.counts["ack"] == 2)
    assert of(broker, "last of many")[0].progress == 0.5
    assert len(broker.told) < 30  # of thousands


async def test_a_broker_that_does_not_listen_disturbs_nobody(broker: FakeBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mqueue.worker.watching.presence.BEAT_S", 0.1)
    monkeypatch.setattr("mqueue.worker.watching.presence.LOOK_S", 0.05)
    said: list[str] = []
    monkeypatch.setattr("mqueue.worker.watching.presence.log", SimpleNamespace(warning=lambda event, **_: said.append(event)))
    app = MQueue(broker.url, broker.token)
    broker.refuse("/workers", 1000, 404, "not-found")

    @app.task
    async def step() -> None:
        current().progress(0.5)

    async with working(app, broker) as worker:
        for n in range(1, 4):
            await step.enqueue_async()
            await until(lambda n=n: worker.counts["ack"] == n and broker.requests["/workers"] > n)
    assert said == ["the broker does not hear of this worker, trying on"]


@pytest.mark.parametrize("fraction", [-0.1, 1.1, float("nan"), float("inf")])
def test_progress_goes_from_0_to_1(fraction: float) -> None:
    from mqueue import Current

    with pytest.raises(ValueError, match="from 0 to 1"):
        Current(_job(1)).progress(fraction)


def test_a_note_is_what_can_be_kept() -> None:
    from mqueue import Current

    job = _job(1)
    Current(job).progress(0.5, "a\0b\ud800" + "x" * 1000)
    assert job.progress == Progress(0.5, "a\N{REPLACEMENT CHARACTER}b\N{REPLACEMENT CHARACTER}" + "x" * (m.NOTE_MAX - 4))


def test_of_very_many_jobs_those_with_progress_and_the_longest_running_are_told() -> None:
    there = {_job(n) for n in range(500)}
    [told] = [job for job in there if job.began == 499]
    told.progress = Progress(0.1)
    topics, tasks = [m.TopicName("n", f"t{n}") for n in range(500)], ["x" * 1000] * 500
    report = Presence(print, "w", topics, tasks, 500, there, {}, SystemClock()).report()
    assert [run.id for run in report.running] == [499, *range(m.RUNNING_MAX - 1)]
    assert (report.busy, len(report.topics), len(report.tasks), len(report.tasks[0])) == (500, 200, 200, m.NAME_MAX)


def test_a_name_is_made_or_checked() -> None:
    app = MQueue("http://127.0.0.1:1")
    app.task(print_)
    assert new_name() != new_name()
    assert Worker(app, name="a.b-c_1").name == "a.b-c_1"
    for wrong in ("", "a b", "x" * 200, "a\n"):
        with pytest.raises(WorkerError, match="name"):
            Worker(app, name=wrong)


def print_() -> None: ...


def _job(n: int) -> Job:
    message: Any = wire.Message(
        id=n, namespace="n", topic="t", priority=0, payload=b"", deliver_after=None, created_at=None, attempt=1, max_retries=3,  # type: ignore[arg-type]
        receipt="1-1", lease_expires_at=None, lease=30.0,  # type: ignore[arg-type]
    )  # fmt: skip
    app = MQueue("http://127.0.0.1:1")
    job = Job(message, app.task(print_), [], {}, 30.0)
    job.began = float(n)
    return job
