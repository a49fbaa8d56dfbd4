"""`batch=True`: callers that enqueue at once share a request, and nothing else."""

import asyncio
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

import msgspec
import pytest
from fake_broker import FakeBroker

from mqueue import message as m
from mqueue import wire
from mqueue.client import AsyncClient, Client, protocol, sharing
from mqueue.client.sharing import Caller, Lane, answered, divided
from mqueue.client.sharing_sync import Sharing
from mqueue.errors import InFlight, Invalid, KeyReused, MQueueError, QuotaExceeded, Unavailable
from tests.waiting import until, wait_until

THREADS = 16


def in_thread(call: Callable[[], Any]) -> "Future[Any]":
    """Its result or what it raised, BaseException too."""
    future: Future[Any] = Future()

    def run() -> None:
        try:
            future.set_result(call())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


def waiting(sharing: Any) -> int:
    return sum(len(lane.waiting) for lane in sharing._lanes.values())


def together(
    client: Client, broker: FakeBroker, items: Sequence[wire.EnqueueItem], amid: Callable[[], None] = lambda: None
) -> "list[Future[Any]]":
    """One call of its own is under way; these come meanwhile, in this order, and go when it is answered, after
    `amid`.
    """
    broker.hold("/enqueue")
    before = broker.requests["/enqueue"]
    first = in_thread(lambda: client.enqueue("first", b""))
    wait_until(lambda: broker.requests["/enqueue"] == before + 1)
    futures = []
    for count, item in enumerate(items, 1):
        futures.append(in_thread(lambda item=item: client.enqueue_many([item])[0]))
        wait_until(lambda: waiting(client._shared()) == count)
    amid()
    broker.hold(None)
    first.result(10)
    return futures


def payloads(broker: FakeBroker, ids: Sequence[int]) -> list[bytes]:
    there = broker.messages
    return [there[id].item.payload for id in ids]


def test_sixteen_threads_share_their_requests(broker: FakeBroker) -> None:
    with Client(broker.url, broker.token, batch=True, connections=THREADS) as client:
        each = 20
        futures = [in_thread(lambda n=n: [client.enqueue("t", b"%d %d" % (n, i)) for i in range(each)]) for n in range(THREADS)]
        ids = [future.result(30) for future in futures]
    stored = {s.id: s.item.payload for s in broker.live()}
    assert len(stored) == THREADS * each
    assert [[stored[id] for id in of_one] for of_one in ids] == [[b"%d %d" % (n, i) for i in range(each)] for n in range(THREADS)]
    assert broker.requests["/enqueue"] <= THREADS * each / 3, "one for each, or nearly"


def test_what_comes_while_a_request_is_under_way_is_the_next_one(broker: FakeBroker) -> None:
    with Client(broker.url, broker.token, batch=True) as client:
        futures = together(client, broker, [wire.EnqueueItem(topic="t", payload=b"%d" % n) for n in range(THREADS)])
        ids = [future.result(10) for future in futures]
    assert broker.requests["/enqueue"] == 2
    assert payloads(broker, ids) == [b"%d" % n for n in range(THREADS)]
    assert len(broker.request_keys) == 2
    assert all(s.item.idempotency_key is None for s in broker.live())


async def test_coroutines_share_a_request(broker: FakeBroker) -> None:
    async with AsyncClient(broker.url, broker.token, batch=True) as client:
        ids = await asyncio.gather(*(client.enqueue("t", b"%d" % n) for n in range(1500)))
    assert payloads(broker, ids) == [b"%d" % n for n in range(1500)]
    assert broker.requests["/enqueue"] == 2


def test_a_bad_item_fails_its_caller_alone_with_the_error_it_would_get_alone(broker: FakeBroker) -> None:
    with Client(broker.url, broker.token) as alone, pytest.raises(Invalid) as usual:
        alone.enqueue("no topic", b"")
    items = [wire.EnqueueItem(topic="no topic" if n in (0, 3, 7) else "t", payload=b"%d" % n) for n in range(8)]
    with Client(broker.url, broker.token, batch=True) as client:
        futures = together(client, broker, items)
        errors = [future.exception(10) for future in futures]
    assert [isinstance(error, Invalid) for error in errors] == [n in (0, 3, 7) for n in range(8)]
    assert {(error.detail, error.item) for error in errors if isinstance(error, Invalid)} == {(usual.value.detail, 0)}
    assert len({id(error) for error in errors if error}) == 3, "an error is raised once"
    assert sorted(s.item.payload for s in broker.live() if s.item.topic == "t") == [b"1", b"2", b"4", b"5", b"6"]


