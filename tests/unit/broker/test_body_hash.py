"""Two brokers whose defaults differ, as in a rolling change of settings, take a repeat for a repeat."""

from typing import Any, cast

import pytest

from mqueue.broker.engine.enqueuer import Enqueuer
from mqueue.clock import SystemClock
from mqueue.message import NewMessage


def body_hash(default_lease: float, default_retries: int, **fields: Any) -> bytes:
    nothing = cast(Any, None)
    enqueuer = Enqueuer([], [], nothing, nothing, SystemClock(), lease_s=default_lease, max_retries=default_retries, idempotency_s=60)
    return enqueuer._draft(NewMessage("default", "t", b"x", idempotency_key="k", **fields), 0).body_hash


def test_a_brokers_defaults_are_not_part_of_what_a_request_says() -> None:
    assert body_hash(30, 3) == body_hash(60, 5)


@pytest.mark.parametrize("field", [{"max_retries": 4}, {"lease": 20.0}, {"priority": 1}, {"delay": 1.0}, {"ttl": 9.0}])
def test_what_a_request_says_is(field: dict[str, Any]) -> None:
    assert body_hash(30, 3) != body_hash(30, 3, **field)
