"""The judge of `mqueue torture` must see what is wrong, and nothing else."""

from collections.abc import Callable

import pytest

from mqueue.torture.history import Answer, Delivery, Enqueued, Fault, Fetch, History, Key, Settle, Window
from mqueue.torture.judge import judge

LOW, HIGH = Key(0, 0, 1), Key(5, 0, 2)


def delivery(key: Key, answered: float, attempt: int = 1, payload: bytes = b"") -> Delivery:
    return Delivery(key, "t", attempt, payload or b"%d" % key.id, answered + 2.0, answered + 2.0)


def fetch(sent: float, *keys: Key, attempt: int = 1) -> Fetch:
    return Fetch(("t",), 0, sent, sent + 0.1, tuple(delivery(key, sent, attempt) for key in keys))


def ack(at: float, verdict: str | None = "ok", broker: int = 0) -> Settle:
    return Settle("ack", broker, at, at + 0.1, verdict)


def history() -> History:
    """Two messages, fetched in order and acked."""
    made = {key.id: Enqueued("t", b"%d" % key.id, 3, True, 0, 10.0) for key in (LOW, HIGH)}
    return History(0.0, {b"1", b"2"}, made, [fetch(11, LOW), fetch(12, HIGH)], {1: [ack(11.5)], 2: [ack(12.5)]}, shards={"t": 0})


def lost(h: History) -> None:
    h.fetches.pop()
    del h.settles[2]


def only_a_stale_ack(h: History) -> None:
    h.settles[2] = [ack(12.5, "stale")]


def unknown(h: History) -> None:
    h.sent.remove(b"2")


def inverted(h: History) -> None:
    h.fetches = [fetch(11, HIGH), fetch(12, LOW)]
    h.settles = {1: [ack(12.5)], 2: [ack(11.5)]}


def inverted_after_a_long_wait(h: History) -> None:
    inverted(h)
    h.fetches[0] = h.fetches[0]._replace(answered=11.4)


def inverted_across_topics(h: History) -> None:
    """Both topics are of one shard, and the answer came at once."""
    inverted(h)
    h.enqueued[1] = h.enqueued[1]._replace(topic="u")
    h.fetches = [f._replace(topics=("t", "u"), got=tuple(d._replace(topic="tu"[d.key == LOW]) for d in f.got)) for f in h.fetches]
    h.shards["u"] = 0


def overtaken(h: History) -> None:
    """The first was answered before the second was sent, and its stamp says that it came later."""
    late, soon = Key(0, 3_000_000, 1), Key(0, 2_000_000, 2)
    h.enqueued = {key.id: Enqueued("t", b"%d" % key.id, 3, True, 0, at, at - 0.1) for key, at in ((late, 9.0), (soon, 10.0))}
    h.fetches = [fetch(11, soon), fetch(12, late)]
    h.settles = {1: [ack(12.5)], 2: [ack(11.5)]}


def untrue(h: History) -> None:
    h.fetches.insert(0, fetch(10.5))


def leased_twice(h: History) -> None:
    h.fetches.append(fetch(12.2, HIGH, attempt=2))


def leased_twice_though_extended(h: History) -> None:
    leased_twice(h)
    h.settles[2] = [Settle("extend", 0, 12.11, 12.12, "ok"), ack(12.5)]


def vanished_while_leased(h: History) -> None:
    h.settles[2] = [ack(12.5, "gone")]


def greater_first(h: History) -> None:
    h.fetches = [fetch(11, HIGH, LOW)]
    h.settles = {1: [ack(11.5)], 2: [ack(11.5)]}


def an_error_nobody_deserved(h: History) -> None:
    h.answers.append(Answer("ack", 0, 11.5, 11.6, "error", 0))


def acked_long_before_redis_was_lost(h: History) -> None:
    h.fetches.append(fetch(5000, HIGH, attempt=2))
    h.faults.append(Fault("redis-and-broker", 3600.0, 3605.0, lost=True, down=frozenset({0})))


def doubled_long_before_redis_was_lost(h: History) -> None:
    doubled(h)
    h.faults.append(Fault("redis-and-broker", 3600.0, 3605.0, lost=True, down=frozenset({0})))


def after_its_ack(h: History) -> None:
    h.fetches.append(fetch(20, HIGH, attempt=2))


def too_often(h: History) -> None:
    h.settles[2] = [Settle("nack", 0, 12.5, 12.6, "ok", 12.6), ack(13.5)]
    h.fetches.append(fetch(13, HIGH, attempt=5))


def early(h: History) -> None:
    later = Key(5, 40_000_000, 2)
    h.fetches[1] = fetch(12, later)


def other_payload(h: History) -> None:
    h.fetches[1] = Fetch(("t",), 0, 12, 12.1, (delivery(HIGH, 12, payload=b"1"),))
    h.enqueued[1] = h.enqueued[1]._replace(keyed=False)


def other_topic(h: History) -> None:
    h.enqueued[2] = h.enqueued[2]._replace(topic="u")


def doubled(h: History) -> None:
    third = Key(5, 0, 3)
    h.enqueued[3] = h.enqueued[2]
    h.fetches.append(Fetch(("t",), 0, 13, 13.1, (delivery(third, 13, payload=b"2"),)))
    h.settles[3] = [ack(13.5)]


def stuck(h: History) -> None:
    h.left["t"] = 1


def drift(h: History) -> None:
    h.drift["default/t"] = 1