async def test_a_bad_item_among_coroutines(broker: FakeBroker) -> None:
    async with AsyncClient(broker.url, broker.token, batch=True) as client:
        calls = [client.enqueue("no topic" if n == 1 else "t", b"") for n in range(4)]
        results = await asyncio.gather(*calls, return_exceptions=True)
    assert [isinstance(result, Invalid) for result in results] == [False, True, False, False]
    assert len(broker.live()) == 3


def test_what_cannot_be_encoded_never_reaches_the_others(broker: FakeBroker) -> None:
    with Client(broker.url, broker.token, batch=True) as client:
        with pytest.raises(TypeError):
            client.enqueue("t", b"", metadata={"what": object()})
        assert client.enqueue("t", b"")


def test_a_request_that_was_cut_off_is_repeated_as_it_was(broker: FakeBroker) -> None:
    with Client(broker.url, broker.token, batch=True, sleep=lambda _: None) as client:
        items = [wire.EnqueueItem(topic="t", payload=b"%d" % n) for n in range(5)]
        futures = together(client, broker, items, amid=lambda: broker.cut_after_work("/enqueue", times=2))
        ids = [future.result(10) for future in futures]
    assert sorted(s.id for s in broker.live() if s.item.topic == "t") == sorted(ids)


def test_a_refusal_of_the_whole_request_is_told_to_all_of_it(broker: FakeBroker) -> None:
    with Client(broker.url, broker.token, batch=True, retries=False) as client:
        three = [wire.EnqueueItem(topic="t")] * 3
        futures = together(client, broker, three, amid=lambda: broker.refuse("/enqueue", 1, 429, "quota-exceeded", 7))
        errors = [future.exception(10) for future in futures]
        assert all(isinstance(error, QuotaExceeded) and error.retry_after == 7 for error in errors)
        assert client.enqueue("t", b"")
    assert broker.requests["/enqueue"] == 3


def test_only_those_of_one_namespace_and_of_one_kind_of_key_go_together() -> None:
    keys = [
        wire.EnqueueItem(topic="a"),
        wire.EnqueueItem(topic="b", priority=3),
        wire.EnqueueItem(topic="a", namespace="x"),
        wire.EnqueueItem(topic="a", idempotency_key="k"),
    ]
    assert [sharing.lane_key(item) for item in keys] == [("default", False), ("default", False), ("x", False), ("default", True)]
    call = protocol.enqueue_packed([protocol.packed(keys[3])], keyed=True, safe_retries=False)
    assert "Idempotency-Key" not in call.headers and call.repeatable
    call = protocol.enqueue_packed([protocol.packed(keys[0])], keyed=False, safe_retries=False)
    assert "Idempotency-Key" not in call.headers and not call.repeatable
    call = protocol.enqueue_packed([protocol.packed(each) for each in keys[:2]], keyed=False, safe_retries=True)
    assert call.headers["Idempotency-Key"] and call.repeatable
    assert msgspec.msgpack.decode(call.body, type=list[wire.EnqueueItem]) == keys[:2]


def callers(count: int, size: int = 10) -> list[Caller]:
    return [Caller(bytes(size), lambda: None) for _ in range(count)]


