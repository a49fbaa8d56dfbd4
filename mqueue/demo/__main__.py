"""Starts a broker with embedded stores and a worker, enqueues, watches, tells what happened, stops what it started."""

import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from mqueue import Client, wire
from mqueue.demo import tasks

JOBS = 10_000
DELAYED, FLAKY, HOPELESS = 500, 200, 20
BATCH = 1_000
START_S, RUN_S, STOP_S = 30.0, 60.0, 30.0
READY = re.compile(r"mqueue broker ready url=(\S+) metrics=(\S+)")


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


class DemoFailed(Exception):
    """One line for the user."""


def main() -> int:
    home = Path(tempfile.mkdtemp(prefix="mqueue-demo-"))
    home.chmod(0o711 if os.geteuid() == 0 else 0o700)  # the account that PostgreSQL runs as must get in
    started: list[subprocess.Popen[str]] = []
    try:
        say("starting PostgreSQL, Valkey and a broker ...")
        url = start_broker(home, started)
        with Client(url, token(home)) as client:
            say(f"broker at {url}; starting a worker ...")
            start_worker(home, url, token(home), started)
            report(home, client, *run(client))
        return 0
    except DemoFailed as failed:
        say(f"the demo failed: {failed}; the logs were in {home}:")
        for log in sorted(home.glob("*.log")):
            say(f"--- {log.name}\n{log.read_text()[-2000:]}")
        return 1
    finally:
        stop(started)
        shutil.rmtree(home, ignore_errors=True)


def environment(home: Path) -> dict[str, str]:
    ours = ("MQUEUE_", "DATABASE_URLS", "REDIS_", "WAL_DIR", "JWT_SECRET", "NAMESPACE_QUOTAS", "TLS_")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)} | {tasks.NOTES: str(home / "notes")}


def spawn(home: Path, name: str, *command: str) -> subprocess.Popen[str]:
    with (home / f"{name}.log").open("w") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "mqueue.cli", *command], stdout=subprocess.PIPE, stderr=log, text=True, cwd=home, env=environment(home)
        )


def start_broker(home: Path, started: list[subprocess.Popen[str]]) -> str:
    broker = spawn(home, "broker", "broker", "--port", "0", "--metrics-port", "0", "--data-dir", str(home / "data"))
    started.append(broker)
    assert broker.stdout is not None
    found = READY.match(broker.stdout.readline())  # ends with the process, at the latest
    if found is None:
        raise DemoFailed("the broker did not start")
    return found[1]


def token(home: Path) -> str:
    command = [sys.executable, "-m", "mqueue.cli", "token", "--data-dir", str(home / "data")]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=START_S, env=environment(home)).stdout.strip()


def start_worker(home: Path, url: str, secret: str, started: list[subprocess.Popen[str]]) -> None:
    with (home / "worker.log").open("w") as log:
        command = [sys.executable, "-m", "mqueue.cli", "worker", "mqueue.demo.tasks", "--concurrency", "100"]
        env = environment(home) | {"MQUEUE_URL": url, "MQUEUE_TOKEN": secret}
        started.append(subprocess.Popen(command, stdout=log, stderr=log, text=True, cwd=home, env=env))


def messages() -> list[wire.EnqueueItem]:
    """The jobs, shuffled: five priorities, some delayed, some that fail once, some that always fail."""
    kinds = [(tasks.hopeless, 0.0)] * HOPELESS + [(tasks.flaky, 0.0)] * FLAKY + [(tasks.job, 2.0)] * DELAYED
    kinds += [(tasks.job, 0.0)] * (JOBS - len(kinds))
    random.shuffle(kinds)
    now = time.time()
    found = []
    for task, delay in kinds:
        wait = delay * random.random()
        found.append(task.options(priority=random.randrange(5), delay=wait).message(now + wait))
    return found


def run(client: Client) -> tuple[float, float]:
    """Enqueues and watches until all has ended. Returns seconds to enqueue, seconds in all."""
    began = time.monotonic()
    items = messages()
    for at in range(0, len(items), BATCH):
        client.enqueue_many(items[at : at + BATCH])
    enqueued = time.monotonic() - began
    while True:
        counts = ended(client)
        line = f"\r  {counts['acked']:>6} processed   {counts['dead']:>3} dead   {time.monotonic() - began:5.1f} s"
        sys.stdout.write(line if sys.stdout.isatty() else line[1:] + "\n")
        sys.stdout.flush()
        if counts["acked"] + counts["dead"] >= JOBS:
            say("")
            return enqueued, time.monotonic() - began
        if time.monotonic() - began > RUN_S:
            raise DemoFailed(f"after {RUN_S:.0f} s only {counts['acked']} of {JOBS} jobs were processed")
        time.sleep(0.25)


def ended(client: Client) -> dict[str, int]:
    """As the ledger in PostgreSQL has it."""
    for topic in client.topics("default"):
        if topic.topic == "demo":
            return topic.counters or {"acked": 0, "dead": 0}
    return {"acked": 0, "dead": 0}


def report(home: Path, client: Client, enqueue_s: float, total_s: float) -> None:
    counts, letters = ended(client), client.dead_letters("demo", limit=1000)
    notes = [line.split() for line in (home / "notes").read_text().splitlines() if line.count(" ") == 1]
    waits = sorted(float(wait) for attempt, wait in notes if attempt == "1")
    retried = sum(attempt != "1" for attempt, _ in notes)
    say(f"  processed {counts['acked']}, retried {retried}, dead letters {len(letters)}")
    say(f"  enqueued at {JOBS / enqueue_s:,.0f}/s, all done after {total_s:.1f} s ({JOBS / total_s:,.0f} jobs/s, delays included)")
    if waits:
        say(f"  first start after due: p50 {waits[len(waits) // 2] * 1000:.0f} ms, p99 {waits[len(waits) * 99 // 100] * 1000:.0f} ms (a burst)")
    if counts["acked"] != JOBS - HOPELESS or len(letters) != HOPELESS:
        raise DemoFailed(f"expected {JOBS - HOPELESS} processed and {HOPELESS} dead letters")
    say(f"  one of the dead letters: {(letters[0].error or '').splitlines()[0]}")
    say("\nGo on by hand:\n  make run                                      a broker in the foreground")
    say("  .venv/bin/mqueue worker examples.emails        a worker, in another terminal")
    say("  .venv/bin/python -m examples.emails            some jobs\n  .venv/bin/mqueue topics; .venv/bin/mqueue dlq list emails")


def stop(started: list[subprocess.Popen[str]]) -> None:
    for process in reversed(started):
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


if __name__ == "__main__":
    sys.exit(main())