BAD: dict[Callable[[History], None], set[str]] = {
    lost: {"lost"},
    only_a_stale_ack: {"lost"},
    unknown: {"unknown"},
    inverted: {"inversions"},
    inverted_after_a_long_wait: {"inversions"},
    inverted_across_topics: {"inversions"},
    overtaken: {"overtaken"},
    untrue: {"untrue"},
    leased_twice: {"overlap"},
    leased_twice_though_extended: {"overlap"},
    vanished_while_leased: {"lost"},
    greater_first: {"unsorted"},
    an_error_nobody_deserved: {"wrong"},
    acked_long_before_redis_was_lost: {"after_ack"},
    doubled_long_before_redis_was_lost: {"doubled"},
    after_its_ack: {"after_ack"},
    too_often: {"attempts"},
    early: {"early"},
    other_payload: {"payload"},
    other_topic: {"payload"},
    doubled: {"doubled"},
    stuck: {"stuck"},
    drift: {"drift"},
}


@pytest.mark.parametrize("spoil", BAD)
def test_the_judge_sees(spoil: Callable[[History], None]) -> None:
    h = history()
    spoil(h)
    assert {name for name, count in judge(h).bad().items() if count} == BAD[spoil]


def in_order(h: History) -> None:
    pass


def dead_in_the_end(h: History) -> None:
    del h.settles[2]
    h.dead.add(2)


def perhaps_acked(h: History) -> None:
    h.settles[2] = [ack(12.5, None)]


def an_unanswered_fetch_may_have_leased_it(h: History) -> None:
    inverted(h)
    h.unanswered.append(Window(10.2, 11.5, ("t",)))


def a_slow_answer_may_leave_out_a_topic(h: History) -> None:
    inverted_across_topics(h)
    h.fetches[0] = h.fetches[0]._replace(answered=11.4)


def two_that_were_sent_side_by_side_come_by_their_stamps(h: History) -> None:
    overtaken(h)
    h.enqueued[2] = h.enqueued[2]._replace(first_sent=8.95)


def one_that_comes_again_was_not_overtaken(h: History) -> None:
    overtaken(h)
    h.fetches = [fetch(9.5, Key(0, 3_000_000, 1)), *h.fetches[:1], fetch(12, Key(0, 11_600_000, 1), attempt=2)]
    h.settles[1] = [Settle("nack", 0, 11.4, 11.5, "ok", 11.6), ack(12.5)]


def a_fault_hides_the_order(h: History) -> None:
    inverted(h)
    h.faults.append(Fault("redis-flush", 10.5, 11.5, lost=True, down=frozenset()))


def redis_lost_the_lease(h: History) -> None:
    leased_twice(h)
    h.settles[2] = [ack(12.4)]
    h.faults.append(Fault("redis-flush", 12.15, 12.3, lost=True, down=frozenset()))


def its_answer_came_after_its_lease_had_ended(h: History) -> None:
    """The broker was stopped in between: the next lease is told first."""
    h.fetches[1] = Fetch(("t",), 1, 12, 15.3, (delivery(HIGH, 12.1),))
    h.fetches.append(Fetch(("t",), 0, 14.2, 14.3, (delivery(HIGH, 14.2, 2),)))
    h.settles[2] = [ack(15.4, "stale", broker=1), ack(15.4)]


def its_request_was_held_up_until_the_lease_before_had_ended(h: History) -> None:
    """All that is certain of its own lease is that it lasts two seconds from when it was asked."""
    h.fetches.append(Fetch(("t",), 0, 11.5, 14.3, (delivery(HIGH, 14.2, 2)._replace(lease_until=13.5),)))
    h.settles[2] = [ack(14.4)]


def the_next_fetch_was_sent_first_and_waited(h: History) -> None:
    h.settles[2] = [Settle("nack", 0, 12.2, 12.25, "ok", 12.25), ack(12.6)]
    h.fetches.append(Fetch(("t",), 1, 11.9, 12.4, (delivery(HIGH, 12.3, 2),)))


def a_nack_sent_before_a_waiting_fetch_was_answered_is_of_another_delivery(h: History) -> None:
    h.settles[2] = [Settle("nack", 0, 12.2, 12.25, "ok", 12.25), ack(15.5)]
    h.fetches += [Fetch(("t",), 1, 11.9, 12.4, (delivery(HIGH, 12.3, 2),)), fetch(13), fetch(15, HIGH, attempt=3)]


def redis_lost_the_ack_and_its_broker_was_away(h: History) -> None:
    after_its_ack(h)
    h.faults.append(Fault("redis-and-broker", 13, 15, lost=True, down=frozenset({0})))


@pytest.mark.parametrize(
    "spoil",
    [
        in_order,
        dead_in_the_end,
        perhaps_acked,
        an_unanswered_fetch_may_have_leased_it,
        a_slow_answer_may_leave_out_a_topic,
        two_that_were_sent_side_by_side_come_by_their_stamps,
        one_that_comes_again_was_not_overtaken,
        a_fault_hides_the_order,
        redis_lost_the_lease,
        redis_lost_the_ack_and_its_broker_was_away,
        its_answer_came_after_its_lease_had_ended,
        its_request_was_held_up_until_the_lease_before_had_ended,
        the_next_fetch_was_sent_first_and_waited,
        a_nack_sent_before_a_waiting_fetch_was_answered_is_of_another_delivery,
    ],
)
def test_the_judge_accepts(spoil: Callable[[History], None]) -> None:
    h = history()
    spoil(h)
    assert judge(h).good(), judge(h).bad()
