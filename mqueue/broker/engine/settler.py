"""The settler settles and extends: Redis decides what a receipt still allows; the settler finds out whether what is not
there is `stale` or `gone`.

The result that an ack brings is kept once the ack was taken. For one that is `gone` too: it may be the repetition of an
ack whose result PostgreSQL did not take, or whose answer got lost. (A sleeper's late ack is `stale`; where the message
has gone meanwhile, the result of the later delivery stands, whichever comes first.)
"""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from functools import lru_cache, partial
from typing import Any

from mqueue.broker import failpoints
from mqueue.broker.cache.calls import SettleArgs
from mqueue.broker.commit.batch import delays
from mqueue.broker.commit.committer import Committer
from mqueue.broker.engine.result_waiters import ResultWaiters
from mqueue.broker.engine.result_writer import ResultWriter
from mqueue.broker.faults import Fault, unavailable
from mqueue.broker.metrics import Metrics
from mqueue.broker.shard import COLD, Shard
from mqueue.broker.slots import SlotMap
from mqueue.broker.store.cold import ColdStore
from mqueue.errors import TooLarge, Unavailable
from mqueue.lifecycle import GONE, State
from mqueue.message import ERROR_MAX, Extend, Result, Settle, TopicName, Verdict, by_namespace

VERDICTS: dict[str, Verdict] = {"o": "ok", "s": "stale", "g": "gone"}


Call = Callable[[Shard, Sequence[Any]], Awaitable[list[Verdict]]]


