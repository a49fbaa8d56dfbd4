"""The short form of `budget.py`: it judges bytes; how soon each topic is served is the long form's."""

import asyncio

from tests.campaigns import budget
from tests.processes.broker import Broker

SECONDS = 10.0


def test_redis_stays_under_its_budget_under_load() -> None:
    with Broker(env=budget.env(budget.BUDGET_MB)) as broker:
        load, looks = asyncio.run(budget.run(broker, SECONDS))
    assert max(looks) < budget.ALLOWED * budget.BUDGET_MB * budget.MB
    assert load.enqueued > 1_000
    assert sum(load.fetched.values()) > 0
