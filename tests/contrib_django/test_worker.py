"""A worker of its own that runs what a site enqueues, on a real broker; and what the site, and another program, hear of
it.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mqueue.paths import Endpoint
from tests import ROOT
from tests.waiting import wait_until

LOOK = """
import django

django.setup()

from django.tasks import task_backends

result = task_backends[{backend!r}].get_result({id!r})
print(result.status.name, result.task.module_path, result.return_value, result.attempts, result.enqueued_at <= result.started_at)
"""


def test_mqueue_worker_runs_what_a_site_enqueues(tasks: Any, mqueue_endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    from django.db import transaction
    from django.tasks import task_backends
    from django.tasks.exceptions import TaskResultDoesNotExist
    from shop.models import Note

    for alias in ("default", "low"):
        task_backends[alias].app.producer.connect(mqueue_endpoint.url, mqueue_endpoint.token)
    path = os.pathsep.join([str(ROOT), str(Path(__file__).parent)])
    told = {"MQUEUE_URL": mqueue_endpoint.url, "MQUEUE_TOKEN": mqueue_endpoint.token or "", "PYTHONPATH": path}
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    with transaction.atomic():
        sent = tasks.send.enqueue("ada")
    sent_async = tasks.send_async.enqueue("bob")
    failing = tasks.attempt_async.enqueue()
    held = tasks.hold.enqueue("let go")
    low = tasks.add.using(backend="low", queue_name="slow").enqueue(3)
    for result in (sent, sent_async, failing, held, low):
        result.refresh()
        assert (result.status.name, result.attempts) == ("READY", 0)
    command = [sys.executable, "-m", "mqueue.cli", "worker", "mqueue.contrib.django.worker", "--concurrency", "4"]
    worker = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        comes_to(sent, "SUCCESSFUL", worker)
        comes_to(sent_async, "SUCCESSFUL", worker)
        comes_to(held, "RUNNING", worker)
        assert (held.attempts, held.worker_ids) == (1, ["unknown"])
        Note.objects.create(text="let go")
        comes_to(held, "SUCCESSFUL", worker)
        comes_to(failing, "FAILED", worker)
        comes_to(low, "SUCCESSFUL", worker)
        assert (sent.return_value, sent_async.return_value, held.return_value) == ("ada", None, None)
        assert sent.worker_ids == sent_async.worker_ids == held.worker_ids
        assert (failing.attempts, failing.errors[0].exception_class) == (2, ValueError)
        assert failing.errors[0].traceback.endswith("ValueError: attempt 2")
        assert failing.enqueued_at <= failing.finished_at
        assert sorted(Note.objects.values_list("text", flat=True)) == ["let go", "sent async to bob", "sent to ada"]
        for result, says in ((sent, "shop.tasks.send ada"), (low, "shop.tasks.add {'sum': [4], 'note': None}")):
            code = LOOK.format(backend=result.backend, id=result.id)
            looked = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
            assert looked.stdout == f"SUCCESSFUL {says} 1 True\n", looked.stderr
        for nothing in (int(sent.id) + 1, 2**63 - 1, 2**63, 10**19 - 1):
            with pytest.raises(TaskResultDoesNotExist):
                tasks.send.get_result(str(nothing))
    finally:
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(40) == 0


def comes_to(result: Any, status: str, worker: "subprocess.Popen[bytes]") -> None:
    """Returns when the result has that status; the worker must go on meanwhile."""

    def look() -> str:
        assert worker.poll() is None
        result.refresh()
        return str(result.status.name)

    wait_until(look, f"it is {status}", 40, enough=lambda seen: seen == status)
