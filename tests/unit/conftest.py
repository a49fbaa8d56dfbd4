"""A broker in memory behind HTTP for each test, and an app that talks to it."""

from collections.abc import Iterator

import fake_broker
import pytest

from mqueue import MQueue


@pytest.fixture
def broker() -> Iterator[fake_broker.FakeBroker]:
    with fake_broker.start() as broker:
        yield broker


@pytest.fixture
def app(broker: fake_broker.FakeBroker) -> MQueue:
    return MQueue(broker.url, broker.token)
