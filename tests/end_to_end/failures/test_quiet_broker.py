"""A broker that nobody has asked for a while stamps what it is given by the time of now, not by that of its last
answer: order is judged by when a message was enqueued.
"""

import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from tests.processes.api import Http
from tests.processes.broker import Broker
from tests.processes.stores import Stores
from tests.waiting import wait_until

QUIET_S = 4.0  # past what a broker trusts an answer of Redis for
DELAYS_S = (0.05, 0.3, 1.0, 2.0)


@pytest.fixture
def pair(data_dir: Path) -> Iterator[list[Broker]]:
    stores = Stores(data_dir)
    with Broker(env=stores.environment()) as one, Broker(env=stores.environment()) as other:
        yield [one, other]
    stores.close()


def test_what_a_quiet_broker_takes_comes_after_what_was_due_before(pair: list[Broker]) -> None:
    busy, quiet = (Http(b.url, b.token) for b in pair)
    for http in (busy, quiet):
        http.put(b"first", ttl=0.001)  # both have heard of the clock once
    for delay in DELAYS_S * 3:
        [one] = busy.put(b"1")
        [held] = busy.get()
        assert held["id"] == one
        assert busy.good(busy.nack(held, retry_after=delay))["status"] == "ok"
        [two] = busy.put(b"2")
        wait_until(lambda one=one: busy.status(one).body["state"] != "delayed", "it is due again")
        [three] = quiet.put(b"3")
        got = busy.get()
        assert [m["id"] for m in got] == [two, one, three], f"nacked for {delay} s"
        for m in got:
            assert busy.good(busy.ack(m))["status"] == "ok"


def test_a_quiet_broker_says_truly_when_a_message_was_created(pair: list[Broker]) -> None:
    busy, quiet = (Http(b.url, b.token) for b in pair)
    quiet.put(b"first", ttl=0.001)
    asked = time.monotonic()
    wait_until(lambda: time.monotonic() - asked > QUIET_S, "nobody has asked it for so long")
    began = time.time()
    [id] = quiet.put(b"later")
    wait_until(lambda: quiet.status(id).status == 200, "it is known")
    [m] = busy.get()
    created = datetime.fromisoformat(m["created_at"]).timestamp()
    assert abs(created - began) < QUIET_S / 2, f"created {began - created:.2f} s before it was sent"
