"""Whoever has tasks tests them with these pytest fixtures.

What happens here. A test takes one fixture (`plugin.py`), which decides where the enqueues of every app go: they
run at once, they wait in memory until the test drains them, or they reach a real broker that the test run has
started.

Who is authoritative. The real broker is: `memory/` has the methods of `Client`, and `tests/conformance` holds it
against the real one, story by story. What it does not have it refuses by name.

What failure does. An exception of a handler fails the test (inline), or the job, as with a worker (manual, real).
The broker of a killed test run ends with it.

Which file to open:

    plugin.py       the fixtures
    clock.py        a clock that tests move
    enqueued.py     what was enqueued, and what a test claims of it
    redirect.py     enqueues of every app go to the test instead of a broker
    answers.py      handles ask the test then
    inline.py       jobs run where they are enqueued
    manual.py       jobs wait in memory until the test drains them
    handlers.py     a job's handler, run by a test
    periodic.py     ticks of periodic tasks on the test's clock
    memory/         a broker in memory
    real/           a real broker, and workers of its own

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
