"""The short form of `order.py`, and the judge itself: it must see what is wrong."""

import asyncio
from collections import Counter

import pytest

from tests.campaigns import order
from tests.campaigns.judging.history import Delivery, Fetch, History, Key, judge
from tests.processes.api import Http
from tests.processes.broker import Broker


def test_strict_order_under_load() -> None:
    campaign = order.Campaign(6_000, timeout_s=60)
    with Broker(env={"MQUEUE_READY_MAX": str(order.READY_MAX)}) as broker:
        history = asyncio.run(order.run(campaign, broker.url, broker.token))
        verdict = judge(history)
        assert verdict.good(), verdict.counts()
        assert broker.metric("mqueue_refill_rows_total") > 500, "PostgreSQL never held a backlog: this proved little"
        assert sum(map(len, history.nacked.values())) > 0


def test_a_refill_needs_no_flush() -> None:
    """Rows in PostgreSQL must not keep away lesser keys that only Redis has, and whose flush is far."""
    with Broker(env={"MQUEUE_READY_MAX": "2000", "MQUEUE_FLUSH_AGE_MS": "60000"}) as broker:
        http = Http(broker.url, broker.token)
        assert http.get() == []
        for _ in range(4):
            http.put(*[b"x"] * 1_000, priority=5)
        _flush(broker)
        assert broker.sql("SELECT count(*) FROM message") == [(4_000,)]
        urgent = [id for _ in range(4) for id in http.put(*[b"x"] * 1_000, priority=1)]
        got: list[int] = []
        while len(got) < len(urgent):
            got += [m["id"] for m in http.get(limit=1_000)]
        assert got == urgent
        assert broker.sql("SELECT count(*) FROM message") == [(4_000,)], "a flush came to help: this proved nothing"


def _flush(broker: Broker) -> None:
    """Deleting a dead letter that only Redis has makes the leader flush all."""
    http = Http(broker.url, broker.token, "flush")
    http.put(max_retries=0)
    (message,) = http.get()
    http.nack(message)
    assert http.call("POST", "/dlq/delete", {**http.name, "id": message["id"]}).body["status"] == "ok"


LOW, HIGH = Key(0, 0, 1), Key(5, 0, 2)


def history(*fetches: Fetch, acked: tuple[int, ...] = (1, 2), **more: object) -> History:
    return History(enqueued={1: 1.0, 2: 1.0}, acked=Counter(acked), fetches=list(fetches), **more)  # type: ignore[arg-type]


def fetch(sent: float, answered: float, *keys: Key, attempt: int = 1) -> Fetch:
    return Fetch(sent, answered, tuple(Delivery(key, attempt) for key in keys))


BAD = {
    "inversions": history(fetch(2, 3, HIGH), fetch(4, 5, LOW)),
    "unsorted": history(fetch(2, 3, HIGH, LOW)),
    "untrue": history(fetch(2, 3), fetch(4, 5, LOW, HIGH)),
    "early": history(fetch(2, 3, LOW, Key(5, 4_000_000, 2))),
    "lost": history(fetch(2, 3, LOW, HIGH), acked=(1,)),
    "unknown": history(fetch(2, 3, LOW, HIGH, Key(6, 0, 3))),
    "twice": history(fetch(2, 3, LOW, HIGH), fetch(4, 5, LOW, attempt=2)),
    "attempts": history(fetch(2, 3, LOW, HIGH), fetch(4, 5, LOW, attempt=3), nacked={1: [(3.5, 3.5)]}),
}


@pytest.mark.parametrize("fault", BAD)
def test_the_judge_sees(fault: str) -> None:
    assert [name for name, count in judge(BAD[fault]).counts().items() if count] == [fault]


GOOD = {
    "in order": history(fetch(2, 3, LOW), fetch(4, 5, HIGH)),
    "the other may have been leased already": history(fetch(2, 6, LOW), fetch(4, 5, HIGH)),
    "the other may not have been there yet": history(fetch(0.5, 3, HIGH), fetch(4, 5, LOW)),
    "empty before the answer": history(fetch(0.9, 1.5), fetch(4, 5, LOW, HIGH)),
    "again after its nack": history(fetch(2, 3, LOW), fetch(4, 5, HIGH), fetch(7, 8, LOW, attempt=2), nacked={1: [(6.0, 6.0)]}),
}


@pytest.mark.parametrize("case", GOOD)
def test_the_judge_accepts(case: str) -> None:
    assert judge(GOOD[case]).good()
