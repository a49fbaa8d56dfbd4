"""Tasks in processes: how they end, what limits and accidents do to them and to nobody else, how they stop."""

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import process_jobs as jobs
import psutil
import pytest
import stubborn_import
from fake_broker import FakeBroker, Stored
from working import working

from mqueue import MQueue, wire
from mqueue.worker.channel import PROGRAM
from mqueue.worker.running.executor import Executor
from mqueue.worker.running.outcome import RELEASED, Outcome
from mqueue.worker.running.processes import Process, Processes, how
from mqueue.worker.runtime import Worker
from mqueue.worker.sources import WorkerError
from mqueue.worker.tasks.job import Current, Interrupt, Job
from tests import ROOT
from tests.waiting import until, wait_until


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def noted(out: Path) -> list[list[str]]:
    return [line.split() for line in out.read_text().splitlines()] if out.exists() else []


def children() -> list[psutil.Process]:
    """The pool's processes and what they have started; not what else this test run has started."""
    found: list[psutil.Process] = []
    for child in psutil.Process().children():
        with suppress(psutil.NoSuchProcess):  # it ends meanwhile
            if runs_jobs(child):
                found += [each for each in (child, *child.children(recursive=True)) if each.status() != psutil.STATUS_ZOMBIE]
    return found


def runs_jobs(child: psutil.Process) -> bool:
    try:
        return PROGRAM.format("mqueue.worker.running.child") in child.cmdline()
    except psutil.ZombieProcess:
        return False


async def dead_of(broker: FakeBroker, item: Any) -> Stored:
    broker.enqueue([item])
    async with working(jobs.app, broker):
        await until(broker.dead)
    [dead] = broker.dead()
    return dead


async def test_jobs_run_in_processes_that_are_kept_for_the_next(broker: FakeBroker, out: Path) -> None:
    async with working(jobs.app, broker, concurrency=1) as worker:
        for n in range(4):
            broker.enqueue([(jobs.note_async if n % 2 else jobs.note).message(str(out), str(n))])
            await until(lambda n=n: worker.counts["ack"] == n + 1)
    lines = noted(out)
    assert [line[1:] for line in lines] == [[str(n), "1"] for n in range(4)]
    assert len({line[0] for line in lines}) == 1 and lines[0][0] != str(os.getpid())
    assert children() == []


async def test_as_many_processes_as_slots_work_at_once(broker: FakeBroker, out: Path) -> None:
    broker.enqueue([jobs.hold.message(str(out)) for _ in range(3)])
    async with working(jobs.app, broker, concurrency=3, grace=0.01):
        await until(lambda: len(noted(out)) == 3)
        assert len({pid for pid, *_ in noted(out)}) == 3
    assert children() == []
    assert [(s.attempts, s.leased) for s in broker.live()] == [(0, False)] * 3  # handed back unharmed


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("exit", "ProcessEnded: the process of the job exited with code 3 before the job had ended"),
        ("segfault", "ProcessEnded: the process of the job was killed by SIGSEGV"),
        ("kill", "ProcessEnded: the process of the job was killed by SIGKILL, perhaps because memory ran out"),
        ("leave", "SystemExit: 5"),
        ("bury", "Bury: no use"),
        ("value", "ValueError: value\n\nTraceback"),
    ],
)
async def test_how_a_job_ends_is_told(broker: FakeBroker, kind: str, says: str) -> None:
    dead = await dead_of(broker, jobs.end.message(kind))
    assert dead.error is not None and says in dead.error
    assert dead.attempts == 1
    if kind == "value":
        assert "in end" in dead.error and "handler.py" not in dead.error


async def test_signals_and_policy_count_in_a_process_too(broker: FakeBroker) -> None:
    broker.enqueue([jobs.end.message("snooze"), jobs.choosy.message()])
    async with working(jobs.app, broker) as worker:
        await until(lambda: worker.counts.total() == 2)
    assert worker.counts == {"release": 1, "bury": 1}
    assert [settle.retry_after for settle in broker.settled if settle.kind == "release"] == [3]


@pytest.mark.parametrize("swallows", [False, True])
async def test_middleware_sees_a_run_that_ended_with_its_process(
    broker: FakeBroker, out: Path, monkeypatch: pytest.MonkeyPatch, swallows: bool
) -> None:
    """That in the process itself could not. Whatever it makes of it, the job has failed."""
    seen: list[tuple[str, str]] = []

    @contextmanager
    def watch(job: Current) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            seen.append((job.task, type(error).__name__))
            if not swallows:
                raise

    monkeypatch.setattr(jobs.app, "run_hooks", [watch])
    dead = await dead_of(broker, jobs.too_long.message(str(out)))
    assert dead.error is not None and "TimeLimit" in dead.error
    assert seen == [(jobs.too_long.name, "TimeLimit")]