class Settler:
    def __init__(
        self,
        shards: Sequence[Shard],
        committers: Sequence[Committer],
        slots: SlotMap,
        metrics: Metrics,
        jitter: Callable[[], float],
        waiters: ResultWaiters,
        result_max: int,
    ) -> None:
        self._shards = shards
        self._committers = committers
        self._slots = slots
        self._metrics = metrics
        self._jitter = jitter
        self._waiters = waiters
        self._result_max = result_max
        self._writers = [ResultWriter(shard.store) for shard in shards]
        self._leaving: set[int] = set()

    def leaves(self, id: int) -> bool:
        """Is this message being settled here with a result? For a moment there is neither of them."""
        return id in self._leaving

    async def settle(self, settles: Sequence[Settle]) -> list[Verdict]:
        """Settles messages. Raises TooLarge for a result, before anything is settled; Unavailable where one was not
        kept though its message is settled.
        """
        self._check_results(settles)
        leaving = {s.id for s in settles if s.result is not None}
        self._leaving |= leaving
        try:
            return await self._settle(settles)
        finally:
            self._leaving -= leaving

    async def _settle(self, settles: Sequence[Settle]) -> list[Verdict]:
        verdicts = await self._by_shard(settles, self._settle_shard)
        acked: dict[str, int] = defaultdict(int)
        nacked: dict[str, int] = defaultdict(int)
        for s, verdict in zip(settles, verdicts, strict=True):
            if verdict == "ok" and s.kind in ("ack", "nack"):
                (acked if s.kind == "ack" else nacked)[s.namespace] += 1
        for namespace, count in acked.items():
            self._metrics.acked(namespace, count)
        for namespace, count in nacked.items():
            self._metrics.nacked(namespace, count)
        if results := [_result(s, v) for s, v in zip(settles, verdicts, strict=True) if s.result is not None and v != "stale"]:
            await self._keep(results)
        return verdicts

    async def _by_shard(self, items: Sequence[Any], call: Call, among: Call | None = None) -> list[Verdict]:
        """Calls each shard with its items. `among`: instead of `call` where there are several."""
        by_shard: dict[int, list[int]] = defaultdict(list)
        for i, item in enumerate(items):
            by_shard[self._slots.shard(TopicName(item.namespace, item.topic))].append(i)
        if len(by_shard) == 1:
            return await call(self._shards[next(iter(by_shard))], items)
        parts = await asyncio.gather(*((among or call)(self._shards[n], [items[i] for i in at]) for n, at in by_shard.items()))
        verdicts: list[Verdict] = ["gone"] * len(items)
        for at, part in zip(by_shard.values(), parts, strict=True):
            for i, verdict in zip(at, part, strict=True):
                verdicts[i] = verdict
        return verdicts

    async def _settle_shard(self, shard: Shard, settles: Sequence[Settle]) -> list[Verdict]:
        args = [self._settle_args(s) for s in settles]
        outcomes = await self._committers[shard.number].settle(settles, args)
        for state, count_in in ((State.DEAD, self._metrics.dead), (State.CANCELLED, self._metrics.cancelled)):
            ended = [s for s, outcome in zip(settles, outcomes, strict=True) if outcome.state == state]
            for namespace, count in by_namespace(ended).items():
                count_in(namespace, count)
        return await self._verdicts(shard, settles, [VERDICTS[outcome.verdict.decode()] for outcome in outcomes])

    def _check_results(self, settles: Sequence[Settle]) -> None:
        for item, s in enumerate(settles):
            if s.result is not None and len(s.result) > self._result_max:
                raise TooLarge(f"a result may have {self._result_max} bytes, this one has {len(s.result)}", item=item, field="result")

    async def _keep(self, results: Sequence[Result]) -> None:
        await failpoints.ahit("settle.before_result")
        by_shard: dict[int, list[Result]] = defaultdict(list)
        for result in results:
            by_shard[self._slots.shard(TopicName(result.namespace, result.topic))].append(result)
        try:
            await asyncio.gather(*(self._writers[number].keep(of_shard) for number, of_shard in by_shard.items()))
        except Fault as fault:
            raise unavailable(fault) from fault
        for number, of_shard in by_shard.items():
            self._waiters.wake(number, (result.id for result in of_shard))

    def _settle_args(self, s: Settle) -> SettleArgs:
        if s.kind == "ack":
            return SettleArgs(s.id.to_bytes(8), _topic(s.namespace, s.topic), "ack", _receipt(s.receipt), b"", b"")
        retry = b""
        if s.kind in ("nack", "bury"):
            retry = delays(self._jitter(), s.retry_after)
        elif s.kind == "release" and s.retry_after is not None:  # after no time it lets all go first that are due
            retry = delays(0.0, s.retry_after)
        error = (s.error or "").encode()[:ERROR_MAX] if s.kind in ("nack", "bury") else b""
        error = error.decode(errors="ignore").replace("\0", "").encode()  # cut at a character; PostgreSQL's text has no NUL
        return SettleArgs(s.id.to_bytes(8), _topic(s.namespace, s.topic), s.kind, _receipt(s.receipt), error, retry)

    async def extend(self, extends: Sequence[Extend]) -> list[Verdict]:
        """Extends leases. Where a shard of several does not serve, that is said at once, and the others' leases are
        extended all the same: whoever holds them must not wait for it, and repeats the call.
        """
        return await self._by_shard(extends, self._extend_shard, partial(self._extend_shard, alone=False))

    async def _extend_shard(self, shard: Shard, extends: Sequence[Extend], *, alone: bool = True) -> list[Verdict]:
        if not alone and not shard.serving.is_set():
            raise Unavailable(f"shard {shard.number} is recovering", retry_after=1)
        await shard.wait_serving()
        items = [
            (
                e.id.to_bytes(8),
                _topic(e.namespace, e.topic),
                _receipt(e.receipt),
                0 if e.lease is None else int(e.lease * 1000),
            )
            for e in extends
        ]
        try:
            if shard.mode == COLD:
                asked = [(int.from_bytes(id), t.decode(), r, ms) for id, t, r, ms in items]
                told = await ColdStore(shard.store).extend(shard.epoch, shard.now_us(), asked)
                letters = b"".join(b"o" if int.from_bytes(id) in told else b"g" for id, *_ in items)
            else:
                letters = await shard.cache.extend(shard.epoch, items)
        except Fault as fault:
            shard.suspect.set()
            raise unavailable(fault) from fault
        return await self._verdicts(shard, extends, [VERDICTS[chr(letter)] for letter in letters])

    async def _verdicts(self, shard: Shard, items: Sequence[Settle | Extend], verdicts: list[Verdict]) -> list[Verdict]:
        """Says `gone` only where PostgreSQL does not have it either: what it has there is not leased, so the receipt is
        stale.

        A row whose end waits for its flush does not count. A flush between two looks is why PostgreSQL is asked twice.
        Where it is away, `gone` it is: what has been settled is settled, and must be told.
        """
        missing = [i for i, verdict in enumerate(verdicts) if verdict == "gone"]
        try:
            if there := await self._in_store(shard, items, missing):
                there = [i for i in there if not await self._ended(shard, items[i].id)]
                there = await self._in_store(shard, items, there)
        except Fault:
            there = []
        for i in there:
            verdicts[i] = "stale"
        return verdicts

    async def _in_store(self, shard: Shard, items: Sequence[Settle | Extend], at: Sequence[int]) -> list[int]:
        """Returns which of the items at these places PostgreSQL has, under that topic."""
        rows = await shard.store.existing([items[i].id for i in at]) if at else {}
        return [i for i in at if rows.get(items[i].id) == f"{items[i].namespace}/{items[i].topic}"]

    async def _ended(self, shard: Shard, id: int) -> bool:
        if shard.mode == COLD:
            return False
        data, _, _ = await shard.cache.record(id.to_bytes(8))
        return data is not None and State(data[:1]) in GONE


def _result(s: Settle, verdict: Verdict) -> Result:
    """Returns the result that a settle brings. A settle without a receipt acts on the current lease, so no delivery can
    be later; one that comes too late is before all.
    """
    anybody = b"\xff" * 12 if verdict == "ok" else b""
    return Result(s.id, s.namespace, s.topic, anybody if s.receipt is None else _receipt(s.receipt), s.result or b"", s.result_ttl)


@lru_cache(1024)
def _topic(namespace: str, topic: str) -> bytes:
    return f"{namespace}/{topic}".encode()


@lru_cache(1024)  # those of one fetch are one
def _receipt(text: str | None) -> bytes:
    """Returns the 12 bytes of a receipt; empty: any. One of a form that never was ours matches nothing."""
    if text is None:
        return b""
    try:
        epoch, _, number = text.partition("-")
        return int(epoch, 16).to_bytes(4) + int(number, 16).to_bytes(8)
    except (ValueError, OverflowError):
        return bytes(12)
