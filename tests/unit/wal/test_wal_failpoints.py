"""Failpoints, and a process killed at each one of the log's own."""

import asyncio
import errno
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mqueue.broker import failpoints
from mqueue.broker.wal import Identity, ShardLog


@pytest.fixture(autouse=True)
def _cleared() -> Iterator[None]:
    yield
    failpoints.load("")


@pytest.mark.parametrize(
    "bad",
    ["wal.before_fsink=kill", "wal.rotate", "wal.rotate=", "wal.rotate=kill@0", "wal.rotate=kill@x", "wal.rotate=explode",
     "wal.rotate=delay", "wal.rotate=delay:-1", "wal.rotate=delay:nan", "wal.rotate=exit:256", "wal.rotate=error@",
     "wal.rotate=kill,wal.rotate=kill"],
)  # fmt: skip
def test_what_is_not_known_is_an_error(bad: str) -> None:
    with pytest.raises(ValueError):
        failpoints.load(bad)


def test_the_list_is_read() -> None:
    actions = failpoints.parse(" wal.before_fsync=kill@3, enqueue.before_reply=delay:0.2,wal.rotate=exit:7,wal.after_fsync=error ,")
    assert {n: (a.kind, a.at, a.value) for n, a in actions.items()} == {
        "wal.before_fsync": ("kill", 3, 0),
        "enqueue.before_reply": ("delay", None, 0.2),
        "wal.rotate": ("exit", 1, 7),
        "wal.after_fsync": ("error", None, 0),
    }


def test_names_are_said_once_with_a_meaning() -> None:
    assert len(failpoints.NAMES) == len(failpoints.POINTS)
    assert all(meaning for _, meaning in failpoints.POINTS)


def test_an_error_fires_at_its_hit_only() -> None:
    failpoints.load("wal.rotate=error@2")
    failpoints.hit("wal.rotate")
    failpoints.hit("wal.before_fsync")
    with pytest.raises(OSError) as caught:
        failpoints.hit("wal.rotate")
    assert caught.value.errno == errno.EIO
    failpoints.hit("wal.rotate")
    failpoints.load("wal.rotate=error")
    for _ in range(2):
        with pytest.raises(OSError):
            failpoints.hit("wal.rotate")


async def test_a_delay_in_the_loop_lets_others_run() -> None:
    failpoints.load("enqueue.before_reply=delay:0.05")
    start = time.monotonic()
    ran = asyncio.create_task(asyncio.sleep(0))
    await failpoints.ahit("enqueue.before_reply")
    assert ran.done()
    assert time.monotonic() - start >= 0.05
    failpoints.hit("enqueue.before_reply")
    assert time.monotonic() - start >= 0.1


WRITER = textwrap.dedent("""
    import asyncio, sys
    from pathlib import Path
    from mqueue.broker.wal import Identity, LogRecord, ShardLog

    identity = Identity.open(Path(sys.argv[1]))
    log = ShardLog.open(identity.shard_directory(0), 0, identity.uuid, segment_max=400, keep_s=0)
    start = identity.start_count << 40

    async def main():
        for n in range(1, 21):
            number = start + n
            await log.commit(LogRecord(number, 1, 1, bytes(100)))
            print("acked", number, flush=True)
            log.append(LogRecord(number, 1, 2, b"outcome"))
            if n % 5 == 0:
                print("flushed", number - 2, flush=True)
                log.remove_flushed(number - 2, now=float(n))

    asyncio.run(main())
    log.close()
""")


@pytest.mark.parametrize(
    ("points", "code"),
    [
        ("wal.before_append=kill@4", -9),
        ("wal.before_fsync=kill@4", -9),
        ("wal.after_fsync=kill@4", -9),
        ("wal.rotate=kill@2", -9),
        ("wal.before_dirsync=kill@1", -9),  # the identity's first write
        ("wal.before_dirsync=kill@2", -9),  # the log's first segment
        ("wal.before_dirsync=kill@4", -9),
        ("wal.before_remove=kill@2", -9),
        ("wal.before_fsync=exit:42", 42),
        ("wal.before_fsync=error@4", 1),
        ("wal.rotate=error@2", 1),
    ],
)
def test_killed_there_nothing_acknowledged_is_lost(tmp_path: Path, points: str, code: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WRITER, str(tmp_path)],
        env={"MQUEUE_FAILPOINTS": points}, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    said = [line.split() for line in done.stdout.splitlines() if line.startswith(("acked ", "flushed "))]
    acked = [int(n) for what, n in said if what == "acked"]
    flushed = max((int(n) for what, n in said if what == "flushed"), default=0)
    identity = Identity.open(tmp_path)
    log = ShardLog.open(identity.shard_directory(0), 0, identity.uuid)
    found = [r.sequence for r in log.records(flushed) if r.kind == 1]
    due = [n for n in acked if n > flushed]
    assert found[: len(due)] == due
    assert len(found) - len(due) <= 1, "at most the one under way"
    assert log.last_sequence < identity.start_count << 40, "numbers of this start are new"
    log.close()
    identity.close()