async def test_a_time_limit_ends_that_process_alone_and_what_it_started(broker: FakeBroker, out: Path, tmp_path: Path) -> None:
    neighbour, pids = tmp_path / "neighbour", tmp_path / "pids"
    broker.enqueue([jobs.modest.message(str(neighbour)), jobs.too_long.message(str(pids))])
    began = time.monotonic()
    async with working(jobs.app, broker, concurrency=3) as worker:
        await until(broker.dead)
        assert time.monotonic() - began < 5
        broker.enqueue([jobs.note.message(str(out), "after")])
        await until(lambda: worker.counts["ack"] == 2)
    [dead] = broker.dead()
    assert dead.error is not None
    assert dead.error.endswith("TimeLimit: the job ran longer than its time_limit=0.3 s: its process was killed")
    assert noted(neighbour) and noted(out)
    for pid in pids.read_text().split():
        assert not psutil.pid_exists(int(pid)) or psutil.Process(int(pid)).status() == psutil.STATUS_ZOMBIE


async def test_a_memory_limit_ends_that_process_alone(broker: FakeBroker, out: Path) -> None:
    broker.enqueue([jobs.too_much.message(), jobs.modest.message(str(out))])
    async with working(jobs.app, broker, concurrency=3) as worker:
        await until(lambda: broker.dead() and worker.counts["ack"] == 1)
    [dead] = broker.dead()
    assert dead.error is not None and "MemoryLimit: the job held more than its memory_limit_mb=150" in dead.error


async def test_what_an_earlier_job_left_in_memory_is_not_the_next_ones_fault(broker: FakeBroker, out: Path) -> None:
    async with working(jobs.app, broker, concurrency=1) as worker:
        for n, message in enumerate([jobs.greedy.message(str(out)), jobs.modest.message(str(out))], 1):
            broker.enqueue([message])
            await until(lambda n=n: worker.counts["ack"] == n)
    assert len({pid for pid, *_ in noted(out)}) == 2


async def test_a_lost_lease_ends_the_process(broker: FakeBroker, out: Path) -> None:
    [id] = broker.enqueue([jobs.hold.message(str(out))])
    async with working(jobs.app, broker) as worker:
        await until(lambda: noted(out))
        broker.steal(id)
        await until(lambda: worker.counts["lost"] == 1)
        await until(lambda: children() == [])
    assert broker.settled == []


async def test_a_process_that_died_while_idle_is_replaced(broker: FakeBroker, out: Path) -> None:
    async with working(jobs.app, broker, concurrency=1) as worker:
        broker.enqueue([jobs.note.message(str(out), "one")])
        await until(lambda: worker.counts["ack"] == 1)
        [child] = children()
        child.kill()
        child.wait()
        broker.enqueue([jobs.note.message(str(out), "two")])
        await until(lambda: worker.counts["ack"] == 2)
    assert len({pid for pid, *_ in noted(out)}) == 2


async def test_a_death_is_seen_though_another_holds_the_channel(broker: FakeBroker) -> None:
    dead = await dead_of(broker, jobs.end.message("fork"))
    assert dead.error is not None and "exited with code 4" in dead.error


