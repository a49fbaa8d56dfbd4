"""For the tests of whoever has tasks: pytest fixtures (`plugin.py`), and what they are made of.

    clock.py      a clock that tests move
    memory.py     a broker in memory, with the methods of `Client`; results.py: what acks left there
    enqueued.py   what was enqueued, and what a test claims of it
    redirect.py   enqueues of every app go to the test instead of a broker
    inline.py     … and run at once
    manual.py     … and wait in memory until the test drains them
    embedded.py   … or go to a real broker, which the test run starts

The names are here so that tests can annotate with them; they are imported when first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mqueue.testing.clock import ManualClock
    from mqueue.testing.embedded import TestBroker
    from mqueue.testing.enqueued import Enqueued
    from mqueue.testing.inline import Inline
    from mqueue.testing.manual import DeadJob, DeadJobs, Drained, Manual
    from mqueue.testing.memory import MemoryBroker

_HOME = {
    "DeadJob": "mqueue.testing.manual",
    "DeadJobs": "mqueue.testing.manual",
    "Drained": "mqueue.testing.manual",
    "Enqueued": "mqueue.testing.enqueued",
    "Inline": "mqueue.testing.inline",
    "Manual": "mqueue.testing.manual",
    "ManualClock": "mqueue.testing.clock",
    "MemoryBroker": "mqueue.testing.memory",
    "TestBroker": "mqueue.testing.embedded",
}

__all__ = ["DeadJob", "DeadJobs", "Drained", "Enqueued", "Inline", "Manual", "ManualClock", "MemoryBroker", "TestBroker"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'mqueue.testing' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOME[name]), name)
    return value
