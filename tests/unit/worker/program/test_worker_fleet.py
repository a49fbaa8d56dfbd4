"""`mqueue worker --processes N`: the parent keeps its workers running, and they do not outlive it. Recycling,
reloading.
"""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from fake_broker import FakeBroker, start
from structlog.testing import capture_logs
from working import ask

from mqueue import MQueue
from mqueue.client import Client
from mqueue.repeats import SAME_S
from mqueue.worker import recycling, runtime
from mqueue.worker.memory import MB, MEMORY, held_by
from mqueue.worker.program import changes, fleet
from mqueue.worker.program.options import Options
from mqueue.worker.recycling import Recycling
from mqueue.worker.runtime import Worker
from mqueue.worker.sources import WorkerError, sources
from tests import ROOT
from tests.waiting import until, wait_until

JOBS = """
    import os
    from pathlib import Path
    from mqueue import task
    from tests.waiting import until, wait_until

    def note(text):
        with Path(os.environ["OUT"]).open("a") as file:
            file.write(f"{text}\\n")

    @task(topic="fleet")
    def tell() -> None:
        note(f"one {os.getpid()}")

    @task(topic="fleet")
    def hold() -> None:
        note(f"begun {os.getpid()}")
        wait_until(Path(os.environ["OUT"] + ".end").exists, seconds=60)
        note("ended")

    @task(topic="fleet")
    def leave() -> None:
        if os.fork() == 0:
            try:
                wait_until(Path(os.environ["OUT"] + ".end").exists)
            finally:
                os._exit(0)
        os._exit(9)
"""


class Place:
    def __init__(self, folder: Path, broker: FakeBroker) -> None:
        self.folder = folder
        self.out = folder / "out.txt"
        self.log = folder / "log.txt"
        self.client = Client(broker.url, broker.token)
        self.environ = {**os.environ, "MQUEUE_URL": broker.url, "MQUEUE_TOKEN": broker.token, "OUT": str(self.out), "PYTHONPATH": str(ROOT)}
        self.write(JOBS)

    def write(self, code: str) -> None:
        (self.folder / "fleet_jobs.py").write_text(textwrap.dedent(code))

    @contextmanager
    def worker(self, *options: str) -> "Iterator[subprocess.Popen[bytes]]":
        command = [sys.executable, "-m", "mqueue.cli", "worker", "fleet_jobs", "--probe-port", "0", *options]
        with self.log.open("ab") as log, subprocess.Popen(command, cwd=self.folder, env=self.environ, stdout=log, stderr=log) as process:
            try:
                yield process
            finally:
                process.kill()

    def enqueue(self, *names: str) -> None:
        for name in names:
            self.client.enqueue("fleet", json.dumps({"task": f"fleet_jobs.{name}"}).encode())

    def lines(self, word: str) -> list[str]:
        return [line for line in self.out.read_text().splitlines() if line.startswith(word)] if self.out.exists() else []

    def logged(self, event: str) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{") and line.endswith("}")]
        return [line for line in lines if line["event"] == event]

    def ask(self, path: str) -> tuple[int, str]:
        probes = self.logged("probe")
        if not probes:
            return 0, ""
        try:
            return ask(probes[-1]["port"], path)
        except OSError:  # it is gone by now
            return 0, ""

    def ready(self) -> bool:
        return self.ask("/ready")[0] == 200


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with start() as broker:
        yield Place(tmp_path, broker)


def test_one_that_falls_is_started_again_and_a_signal_stops_all(place: Place) -> None:
    with place.worker("--processes", "2", "--concurrency", "1") as parent:
        wait_until(place.ready, "both are ready")
        assert "mqueue_worker_processes 2\n" in place.ask("/metrics")[1] and "mqueue_worker_slots 2\n" in place.ask("/metrics")[1]
        place.enqueue("hold", "hold")
        pids = [int(line.split()[1]) for line in wait_until(lambda: len(place.lines("begun")) == 2 and place.lines("begun"), "each has a job")]
        assert len(set(pids)) == 2 and parent.pid not in pids
        os.kill(pids[0], signal.SIGKILL)
        wait_until(lambda: place.logged("worker process fell, is started again"), "the parent saw it")
        assert place.ask("/ready")[0] == 503
        wait_until(place.ready, "another is there")
        [fall] = place.logged("worker process fell, is started again")
        assert "killed by SIGKILL" in fall["error"] and fall["pause"] <= 0.5
        parent.send_signal(signal.SIGTERM)
        wait_until(lambda: place.ask("/ready")[1].startswith("not ready: the worker stops"), "it says so")
        Path(f"{place.out}.end").touch()
        assert parent.wait(20) == 0
        assert place.lines("ended") == ["ended"]
    assert len(place.logged("stopped")) == 2