async def test_a_module_that_does_not_end_its_import_is_told(broker: FakeBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mqueue.worker.running.processes.START_S", 0.001)
    dead = await dead_of(broker, jobs.end.message("exit"))
    assert dead.error is not None and "had not imported its module after 0.001 s, and was killed" in dead.error


async def test_a_cancellation_that_comes_late_meets_no_other_job(broker: FakeBroker, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cancels: list[Any] = []
    run = Process._run

    def remember(self: Process, job: Job) -> Outcome:
        cancels.append(job.cancel)
        return run(self, job)

    monkeypatch.setattr(Process, "_run", remember)
    async with working(jobs.app, broker, concurrency=1) as worker:
        broker.enqueue([jobs.note.message(str(out), "one")])
        await until(lambda: worker.counts["ack"] == 1)
        broker.enqueue([jobs.modest.message(str(out))])
        await until(lambda: len(noted(out)) == 2)
        cancels[0]()
        await until(lambda: worker.counts["ack"] == 2)
    assert len({pid for pid, *_ in noted(out)}) == 1


async def test_what_is_cancelled_before_its_handler_began_does_not_begin(
    broker: FakeBroker, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The import of its module may take long, and swallow what the process is asked."""
    gate = tmp_path / "gate"
    monkeypatch.setenv("TEST_IMPORT_GATE", str(gate))
    async with working(stubborn_import.app, broker, concurrency=1) as worker:
        broker.enqueue([stubborn_import.note.message(str(out))])
        await until(Path(f"{gate}.waits").exists)
        [job] = worker._jobs
        worker._interrupts.cancelled([job.message.id])
        await until(lambda: not worker._jobs)
    assert not out.exists(), "its handler was run all the same"
    assert [each.kind for each in broker.settled] == ["cancel"]


@pytest.mark.parametrize("late", [Interrupt.LOST, Interrupt.OVERDUE, Interrupt.STOPPING, Interrupt.CANCELLED])
async def test_a_process_that_has_begun_for_nobody_is_ended(late: Interrupt, out: Path) -> None:
    """The interrupt is marked when the process says that it begins, and before anybody could tell the process."""
    job = Job(message_of(jobs.note, str(out), "one"), jobs.note, [], {}, 30.0)
    process = Process()
    answer = process._answer

    def began() -> Any:
        got = answer()
        job.interrupt(late)
        return got

    process._answer = began  # type: ignore[method-assign]
    with pytest.raises(asyncio.CancelledError):
        await asyncio.to_thread(process.run, job)
    assert process.died() and not process.usable() and not out.exists()


@pytest.mark.parametrize("late", [Interrupt.LOST, Interrupt.OVERDUE, Interrupt.STOPPING, Interrupt.CANCELLED])
@pytest.mark.parametrize("on_loop", [False, True])
async def test_a_handler_whose_job_is_over_does_not_begin(on_loop: bool, late: Interrupt) -> None:
    ran: list[int] = []
    ended: list[tuple[Job, Any]] = []

    async def handler() -> None:
        ran.append(1)

    task: Any = MQueue().task(topic="t", name="t")(handler if on_loop else lambda: ran.append(1))
    job = Job(message_of(task), task, [], {}, 30.0)
    job.interrupt(late)
    runs = Executor(asyncio.get_running_loop(), 1, lambda *each: ended.append(each), lambda: 0.5)
    runs.start(job)
    await until(lambda: ended)
    runs.stop()
    assert (ran, ended) == ([], [(job, [RELEASED])])


def message_of(task: Any, *args: Any) -> wire.Message:
    now = datetime.now(UTC)
    return wire.Message(
        id=1, namespace="default", topic="t", priority=0, payload=task.message(*args).payload, deliver_after=now, created_at=now,
        attempt=1, max_retries=3, receipt="1-1", lease_expires_at=now + timedelta(seconds=30), lease=30.0,
    )  # fmt: skip


async def test_processes_that_have_nothing_to_do_for_long_end(broker: FakeBroker, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mqueue.worker.running.executor.Processes", lambda: Processes(idle_s=0.3))
    broker.enqueue([jobs.modest.message(str(out)) for _ in range(3)])
    async with working(jobs.app, broker, concurrency=3) as worker:
        await until(lambda: worker.counts["ack"] == 3)
        await until(lambda: not children())
        broker.enqueue([jobs.note.message(str(out), "more")])
        await until(lambda: worker.counts["ack"] == 4)
        await until(lambda: not children())


async def test_a_task_that_its_module_does_not_show_is_refused_at_the_start(broker: FakeBroker) -> None:
    app = MQueue()

    @app.task(executor="process", name="hidden")
    def hidden() -> None: ...

    async with asyncio.timeout(10):
        with pytest.raises(WorkerError, match="task hidden: executor='process' needs it in its module under the name"):
            await Worker(app, url=broker.url, token=broker.token).run()


def test_memory_that_cannot_be_watched_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mqueue.worker.memory.MEMORY", Path("/nowhere/statm"))
    with pytest.raises(TypeError, match="memory_limit_mb needs /nowhere/statm"):
        jobs.modest.check_process()


@pytest.mark.parametrize("wrong", [{"time_limit": 3}, {"memory_limit_mb": 3}, {"executor": "threads"}])
def test_limits_are_for_processes(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"process|time_limit=0"):
        MQueue().task(**wrong)


def test_exit_codes_in_words() -> None:
    assert how(-signal.SIGTERM) == "was killed by SIGTERM"
    assert how(-63) == "was killed by signal 63"
    assert how(0) == "exited with code 0 before the job had ended"


WORKER = """
    import asyncio, sys
    import process_jobs
    from mqueue.worker.runtime import Worker
    asyncio.run(Worker(process_jobs.app, url=sys.argv[1], token=sys.argv[2]).run())
"""


def test_the_processes_of_a_killed_worker_end(broker: FakeBroker, out: Path) -> None:
    broker.enqueue([jobs.hold.message(str(out)), jobs.note.message(str(out), "idle")])
    here = [str(Path(__file__).parents[2]), str(ROOT)]
    command = [sys.executable, "-c", textwrap.dedent(WORKER), broker.url, broker.token]
    with subprocess.Popen(command, env=os.environ | {"PYTHONPATH": os.pathsep.join(here)}) as worker:
        pids = [int(pid) for pid, *_ in wait_until(lambda: noted(out), "both have begun", enough=lambda notes: len(notes) == 2)]
        assert len(set(pids)) == 2
        worker.kill()
    wait_until(lambda: not any(psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE for pid in pids))
