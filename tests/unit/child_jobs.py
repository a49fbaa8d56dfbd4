"""Tasks for the process that a job has to itself; imported there."""

import os
import signal
import subprocess
import sys
from contextvars import ContextVar
from pathlib import Path

from mqueue import MQueue
from tests.waiting import wait_until

app = MQueue()
tenant: ContextVar[str] = ContextVar("tenant")


def note(file: str, text: object) -> None:
    with Path(file).open("a") as out:
        out.write(f"{os.getpid()} {text}\n")


@app.task(topic="child", executor="process")
def serve(file: str, name: str) -> None:
    note(file, tenant.get("nobody"))
    tenant.set(name)


@app.task(topic="child", executor="process")
async def serve_async(file: str, name: str) -> None:
    serve(file, name)


@app.task(topic="child", executor="process", max_retries=1)
def speak(file: str, stdout: str) -> None:
    note(file, stdout)
    sys.stdout.write("kept until it is flushed")
    match stdout:
        case "full":
            os.dup2(os.open("/dev/full", os.O_WRONLY), sys.stdout.fileno())
        case "closed":
            sys.stdout.close()
        case "none":
            sys.stdout = None  # type: ignore[assignment]


@app.task(topic="child", executor="process", max_retries=0)
def wait(file: str, gate: str) -> None:
    note(file, "began")
    wait_until(Path(gate).exists)


@app.task(topic="child", executor="process", max_retries=0)
def start_others(file: str) -> None:
    """Both end by SIGTERM: what is forked, and what is another program."""
    forked = os.fork()
    if forked == 0:
        signal.pause()
        os._exit(0)
    os.kill(forked, 15)
    note(file, os.waitpid(forked, 0)[1])
    other = subprocess.Popen(["sleep", "30"])
    other.terminate()
    note(file, other.wait())
