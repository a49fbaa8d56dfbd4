"""What most modules run against. One that needs it with other settings, or afresh for each test, has a fixture of its
own.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.processes.broker import Broker
from tests.processes.stores import Stores


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker]:
    with Broker() as broker:
        yield broker


@pytest.fixture
def stores(data_dir: Path) -> Iterator[Stores]:
    """For brokers that come and go."""
    stores = Stores(data_dir)
    yield stores
    stores.close()
