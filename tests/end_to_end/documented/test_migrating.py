"""The guides to move over, run on both sides: theirs with its own worker on a Valkey, ours with a broker. Both print
what the page shows.
"""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest
import redis
from celery import Celery
from celery.schedules import crontab

from mqueue.broker.embedded.binaries import find_valkey
from mqueue.client import Client
from mqueue.schedule import Spec, moment, next_after
from tests import ROOT
from tests.processes.broker import Broker
from tests.waiting import wait_until

from .test_docs import FENCE, blocks, commands

BIN = Path(sys.executable).parent
GUIDES = ROOT / "docs" / "migrating"


@pytest.fixture(scope="module")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The socket of a Valkey for the others' queues."""
    socket = tmp_path_factory.mktemp("v") / "s"
    options = ["--port", "0", "--unixsocket", str(socket), "--save", "", "--dir", str(socket.parent)]
    process = subprocess.Popen([str(find_valkey()), *options], stdout=subprocess.DEVNULL)
    try:
        with redis.Redis(unix_socket_path=str(socket)) as client:
            wait_until(lambda: socket.exists() and client.ping(), "Valkey answers", 20)
        yield socket
    finally:
        process.terminate()
        process.wait(20)


class Side:
    """One side of a page in `folder`: its calls, which begin before its worker, and what both print."""

    def __init__(self, folder: Path, environment: Mapping[str, str], calls: str, worker: str) -> None:
        self._folder, self._environment, self._worker = folder, dict(environment), worker
        self._calls = self._spawn("calls", sys.executable, "-u", calls)
        self._processes = [self._calls]

    def work(self) -> None:
        """Starts the worker, once the calls have said something."""
        wait_until(lambda: self.said() or self._calls.poll() is not None, "the first calls are made", 30)
        self._processes.append(self._spawn("worker", "bash", "-c", f"exec {self._worker.replace('.venv/bin/', '')}"))

    def said(self) -> list[str]:
        return (self._folder / "calls.out").read_text().splitlines()

    def printed(self, expected: list[str]) -> list[str]:
        """By the worker; Dramatiq's prints to where it logs, at times on the same line."""
        text = "".join((self._folder / f"worker.{kind}").read_text() for kind in ("out", "log"))
        return re.findall("|".join(map(re.escape, expected)), text)

    def until_printed(self, expected: list[str]) -> None:
        """Raises AssertionError with what there is."""
        try:
            printed, wanted = lambda: sorted(self.printed(expected)), sorted(expected)
            wait_until(printed, "the worker prints what the page shows", 60, enough=lambda lines: lines == wanted)
            assert self._calls.wait(30) == 0
        except AssertionError as error:
            logs = "\n".join(path.read_text()[-4000:] for path in sorted(self._folder.glob("*.out")) + sorted(self._folder.glob("*.log")))
            raise AssertionError(f"{error}\n{logs}") from None

    def stop(self) -> None:
        for process in self._processes:
            process.send_signal(signal.SIGTERM)

    def close(self) -> None:
        self.stop()
        for process in self._processes:
            try:
                process.wait(30)
            finally:
                process.kill()

    def _spawn(self, name: str, *command: str) -> "subprocess.Popen[bytes]":
        with (self._folder / f"{name}.out").open("wb") as out, (self._folder / f"{name}.log").open("wb") as log:
            return subprocess.Popen(command, cwd=self._folder, env=self._environment, stdout=out, stderr=log)


REDIS_URL = {"celery": "redis+socket://{}?virtual_host=0", "dramatiq": "unix://{}?db=1", "rq": "unix://{}?db=2"}
DEAD = {"celery": 2, "dramatiq": 1, "rq": 1}


def test_every_guide_is_run() -> None:
    assert {page.stem for page in GUIDES.glob("*.md")} == set(REDIS_URL)
    assert {kind for page in GUIDES.glob("*.md") for kind, _ in FENCE.findall(page.read_text())} == {"", "bash", "python"}


def test_what_the_celery_page_runs_at_times_comes_at_the_same_times_on_both_sides() -> None:
    """Also what has a day of the month and one of the week."""
    page = (GUIDES / "celery.md").read_text()
    theirs = re.findall(r'"schedule": (crontab\(.*?\))\}', page)
    ours = re.findall(r'cron="(.*?)"', page)
    assert len(theirs) == len(ours) == 2
    now, utc = datetime(2026, 1, 1, 12, tzinfo=UTC), Celery(set_as_current=False)
    for their, our in zip(theirs, ours, strict=True):
        schedule = eval(their, {"crontab": partial(crontab, app=utc, nowfun=lambda: at)})
        at, ticks, at_us = now, [], int(now.timestamp()) * 1_000_000
        for _ in range(30):
            at += schedule.remaining_estimate(at)
            at_us = next_after(Spec(our), at_us) or 0
            ticks.append((at, moment(at_us)))
        assert [tick for tick, _ in ticks] == [tick for _, tick in ticks], (their, our)


@pytest.mark.slow
@pytest.mark.parametrize("name", list(REDIS_URL))
def test_both_sides_of_the_page_do_the_same(name: str, broker: Broker, valkey: Path, tmp_path: Path) -> None:
    page = GUIDES / f"{name}.md"
    [shell], [says] = blocks(page, "bash"), blocks(page, "")
    workers, expected = [c.line for c in commands(shell)], says.splitlines()
    environment = Broker.environment({
        "MQUEUE_URL": broker.url, "MQUEUE_TOKEN": broker.token, "REDIS_URL": REDIS_URL[name].format(valkey), "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1", "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
    })  # fmt: skip
    places = [tmp_path / "theirs", tmp_path / "ours"]
    for place in places:
        place.mkdir()
        for block in blocks(page, "python"):
            file, _, code = block.partition("\n")
            with (place / file.removeprefix("# ")).open("a") as module:
                module.write(code + "\n")
    with ExitStack() as stack:
        theirs = Side(places[0], environment, f"{name}_calls.py", workers[0])
        stack.callback(theirs.close)
        ours = Side(places[1], environment, "calls.py", workers[1])
        stack.callback(ours.close)
        for side in (theirs, ours):
            side.work()
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
        tests = subprocess.Popen(command, cwd=places[1], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        stack.enter_context(tests)
        stack.callback(tests.kill)
        for side in (theirs, ours):
            side.until_printed(expected)
        with Client(broker.url, broker.token) as client:
            wait_until(lambda: len(client.dead_letters(f"{name}-orders")) == DEAD[name], "what has failed for good is a dead letter", 30)
            wait_until(lambda: any(schedule.topic == f"{name}-orders" for schedule in client.schedules()), "what is periodic is known", 10)
        for side in (theirs, ours):
            side.stop()
        assert theirs.said() == ours.said()
        for side in (ours,) if name == "dramatiq" else (theirs, ours):  # Dramatiq sorts what it has fetched, if it comes to it
            in_order = [line for line in side.printed(expected) if line.endswith((" to ada", " to bob"))]
            assert in_order == ["confirmed 2 to bob", "confirmed 1 to ada"]
        told, _ = tests.communicate(timeout=60)
        assert tests.returncode == 0, told
