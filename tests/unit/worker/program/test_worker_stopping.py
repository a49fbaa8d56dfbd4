"""How a worker stops: by a signal, by a second one, by itself; and what that does to its jobs."""

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from fake_broker import FakeBroker

from mqueue.repeats import SAME_S
from mqueue.worker.runtime import Worker
from mqueue.worker.stopping import CANCEL_S, HURRY_S
from mqueue.worker.tasks.app import MQueue
from tests import ROOT
from tests.waiting import until, wait_until

BUSY_S = 3.0  # a machine that does other things, too


def recycled(app: MQueue, broker: FakeBroker, grace: float) -> tuple[Worker, "asyncio.Task[int]"]:
    worker = Worker(app, url=broker.url, token=broker.token, concurrency=2, grace=grace, max_jobs=1)
    return worker, asyncio.create_task(worker.run())


@pytest.fixture
def begun() -> asyncio.Event:
    return asyncio.Event()


@pytest.fixture
def gate() -> asyncio.Event:
    return asyncio.Event()


@pytest.fixture
def app(broker: FakeBroker, begun: asyncio.Event, gate: asyncio.Event) -> MQueue:
    app = MQueue(broker.url, broker.token)

    @app.task(topic="t", name="long")
    async def long() -> None:
        begun.set()
        await gate.wait()

    @app.task(topic="t", name="quick")
    async def quick() -> None:
        await begun.wait()

    broker.enqueue([long.message(), quick.message()])
    return app


async def test_one_that_has_run_for_long_enough_waits_for_its_jobs(app: MQueue, broker: FakeBroker, gate: asyncio.Event) -> None:
    worker, run = recycled(app, broker, grace=0.01)
    await until(lambda: worker.counts["ack"] == 1)
    await asyncio.wait([run], timeout=0.2)
    assert not run.done() and worker.status().problem == "the worker stops"
    gate.set()
    async with asyncio.timeout(10):
        assert await run == 0
    assert worker.counts == {"ack": 2}


async def test_its_jobs_have_their_grace_from_the_first_signal_on(app: MQueue, broker: FakeBroker, gate: asyncio.Event) -> None:
    worker, run = recycled(app, broker, grace=60)
    await until(lambda: worker.counts["ack"] == 1)
    worker.stop()
    await asyncio.wait([run], timeout=0.2)
    assert not run.done()
    worker.retire()
    await asyncio.wait([run], timeout=0.1)
    assert not run.done(), "that is no second word"
    worker.stop()
    async with asyncio.timeout(10):
        assert await run == 0
    assert worker.counts == {"ack": 1, "release": 1} and worker.cut_off == 0


async def test_a_second_word_does_not_wait_for_a_broker_that_is_away(app: MQueue, broker: FakeBroker, begun: asyncio.Event) -> None:
    worker = Worker(app, url=broker.url, token=broker.token, grace=60)
    run = asyncio.create_task(worker.run())
    await begun.wait()
    await until(lambda: worker.counts["ack"] == 1)
    broker.server.down()
    worker.stop()
    await asyncio.sleep(0)
    worker.stop()
    began = time.monotonic()
    async with asyncio.timeout(30):
        assert await run == 1
    assert time.monotonic() - began < 6


async def test_the_exit_keeps_within_the_grace_where_the_broker_is_away(app: MQueue, broker: FakeBroker, begun: asyncio.Event) -> None:
    grace = 0.5
    worker = Worker(app, url=broker.url, token=broker.token, grace=grace)
    run = asyncio.create_task(worker.run())
    await begun.wait()
    await until(lambda: worker.counts["ack"] == 1)
    await asyncio.to_thread(broker.server.down)
    began = time.monotonic()
    worker.stop()
    async with asyncio.timeout(30):
        assert await run == 1
    beyond = CANCEL_S + HURRY_S
    assert time.monotonic() - began < grace + beyond + BUSY_S


PROGRAM = """
    import sys
    from mqueue import logs
    from mqueue.worker.program.program import run
    logs.configure()
    sys.exit(run(["jobs"], concurrency=2, grace=60))
"""


def heed() -> None:
    """Whatever these tests run in the background of."""
    for sign in (signal.SIGHUP, signal.SIGINT):
        signal.signal(sign, signal.SIG_DFL)


