"""The pytest plugin has fixtures, and nothing that a run without them would notice. Each imports what it needs
when a test asks for it.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from mqueue.paths import Endpoint
    from mqueue.testing.clock import ManualClock
    from mqueue.testing.inline import Inline
    from mqueue.testing.manual import Manual
    from mqueue.testing.real.embedded import TestBroker


@pytest.fixture
def mqueue_inline() -> "Iterator[Inline]":
    """Every enqueue of any app runs its handler at once; what it raises, the enqueue raises."""
    from mqueue.testing.inline import Inline
    from mqueue.testing.redirect import redirect_all

    inline = Inline()
    with redirect_all(inline):
        yield inline


@pytest.fixture
def mqueue_clock() -> "ManualClock":
    """This is the time of `mqueue_manual`: it stands still until the test moves it."""
    from mqueue.testing.clock import ManualClock

    return ManualClock()


@pytest.fixture
def mqueue_manual(mqueue_clock: "ManualClock") -> "Iterator[Manual]":
    """Enqueues of any app wait in memory: `assert_enqueued`, `refute_enqueued`, `drain()`."""
    from mqueue.testing.manual import Manual
    from mqueue.testing.redirect import redirect_all

    manual = Manual(mqueue_clock)
    with redirect_all(manual):
        yield manual


@pytest.fixture(scope="session")
def mqueue_endpoint() -> "Iterator[Endpoint]":
    """The tests of this run share this broker: `url` and `token`."""
    from mqueue.testing.real import embedded

    if (known := embedded.given()) is not None:
        yield known
        return
    if reason := embedded.missing():
        pytest.skip(reason)
    with embedded.running() as endpoint:
        yield endpoint


@pytest.fixture
def mqueue_broker(mqueue_endpoint: "Endpoint") -> "Iterator[TestBroker]":
    """This is a real broker, with a namespace for this test; every app enqueues there.
    `run_until_idle()` runs a worker.
    """
    from mqueue.client import Client
    from mqueue.testing.real.embedded import TestBroker

    with (
        Client(mqueue_endpoint.url, mqueue_endpoint.token) as client,
        TestBroker(mqueue_endpoint.url, mqueue_endpoint.token, client).connected() as broker,
    ):
        yield broker