def test_a_request_is_bounded_and_first_come_first_served() -> None:
    lane, many = Lane(keyed=False), callers(2500)
    lane.waiting.extend(many)
    assert [lane.take(), lane.take(), lane.take()] == [many[: m.BATCH_MAX], many[m.BATCH_MAX : 2 * m.BATCH_MAX], many[2 * m.BATCH_MAX :]]
    big = callers(3, protocol.BATCH_BYTES // 2 + 1)
    lane.waiting.extend(big)
    assert [lane.take(), lane.take(), lane.take()] == [[one] for one in big]


@pytest.mark.parametrize(
    ("error", "keyed", "parts"),
    [
        (Invalid("", item=2), False, [[0, 1, 3, 4], [2]]),
        (KeyReused("", item=0), True, [[1, 2, 3, 4], [0]]),
        (KeyReused(""), True, [[0, 1], [2, 3, 4]]),
        (InFlight(""), True, [[0, 1], [2, 3, 4]]),
        (InFlight(""), False, []),
        (Invalid("", item=17), False, [[0, 1], [2, 3, 4]]),
        (Unavailable(""), True, []),
        (Unavailable("", item=1), True, []),
        (QuotaExceeded(""), False, []),
    ],
)
def test_what_is_sent_again_after_a_refusal(error: MQueueError, keyed: bool, parts: list[list[int]]) -> None:
    all_of_them = callers(5)
    assert divided(all_of_them, error, keyed=keyed) == [[all_of_them[n] for n in part] for part in parts]
    assert divided(all_of_them[:1], error, keyed=keyed) == []


def test_a_request_that_may_be_there_already_is_not_sent_in_parts(broker: FakeBroker) -> None:
    """Its repeats are told that the first is not durable yet: under other keys its messages would be there twice."""
    with Client(broker.url, broker.token, batch=True, sleep=lambda _: None) as client:

        def refuse() -> None:
            broker.cut_after_work("/enqueue")
            broker.refuse("/enqueue", times=3, status=409, code="in-flight")

        made = together(client, broker, [wire.EnqueueItem(topic="t", payload=b"%d" % n) for n in range(4)], amid=refuse)
        errors = [future.exception(20) for future in made]
    assert {type(error) for error in errors} == {InFlight}
    there = [s.item.payload for s in broker.messages.values()]
    assert len(there) == len(set(there))


def test_an_answer_of_the_wrong_length_is_nobodys() -> None:
    two = callers(2)
    answered(two, [1])
    assert all(isinstance(caller.error, Unavailable) for caller in two)


def test_a_thread_that_is_interrupted_as_it_sends_leaves_nobody_behind() -> None:
    """Those who came with it are told that it is unknown; those who wait go on without it."""
    sending, go_on = threading.Event(), threading.Event()
    sent: list[int] = []

    def call(request: Any) -> list[int]:
        size = len(msgspec.msgpack.decode(request.body))
        sent.append(size)
        sending.set()
        assert go_on.wait(10)
        if len(sent) == 2:
            raise KeyboardInterrupt
        return list(range(size))

    shared = Sharing(call, safe_retries=True)
    first = in_thread(lambda: shared.enqueue(wire.EnqueueItem(topic="t")))
    assert sending.wait(10)
    company = []
    for count in range(1, 4):
        company.append(in_thread(lambda: shared.enqueue(wire.EnqueueItem(topic="t"))))
        wait_until(lambda count=count: waiting(shared) == count)
    sending.clear()
    go_on.set()
    assert first.result(10) == 0
    errors = [future.exception(10) for future in company]
    assert [type(error) for error in errors] == [KeyboardInterrupt, Unavailable, Unavailable]
    assert shared.enqueue(wire.EnqueueItem(topic="t")) == 0
    assert sent == [1, 3, 1]


def test_one_interrupted_as_it_is_to_lead_hands_on() -> None:
    shared = Sharing(lambda request: [7] * len(msgspec.msgpack.decode(request.body)), safe_retries=True)
    item = wire.EnqueueItem(topic="t")
    shared.enqueue(item)
    [lane] = shared._lanes.values()
    leader = Caller(b"", lambda: None)  # in charge, and gone before it sent
    lane.leader = leader
    lane.waiting.append(leader)
    following = in_thread(lambda: shared.enqueue(item))
    wait_until(lambda: waiting(shared) == 2)
    shared._leave(lane, leader)
    assert following.result(10) == 7
    assert lane.leader is None and not lane.waiting


async def test_a_coroutine_that_is_cancelled_takes_nobody_with_it(broker: FakeBroker) -> None:
    async with AsyncClient(broker.url, broker.token, batch=True) as client:
        broker.hold("/enqueue")
        first = asyncio.create_task(client.enqueue("t", b"1"))
        await until(lambda: broker.requests["/enqueue"] == 1)
        rest = [asyncio.create_task(client.enqueue("t", b"2")) for _ in range(3)]
        await asyncio.sleep(0)
        first.cancel()
        rest[1].cancel()
        await asyncio.wait([first, rest[1]])
        broker.hold(None)
        await asyncio.gather(rest[0], rest[2])
    assert [s.item.payload for s in broker.live()] == [b"1", b"2", b"2"]


def test_close_waits_for_the_answers(broker: FakeBroker) -> None:
    client = Client(broker.url, broker.token, batch=True)
    broker.hold("/enqueue")
    calls = [in_thread(lambda: client.enqueue("t", b"")) for _ in range(4)]
    wait_until(lambda: broker.requests["/enqueue"] == 1 and waiting(client._shared()) == 3)
    closing = in_thread(client.close)
    wait_until(lambda: client._shared()._closed)
    with pytest.raises(Unavailable, match="closed"):
        client.enqueue("t", b"")
    assert not closing.done()
    broker.hold(None)
    closing.result(10)
    assert all(call.done() for call in calls) or [call.result(10) for call in calls]
    assert len(broker.live()) == 4


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_child_waits_for_nobody_of_its_parent(broker: FakeBroker) -> None:
    client = Client(broker.url, broker.token, batch=True)
    broker.hold("/enqueue")
    parents = in_thread(lambda: client.enqueue("parent", b""))
    wait_until(lambda: broker.requests["/enqueue"] == 1)
    if (child := os.fork()) == 0:
        code = 1
        try:
            client.enqueue("child", b"")
            code = 0
        finally:
            os._exit(code)
    wait_until(lambda: broker.requests["/enqueue"] == 2)
    broker.hold(None)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    parents.result(10)
    assert sorted(s.item.topic for s in broker.live()) == ["child", "parent"]
    client.close()
