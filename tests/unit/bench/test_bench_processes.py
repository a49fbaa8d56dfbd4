"""The processes of a turn: what they say, what they cost, that none is left behind; the file that the jobs write to."""

import os
import sys
from pathlib import Path

import psutil
import pytest

from benchmarks.comparison.processes import Process, cpu_s, family, running
from benchmarks.comparison.turn import Done
from benchmarks.peers import job
from tests.waiting import wait_until

PARENT = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
print(child.pid, flush=True)
for line in sys.stdin:
    print(sum(range(int(line))), flush=True)
child.wait()
"""


def test_a_process_answers_and_is_ended_with_its_children(tmp_path: Path) -> None:
    with running([[sys.executable, "-c", PARENT]], tmp_path, tmp_path / "log", {}, talk=True) as [process]:
        child = int(process.line())
        assert {each.pid for each in family([process.pid])} == {process.pid, child}
        process.tell("5")
        assert process.line() == "10\n"
        before = cpu_s([process.pid])
        process.tell("20000000")
        process.line()
        assert cpu_s([process.pid]) > before
    wait_until(lambda: not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE, "the child has ended")
    assert cpu_s([process.pid]) == 0


def test_one_that_ends_says_why(tmp_path: Path) -> None:
    process = Process([sys.executable, "-c", "raise SystemExit('no store')"], tmp_path, tmp_path / "log", {})
    with pytest.raises(RuntimeError, match="ended with 1: no store"):
        process.line()
    process.stop()


def test_what_our_environment_says_of_a_broker_is_kept_from_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MQUEUE_URL", "http://elsewhere")
    code = "import os; print([os.environ.get(name) for name in ('MQUEUE_URL', 'BENCH_URL')], flush=True)"
    with running([[sys.executable, "-c", code]], tmp_path, tmp_path / "log", {"BENCH_URL": "here"}, talk=True) as [process]:
        assert process.line() == "[None, 'here']\n"


def test_the_jobs_are_counted_and_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = Done(tmp_path / "done")
    assert (done.count(), done.records(), done.processes(0)) == (0, [], 0)
    monkeypatch.setenv("BENCH_DONE", str(tmp_path / "done"))
    job._file.cache_clear()
    for _ in range(3):
        payload = job.payload()
        assert len(payload) == job.PAYLOAD_BYTES
        job.run(payload)
    os.close(job._file())
    job._file.cache_clear()
    assert done.count() == 3 and done.processes(0) == done.processes(2) == 1
    assert done.records(2) == done.records()[2:]
    assert all(0 <= seconds < 60 and process == os.getpid() for seconds, process in done.records())
