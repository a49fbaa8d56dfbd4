"""For the tests of whoever has tasks: pytest fixtures (`plugin.py`), and what they are made of.

    clock.py      a clock that tests move
    memory.py     a broker in memory, with the methods of `Client`; unscheduled.py: those that it refuses
        stored.py: a message in it; order.py: who comes next; keys.py: idempotency keys; results.py: what acks left there; told.py: workers
    enqueued.py   what was enqueued, and what a test claims of it
    redirect.py   enqueues of every app go to the test instead of a broker; answers.py: what handles ask does, too
    inline.py     … and run at once; handlers.py: how
    manual.py     … and wait in memory until the test drains them; periodic.py: ticks among them
    embedded.py   … or go to a real broker, which the test run starts; leash.py: and which ends with it
        here.py: a client of the test's namespace; apart.py: jobs in processes of their own; clearing.py: what is left; worker_logs.py

The names are here so that tests can annotate with them; they are imported when first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mqueue.testing.clock import ManualClock
    from mqueue.testing.enqueued import Enqueued
    from mqueue.testing.inline import Inline
    from mqueue.testing.manual import DeadJob, DeadJobs, Drained, Manual
    from mqueue.testing.memory.broker import MemoryBroker
    from mqueue.testing.real.embedded import TestBroker

_HOME = {
    "DeadJob": "mqueue.testing.manual",
    "DeadJobs": "mqueue.testing.manual",
    "Drained": "mqueue.testing.manual",
    "Enqueued": "mqueue.testing.enqueued",
    "Inline": "mqueue.testing.inline",
    "Manual": "mqueue.testing.manual",
    "ManualClock": "mqueue.testing.clock",
    "MemoryBroker": "mqueue.testing.memory.broker",
    "TestBroker": "mqueue.testing.real.embedded",
}

__all__ = ["DeadJob", "DeadJobs", "Drained", "Enqueued", "Inline", "Manual", "ManualClock", "MemoryBroker", "TestBroker"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'mqueue.testing' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOME[name]), name)
    return value