@contextmanager
def program(broker: FakeBroker, folder: Path, code: str, *under: str) -> Iterator["subprocess.Popen[str]"]:
    (folder / "jobs.py").write_text(textwrap.dedent(code))
    environ = os.environ | {"MQUEUE_URL": broker.url, "MQUEUE_TOKEN": broker.token, "PYTHONPATH": str(ROOT)}
    command = [*under, sys.executable, "-c", textwrap.dedent(PROGRAM)]
    with subprocess.Popen(
        command, cwd=folder, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heed
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def end_at_once(process: "subprocess.Popen[str]") -> None:
    process.send_signal(signal.SIGTERM)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(SAME_S + 0.2)  # two that come together are one
    process.send_signal(signal.SIGTERM)
    assert process.wait(15) == 0


@pytest.mark.parametrize("again", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_that_comes_twice_is_one(broker: FakeBroker, tmp_path: Path, again: signal.Signals) -> None:
    """As where a process manager tells the whole group, and a parent passes on what it was told."""
    code = """
        import time
        from mqueue import task

        @task(topic="t")
        def run() -> None:
            print("running", flush=True)
            time.sleep(3)  # both signals come meanwhile
            print("done", flush=True)
    """
    app = MQueue(broker.url, broker.token)
    app.task(topic="t", name="jobs.run")(lambda: None).enqueue()
    with program(broker, tmp_path, code) as process:
        assert process.stdout is not None and process.stdout.readline() == "running\n"
        process.send_signal(signal.SIGTERM)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.1)
        process.send_signal(again)
        assert process.stdout.readline() == "done\n"
        assert process.wait(15) == 0
    assert not broker.live()


@pytest.mark.parametrize("late", [True, False])
def test_a_second_signal_ends_a_worker_whose_loop_is_blocked(broker: FakeBroker, tmp_path: Path, late: bool) -> None:
    """`late`: it is known by then that it is."""
    code = """
        import time
        from mqueue import task

        @task(topic="t")
        async def block() -> None:
            print("blocked", flush=True)
            while True:
                time.sleep(1)  # the loop is blocked for ever
    """
    app = MQueue(broker.url, broker.token)
    app.task(topic="t", name="jobs.block")(lambda: None).enqueue()
    with program(broker, tmp_path, code) as process:
        assert process.stdout is not None and process.stdout.readline() == "blocked\n"
        assert process.stderr is not None
        while late and "event loop blocked" not in process.stderr.readline():
            pass
        process.send_signal(signal.SIGTERM)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(SAME_S + 0.2)
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 1


def test_a_second_signal_does_not_wait_for_a_thread_that_a_handler_waits_for(broker: FakeBroker, tmp_path: Path) -> None:
    code = """
        import asyncio, time
        from mqueue import task

        @task(topic="t")
        async def run() -> None:
            print("running", flush=True)
            await asyncio.to_thread(time.sleep, 60)
    """
    app = MQueue(broker.url, broker.token)
    app.task(topic="t", name="jobs.run")(lambda: None).enqueue()
    with program(broker, tmp_path, code) as process:
        assert process.stdout is not None and process.stdout.readline() == "running\n"
        end_at_once(process)


def test_the_end_of_the_terminal_stops_it_unless_it_is_to_be_ignored(broker: FakeBroker, tmp_path: Path) -> None:
    app = MQueue(broker.url, broker.token)
    app.task(topic="t", name="jobs.run")(lambda: None).enqueue()
    code = """
        import time
        from mqueue import task

        @task(topic="t")
        def run() -> None:
            print("ran", flush=True)
    """
    for ignored in (True, False):
        with program(broker, tmp_path, code, *(["nohup"] if ignored else [])) as process:
            if ignored:
                assert process.stdout is not None and process.stdout.readline() == "ran\n"
            else:
                assert process.stderr is not None and any("started" in line for line in process.stderr)
            process.send_signal(signal.SIGHUP)
            if ignored:
                with pytest.raises(subprocess.TimeoutExpired):
                    process.wait(0.5)
                process.send_signal(signal.SIGTERM)
            assert process.wait(15) == 0


@pytest.mark.parametrize("kind", ["async def", "def"])
def test_what_waits_for_the_end_of_the_process_runs_though_a_job_was_cut_off(broker: FakeBroker, tmp_path: Path, kind: str) -> None:
    code = f"""
        import asyncio, atexit, time
        from mqueue import task

        atexit.register(lambda: print("flushed", flush=True))

        @task(topic="t")
        {kind} run() -> None:
            print("running", flush=True)
            {"await asyncio.Event().wait()" if kind == "async def" else "time.sleep(60)"}  # the job is cut off
    """
    app = MQueue(broker.url, broker.token)
    app.task(topic="t", name="jobs.run")(lambda: None).enqueue()
    with program(broker, tmp_path, code) as process:
        assert process.stdout is not None and process.stdout.readline() == "running\n"
        end_at_once(process)
        assert process.stdout.read() == "flushed\n"
    wait_until(lambda: [(s.leased, s.attempts) for s in broker.live()] == [(False, 0)])
