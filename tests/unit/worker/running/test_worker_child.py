"""The process of a pool itself: what it keeps from one job to the next, what ends it and what does not."""

import os
import signal
from pathlib import Path
from typing import Any

import child_jobs as jobs
import pytest
from fake_broker import FakeBroker
from working import working

from tests.waiting import until


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def noted(out: Path) -> list[list[str]]:
    return [line.split() for line in out.read_text().splitlines()] if out.exists() else []


async def run(broker: FakeBroker, *items: Any) -> None:
    async with working(jobs.app, broker, concurrency=1):
        for item in items:
            broker.enqueue([item])
            await until(lambda: not broker.live() or broker.dead())


@pytest.mark.parametrize("task", [jobs.serve, jobs.serve_async])
async def test_what_a_job_leaves_in_the_context_is_not_there_for_the_next(broker: FakeBroker, out: Path, task: Any) -> None:
    await run(broker, *(task.message(str(out), name) for name in ("ada", "bob", "eve")))
    pids, tenants = zip(*noted(out), strict=True)
    assert (len(set(pids)), tenants) == (1, ("nobody",) * 3)


@pytest.mark.parametrize("stdout", ["full", "closed", "none"])
async def test_a_job_whose_output_nobody_takes_is_done_all_the_same(
    broker: FakeBroker, out: Path, stdout: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    await run(broker, jobs.speak.message(str(out), stdout))
    assert [each.kind for each in broker.settled] == ["ack"]
    assert [text for _, text in noted(out)] == [stdout]


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_to_all_leaves_the_process_to_the_worker(broker: FakeBroker, out: Path, tmp_path: Path, sign: signal.Signals) -> None:
    gate = tmp_path / "gate"
    async with working(jobs.app, broker, concurrency=1):
        broker.enqueue([jobs.wait.message(str(out), str(gate))])
        await until(lambda: noted(out))
        pid = int(noted(out)[0][0])
        os.kill(pid, sign)
        gate.touch()
        await until(lambda: broker.settled)
        os.kill(pid, sign)  # while it is idle
        broker.enqueue([jobs.wait.message(str(out), str(gate))])
        await until(lambda: len(broker.settled) == 2)
    assert [each.kind for each in broker.settled] == ["ack", "ack"]
    assert {int(each) for each, _ in noted(out)} == {pid}
    with pytest.raises(ProcessLookupError):  # the worker has ended it
        os.kill(pid, 0)


async def test_what_a_handler_starts_ends_by_sigterm(broker: FakeBroker, out: Path) -> None:
    await run(broker, jobs.start_others.message(str(out)))
    assert [text for _, text in noted(out)] == ["15", "-15"]
