"""Tasks for processes; imported there. What they do to see is in files."""

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from decimal import Decimal
from pathlib import Path

import structlog

from mqueue import Bury, MQueue, Retry, Snooze, current
from tests.waiting import wait_until

app = MQueue()
TOPIC = "processes"


@app.task(topic=TOPIC, executor="process")
def note(file: str, text: str) -> None:
    with Path(file).open("a") as out:
        out.write(f"{os.getpid()} {text} {current().attempt}\n")


@app.task(topic=TOPIC, executor="process")
async def note_async(file: str, text: str) -> None:
    note(file, text)


@app.task(topic=TOPIC, executor="process", result=True, max_retries=0)
def total(numbers: list[Decimal]) -> dict[str, Decimal]:
    return {"total": sum(numbers, Decimal())}


@app.task(topic=TOPIC, executor="process")
def steps(gate: str) -> None:
    for n in range(5000):
        current().progress(n / 10_000, f"step {n}")
    current().progress(0.5, "last of many")
    wait_until(Path(gate).exists)


@app.task(topic=TOPIC, executor="process", result=True)
async def long_text() -> str:
    return "x" * 2_000_000


@app.task(topic=TOPIC, executor="process", max_retries=0)
def end(how: str) -> None:
    if how == "exit":
        os._exit(3)
    if how == "fork":
        if os.fork() == 0:
            time.sleep(3)  # it holds the pipe open meanwhile
        os._exit(4)
    if how == "segfault":
        ctypes.string_at(0)
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "leave":
        sys.exit(5)
    if how == "bury":
        raise Bury("no use")
    if how == "snooze":
        raise Snooze(3)
    raise ValueError(how)


@app.task(topic=TOPIC, executor="process", retry=Retry(never=(LookupError,)))
def choosy() -> None:
    raise KeyError("gone")


@app.task(topic=TOPIC, executor="process", time_limit=0.3, max_retries=0)
def too_long(file: str) -> None:
    """With a process of its own that would go on."""
    child = subprocess.Popen(["sleep", "60"])
    Path(file).write_text(f"{os.getpid()} {child.pid}")
    while True:  # not even asleep
        pass


@app.task(topic=TOPIC, executor="process", memory_limit_mb=150, max_retries=0)
def too_much() -> None:
    held = []
    while True:
        held.append(b"x" * (5 << 20))
        time.sleep(0.01)  # slowly enough to be seen


@app.task(topic=TOPIC, executor="process", memory_limit_mb=150)
def modest(file: str) -> None:
    note(file, "modest")
    time.sleep(0.15)  # long enough to be looked at


@app.task(topic=TOPIC, executor="process")
def greedy(file: str) -> None:
    """Keeps what it took when it has ended."""
    globals()["kept"] = b"x" * (200 << 20)
    note(file, "greedy")


@app.task(topic=TOPIC, executor="process", lease=0.3)
def hold(file: str) -> None:
    note(file, "hold")
    time.sleep(60)  # it is killed


@app.task(topic=TOPIC, name="context", executor="process")
def context(file: str) -> None:
    Path(file).write_text(json.dumps(structlog.contextvars.get_contextvars()))


@app.task(topic=TOPIC, executor="process")
def until_interrupted(file: str, stubborn: bool) -> None:
    with Path(file).open("a", buffering=1) as out:
        out.write("begun\n")
        while True:
            try:
                time.sleep(60)  # it is interrupted
            except KeyboardInterrupt:
                if not stubborn:
                    out.write("cleaned up\n")
                    raise