def test_one_that_falls_and_leaves_a_process_behind_is_started_again(place: Place) -> None:
    """What it has forked holds its channel open."""
    with place.worker("--processes", "1") as parent:
        wait_until(place.ready, "it is ready")
        place.enqueue("leave")
        [fall] = wait_until(lambda: place.logged("worker process fell, is started again"), "the parent saw it")
        assert "exited with code 9" in fall["error"]
        Path(f"{place.out}.end").touch()
        wait_until(place.ready, "another is there")
        parent.terminate()
        assert parent.wait(20) == 0


async def test_a_machine_without_a_process_to_spare_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once a worker has worked; before, it is told at once."""
    tries = 0

    async def full(*command: str, **options: Any) -> None:
        nonlocal tries
        tries += 1
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(asyncio, "create_subprocess_exec", full)
    monkeypatch.setattr(fleet, "PAUSE_S", 0.01)
    with pytest.raises(fleet.FleetError, match=r"cannot be started: .* temporarily unavailable"):
        await fleet.Fleet(Options(modules=("m",)), 1).run()
    worked = fleet.Fleet(Options(modules=("m",)), 1)
    worked._worked, tries = True, 0
    run = asyncio.create_task(worked.run())
    await until(lambda: tries >= 3)
    worked.stop()
    async with asyncio.timeout(10):
        assert await run == 0


async def test_an_end_of_the_watch_on_the_code_is_told() -> None:
    async def broken() -> AsyncIterator[object]:
        yield "a change"
        raise OSError("no more watches")

    with capture_logs() as logs:
        await fleet.Fleet(Options(modules=("m",)), 1, changes=broken())._renew()
    assert [log["event"] for log in logs] == ["code changed, worker processes are started anew", "changes of the code are not seen any more"]
    assert logs[1]["error"] == "OSError: no more watches"


def test_a_second_signal_is_passed_on_too(place: Place) -> None:
    with place.worker("--processes", "2", "--grace", "60") as parent:
        place.enqueue("hold")
        wait_until(lambda: place.lines("begun"), "it runs")
        parent.send_signal(signal.SIGINT)
        wait_until(lambda: "the worker stops" in place.ask("/ready")[1], "it has the first")
        with pytest.raises(subprocess.TimeoutExpired):
            parent.wait(SAME_S + 0.1)  # two that come together are one
        parent.send_signal(signal.SIGINT)
        assert parent.wait(20) == 0
    assert sum(line.get("release", 0) for line in place.logged("stopped")) == 1


def test_a_signal_to_all_processes_leaves_the_grace(place: Place) -> None:
    """As process managers send it: each worker gets it twice, from them and from its parent."""
    with place.worker("--processes", "2", "--grace", "60") as parent:
        place.enqueue("hold")
        pid = int(wait_until(lambda: place.lines("begun"), "it runs")[0].split()[1])
        for sign in (signal.SIGTERM, signal.SIGINT, signal.SIGTERM):
            os.kill(pid, sign)
            time.sleep(0.1)  # two signals at once may be delivered as one
        parent.send_signal(signal.SIGTERM)
        wait_until(lambda: "the worker stops" in place.ask("/ready")[1], "the parent has it")
        with pytest.raises(subprocess.TimeoutExpired):
            parent.wait(0.5)
        Path(f"{place.out}.end").touch()
        assert parent.wait(20) == 0
        assert place.lines("ended") == ["ended"]


def test_a_parent_that_dies_after_its_signal_leaves_the_grace(place: Place) -> None:
    with place.worker("--processes", "1", "--grace", "60") as parent:
        place.enqueue("hold")
        wait_until(lambda: place.lines("begun"), "it runs")
        parent.send_signal(signal.SIGTERM)
        wait_until(lambda: "the worker stops" in place.ask("/ready")[1], "the parent has it")
        parent.kill()
        parent.wait(20)
        time.sleep(0.5)  # one that took this for a second signal would end
        Path(f"{place.out}.end").touch()
        wait_until(lambda: place.logged("stopped"), "it ends by itself")
    [last] = place.logged("stopped")
    assert last.get("ack") == 1 and "release" not in last


@pytest.mark.parametrize(
    ("code", "says"), [("1 / 0", "cannot import module fleet_jobs: ZeroDivisionError"), ("import os; os._exit(7)", "exited with code 7\n")]
)
def test_what_cannot_start_at_all_ends_the_parent_with_its_error(place: Place, code: str, says: str) -> None:
    place.write(code)
    with place.worker("--processes", "2") as parent:
        assert parent.wait(20) in (1, 7)
    [error] = [line for line in place.log.read_text().splitlines() if line.startswith("Error: ")]
    assert says in error + "\n"


def test_a_refused_token_ends_the_parent(place: Place) -> None:
    with place.worker("--processes", "1", "--token", "wrong") as parent:
        assert parent.wait(20) == 1
    assert "Error: token missing or not valid" in place.log.read_text()


def test_one_that_has_done_its_share_is_replaced_at_once(place: Place) -> None:
    with place.worker("--processes", "1", "--max-jobs", "2", "--concurrency", "1") as parent:
        place.enqueue(*["tell"] * 5)
        wait_until(lambda: len(place.lines("one")) == 5, "all have run")
        runs = [line.split()[1] for line in place.lines("one")]
        assert runs[0] == runs[1] != runs[2] == runs[3] != runs[4]
        wait_until(lambda: re.search(r'outcome="ack"} 5\n', place.ask("/metrics")[1]), "those of past processes count")
        parent.terminate()
        assert parent.wait(20) == 0
    assert not place.logged("worker process fell, is started again")
    assert place.logged("the worker has run for long enough, stops")[0]["reason"] == "max_jobs=2 have ended"


def test_workers_stop_by_themselves_when_their_parent_is_gone(place: Place) -> None:
    with place.worker("--processes", "1") as parent:
        place.enqueue("hold")
        [line] = wait_until(lambda: place.lines("begun"), "it runs")
        parent.kill()
        parent.wait()
        wait_until(lambda: not _listens(place), "nobody answers for it")
        Path(f"{place.out}.end").touch()
        wait_until(lambda: not Path(f"/proc/{line.split()[1]}").exists(), "it has ended")
    assert place.lines("ended") == ["ended"] and place.client.topics() == []


def _listens(place: Place) -> bool:
    return place.ask("/live")[0] != 0


def test_a_change_of_the_code_starts_workers_anew(place: Place) -> None:
    with place.worker("--reload") as parent:
        wait_until(place.ready, "it is ready")
        place.write("1 / 0")
        wait_until(lambda: place.logged("worker process fell, waits for a change"), "what is wrong is told")
        place.write(JOBS.replace("one ", "two "))
        place.enqueue("tell")
        wait_until(lambda: place.lines("two"), "the new code runs")
        parent.terminate()
        assert parent.wait(20) == 0


# ── what is looked at ──


async def test_watchfiles_tells_of_them_too(tmp_path: Path) -> None:
    pytest.importorskip("watchfiles")
    seen = changes.changes(tmp_path)
    change = asyncio.ensure_future(anext(seen))
    async with asyncio.timeout(10):
        while not change.done():
            (tmp_path / "a.py").write_text(str(time.monotonic()))
            await asyncio.wait([change], timeout=0.2)
    await change


async def test_changes_of_python_files_are_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes, "LOOK_S", 0.01)
    for name in ("pkg", ".git", "env", "node_modules"):
        (tmp_path / name).mkdir()
    (tmp_path / "env" / "pyvenv.cfg").touch()
    for path in ("a.py", "pkg/b.py", "a.txt", ".git/c.py", "env/d.py", "node_modules/e.py"):
        (tmp_path / path).write_text("")
    looks, state = 0, changes.state
    assert sorted(Path(path).name for path in state(tmp_path)) == ["a.py", "b.py"]

    def counted(folder: Path) -> changes.State:
        nonlocal looks
        found = state(folder)
        looks += 1
        return found

    async def looked() -> None:
        """Returns after a look that began later than now."""
        before = looks
        await until(lambda: looks > before + 1)

    monkeypatch.setattr(changes, "state", counted)
    seen = changes.looked(tmp_path)
    change = asyncio.ensure_future(anext(seen))
    await looked()
    (tmp_path / "a.txt").write_text("x")
    await looked()
    assert not change.done()
    for step in (lambda: (tmp_path / "pkg/b.py").write_text("x"), lambda: (tmp_path / "a.py").unlink(), lambda: (tmp_path / "n.py").touch()):
        await looked()
        step()
        async with asyncio.timeout(5):
            await change
        change = asyncio.ensure_future(anext(seen))
    change.cancel()
    monkeypatch.setattr(changes, "FILES_MAX", 1)
    assert len(state(tmp_path)) == 1


def test_limits_of_a_worker() -> None:
    assert Recycling().after(10**9) is None and Recycling().now() is None and not Recycling().looks
    assert Recycling(3).after(2) is None and Recycling(3).after(3) == "max_jobs=3 have ended"
    assert Recycling(max_memory_mb=1_000_000).now() is None
    told = Recycling(max_memory_mb=1).now()
    assert told is not None and told.endswith("more than max_memory_mb=1")
    assert 5 < held_by(MEMORY) / MB < 10_000
    for limits in ({"max_jobs": 0}, {"max_memory_mb": 0.5}, {"max_memory_mb": float("nan")}):
        with pytest.raises(ValueError, match="at least 1"):
            Recycling(**limits)
    with pytest.raises(WorkerError, match="max_jobs"):
        Worker(MQueue(), max_jobs=0)


def test_a_limit_of_memory_needs_a_system_that_tells_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recycling, "MEMORY", tmp_path / "none")
    with pytest.raises(ValueError, match="this system does not have"):
        Recycling(max_memory_mb=100)


async def test_a_worker_that_holds_too_much_stops_by_itself(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    app = MQueue(place.client.url, "fake-token")
    app.task(topic="t")(lambda: None)
    held, looks = 10.0, 0

    def memory(statm: Path) -> int:
        nonlocal looks
        looks += 1
        if looks == 3:
            raise OSError(24, "Too many open files")
        return int(held * MB)

    monkeypatch.setattr(recycling, "held_by", memory)
    monkeypatch.setattr(runtime, "LOOK_S", 0.01)
    run = asyncio.create_task(Worker(app, max_memory_mb=20).run())
    await until(lambda: looks >= 5)
    assert not run.done()
    held = 21.0
    async with asyncio.timeout(10):
        assert await run == 0


def test_a_limit_that_no_worker_could_keep_is_told_at_once(place: Place) -> None:
    """Workers that took each other's place without an end would run no job."""
    with place.worker("--processes", "1", "--max-memory-mb", "5") as parent:
        assert parent.wait(20) == 1
    assert re.search(r"it holds \d+ MiB, more than max_memory_mb=5, before its first job", place.log.read_text())


def test_topics_that_are_left_out() -> None:
    app = MQueue()
    for name in "abc":
        app.task(topic=name, name=name)(lambda: None)
    assert [s.topic for s in sources(app, None, [], ["b"])] == ["a", "c"]
    assert [s.topic for s in sources(app, None, ["a", "b"], ["c"])] == ["a", "b"]
    for topics, exclude, says in (([], ["x"], "no task has topic x"), (["a"], ["a"], "at once: a"), ([], ["a", "b", "c"], "every topic")):
        with pytest.raises(WorkerError, match=says):
            sources(app, None, topics, exclude)
