"""Named places where a test can stop, fail or slow this process:
`MQUEUE_FAILPOINTS="wal.before_fsync=kill@3,enqueue.before_reply=delay:0.2"`.

    kill[@N]        SIGKILL this process at the Nth hit (1)
    exit:CODE       end it at once with this code, no cleanup
    error[@N]       raise OSError(EIO) at the Nth hit (at every hit without N)
    delay:SECONDS   wait at every hit

Unset, a hit costs one look at an empty dict. An unknown name or action is an error at parse: a campaign that misses its
fault proves nothing.
"""

import asyncio
import errno
import itertools
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

VARIABLE = "MQUEUE_FAILPOINTS"

POINTS: tuple[tuple[str, str], ...] = (
    ("enqueue.before_wal", "ids are assigned, nothing is stored"),
    ("enqueue.before_redis", "the script call of a batch is about to go out"),
    ("enqueue.after_redis_before_wal", "Redis has applied the batch, its log record is not durable"),
    ("enqueue.before_reply", "durable and applied, the client does not know"),
    ("wal.before_append", "a batch has reached the log's thread, nothing is written"),
    ("wal.before_fsync", "written, not durable"),
    ("wal.after_fsync", "durable, the broker does not know"),
    ("wal.rotate", "the active segment is full, the next one does not exist"),
    ("wal.before_dirsync", "a file has its final name, the directory is not durable"),
    ("wal.before_remove", "a flushed segment is about to be unlinked"),
    ("settle.before_redis", "a settle was read, nothing is changed"),
    ("settle.after_redis", "settled in Redis, not logged"),
    ("settle.before_result", "settled and logged, its result is not in PostgreSQL"),
    ("settle.after_log", "settled and logged, the client does not know"),
    ("flush.before_copy", "a flush has read its batch, PostgreSQL has nothing of it"),
    ("flush.before_commit", "rows and positions are written, not committed"),
    ("flush.after_commit", "committed, Redis does not know"),
    ("refill.before_script", "a refill has its page, Redis has nothing of it"),
    ("schedule.before_insert", "due schedules are read and held, nothing is written"),
    ("schedule.before_commit", "the messages of their ticks are written, not committed"),
    ("schedule.after_commit", "committed, the leader has not gone on"),
    ("dequeue.before_reply", "messages are leased, the client has none"),
    ("recovery.before_replay", "the epoch is raised, nothing is replayed"),
    ("recovery.after_replay", "replayed, not confirmed"),
    ("recovery.before_open", "the new epoch is about to be opened"),
)  # fmt: skip
NAMES = frozenset(name for name, _ in POINTS)


@dataclass(frozen=True, slots=True)
class Action:
    """What a hit does. `at`: the hit that fires, counted from 1; None: every hit. `value`: seconds of a delay, code of
    an exit.
    """

    kind: Literal["kill", "exit", "error", "delay"]
    at: int | None = None
    value: float = 0.0
    hits: Iterator[int] = field(default_factory=lambda: itertools.count(1), compare=False)  # next() is atomic: hits come from threads

    def fires(self) -> bool:
        return next(self.hits) == self.at or self.at is None


def parse(text: str) -> dict[str, Action]:
    """Read a list of `name=action`. Raises ValueError for anything it does not know."""
    actions = {}
    for item in filter(None, (part.strip() for part in text.split(","))):
        name, _, action = item.partition("=")
        if name not in NAMES:
            raise ValueError(f"{VARIABLE}: no failpoint {name!r}")
        if name in actions:
            raise ValueError(f"{VARIABLE}: {name} is named twice")
        actions[name] = _action(item, action)
    return actions


def _action(item: str, text: str) -> Action:
    try:
        match text.split("@"), text.split(":"):
            case ["kill"], _:
                return Action("kill", 1)
            case ["kill", n], _ if int(n) > 0:
                return Action("kill", int(n))
            case ["error"], _:
                return Action("error")
            case ["error", n], _ if int(n) > 0:
                return Action("error", int(n))
            case _, ["delay", seconds] if 0 <= float(seconds) <= 3600:
                return Action("delay", None, float(seconds))
            case _, ["exit", code] if 0 <= int(code) <= 255:
                return Action("exit", 1, int(code))
    except ValueError:
        pass
    raise ValueError(f"{VARIABLE}: cannot read {item!r}")


_active: dict[str, Action] = parse(os.environ.get(VARIABLE, ""))


def load(text: str) -> None:
    """Replace all failpoints, counts from zero; `""` clears them. For tests inside one process."""
    actions = parse(text)
    _active.clear()
    _active.update(actions)


def hit(name: str) -> None:
    """Do what is set for `name`; a delay blocks this thread. Raises OSError for `error`."""
    if _active and (action := _active.get(name)) and action.fires():
        if action.kind == "delay":
            time.sleep(action.value)
        else:
            _strike(name, action)


async def ahit(name: str) -> None:
    """Does the same in the event loop; a delay lets others run."""
    if _active and (action := _active.get(name)) and action.fires():
        if action.kind == "delay":
            await asyncio.sleep(action.value)
        else:
            _strike(name, action)


def _strike(name: str, action: Action) -> None:
    if action.kind == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(60)  # the signal may find another thread first: go no further
    if action.kind == "exit":
        os._exit(int(action.value))
    raise OSError(errno.EIO, f"failpoint {name}")
