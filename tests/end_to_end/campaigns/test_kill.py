"""The short form of `kill.py`."""

import asyncio

from tests.campaigns import kill
from tests.processes.broker import Broker


def test_nothing_acknowledged_is_lost() -> None:
    with Broker(env=kill.ENV) as broker:
        ledger = asyncio.run(kill.run(broker, rounds=3))
    assert len(ledger.lost()) == 0
    assert len(ledger.came_back) == 0
    assert len(ledger.enqueued) > 300, "there was no load"
    assert len(ledger.acked) > 100, "nothing was consumed"
