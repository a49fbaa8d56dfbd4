"""Group commit: all enqueues and settles that wait become one batch of this broker and shard.

One batch in flight: one batch = one sequence number = one append and fdatasync beside one script call = one dirty entry. While it is
under way the next gathers. An enqueue is answered when both are done; a settle when Redis has decided and its outcome is written to the
log (not synced). A call without an answer is repeated until it is answered or the epoch ends: the number makes that safe.
"""

import asyncio
import struct
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import structlog

from mqueue import backoff
from mqueue.broker import entries, failpoints, record
from mqueue.broker.cache.calls import Applied, Enqueue, Outcome, SettleArgs
from mqueue.broker.entries import Enqueued, Settled
from mqueue.broker.faults import Behind, CacheLost, EpochEnded, Fault, StoreLost, unavailable
from mqueue.broker.shard import Shard
from mqueue.broker.wal.errors import WalError, WalFull
from mqueue.broker.wal.ids import IdSource
from mqueue.broker.wal.record import Record as LogRecord
from mqueue.errors import BufferFull, InFlight, KeyReused, Unavailable
from mqueue.message import BATCH_MAX, BODY_MAX, REQUEST_KEY_S, Settle

WAITING_MAX = 10_000  # requests that may wait for the next batch
RETRY_S = 0.05
FLUSH_WAIT_S = 5.0
DELAYS_MAX = 14  # past 2^12 s the cap of one hour holds

logger = structlog.get_logger(__name__)


@dataclass(slots=True)
class Draft:
    """A message on its way: its body is packed, its number and time come with the batch. Durations in µs, 0: none."""

    topic: bytes
    priority: int
    body: bytes  # without its created_at
    deliver_after_us: int | None
    delay_us: int
    ttl_us: int
    max_retries: int
    lease_ms: int
    key_hash: bytes = b""
    body_hash: bytes = b""
    key_ttl_us: int = 0

    @property
    def size(self) -> int:
        """Bytes it takes in the write-behind buffer."""
        return record.buffered(record.CREATED.size + len(self.body), len(self.topic))


@dataclass(slots=True)
class EnqueueRequest:
    """`key_hash`: of the key of the whole request; empty: none. `epoch`: the only one it may be applied in; 0: any."""

    drafts: Sequence[Draft]
    size: int
    done: asyncio.Future[list[int]]
    key_hash: bytes = b""
    body_hash: bytes = b""
    epoch: int = 0


class LookAgain(Exception):
    """The epoch has changed since the idempotency keys were looked for."""


class Repeated(Exception):
    """This request was enqueued before, under the same key: Redis knows its ids."""


@dataclass(slots=True)
class SettleRequest:
    settles: Sequence[Settle]
    args: Sequence[SettleArgs]
    done: asyncio.Future[list[Outcome]]


@dataclass(slots=True)
class Batch:
    enqueues: list[EnqueueRequest] = field(default_factory=list)
    settles: list[SettleRequest] = field(default_factory=list)

    def refuse_others(self, epoch: int) -> None:
        """Enqueues that belong to another epoch must look again."""
        for request in self.enqueues:
            if request.epoch not in (0, epoch) and not request.done.done():
                request.done.set_exception(LookAgain())
        self.enqueues = [request for request in self.enqueues if request.epoch in (0, epoch)]

    def fail(self, error: Exception) -> None:
        futures: list[asyncio.Future[Any]] = [request.done for request in self.enqueues]
        futures += [request.done for request in self.settles]
        for future in futures:
            if not future.done():
                future.set_exception(error)


class Committer:
    def __init__(self, shard: Shard, ids: IdSource, on_fatal: Callable[[Exception], None]) -> None:
        self._shard = shard
        self._ids = ids
        self._on_fatal = on_fatal
        self._waiting: deque[EnqueueRequest | SettleRequest] = deque()
        self._wake = asyncio.Event()
        self._stopped = False

    async def enqueue(self, drafts: Sequence[Draft], key_hash: bytes = b"", body_hash: bytes = b"", epoch: int = 0) -> list[int]:
        """Ids in order; durable and applied. All or nothing. Raises BufferFull, KeyReused, InFlight, Repeated, LookAgain, Unavailable."""
        size = sum(d.size for d in drafts)
        request = EnqueueRequest(drafts, size, asyncio.get_running_loop().create_future(), key_hash, body_hash, epoch)
        self._add(request)
        self._shard.coming += size
        try:
            return await request.done
        finally:
            self._shard.coming -= size

    async def settle(self, settles: Sequence[Settle], args: Sequence[SettleArgs]) -> list[Outcome]:
        request = SettleRequest(settles, args, asyncio.get_running_loop().create_future())
        self._add(request)
        return await request.done

    def _add(self, request: EnqueueRequest | SettleRequest) -> None:
        if self._stopped:
            raise Unavailable("the broker is stopping", retry_after=1)
        if len(self._waiting) >= WAITING_MAX:
            raise Unavailable("too many requests wait for this shard", retry_after=1)
        self._waiting.append(request)
        self._wake.set()

    async def run(self) -> None:
        while True:
            await self._wake.wait()
            batch = self._gather()
            if not batch.enqueues and not batch.settles:
                self._wake.clear()
                continue
            try:
                await self._shard.wait_serving()
                async with self._shard.in_flight:
                    batch.refuse_others(self._shard.epoch)
                    if batch.enqueues or batch.settles:
                        await self._commit(batch)
            except Unavailable as error:
                batch.fail(error)
            except (EpochEnded, Behind) as error:
                logger.warning("batch of unknown outcome: the epoch has ended", shard=self._shard.number, reason=str(error))
                self._shard.epoch = 0  # join it again: what Redis has applied of ours is not what we think
                self._shard.lost()
                batch.fail(Unavailable("the shard is recovering: unknown whether this happened", retry_after=1))
            except Fault as fault:
                batch.fail(unavailable(fault))
            except WalFull as error:
                batch.fail(Unavailable(str(error), retry_after=5))
            except WalError as error:
                batch.fail(Unavailable("the write-ahead log has failed", retry_after=5))
                self._on_fatal(error)
                return
            except Exception as error:
                logger.exception("a batch failed", shard=self._shard.number)
                batch.fail(Unavailable(f"a batch failed: {type(error).__name__}", retry_after=1))

    async def stop(self) -> None:
        """No new requests; returns when those that wait are answered."""
        self._stopped = True
        while self._waiting or self._shard.in_flight.locked():
            await asyncio.sleep(0.005)

    def _gather(self) -> Batch:
        batch, ids, size = Batch(), 0, 0
        while self._waiting:
            request = self._waiting[0]
            enqueue = isinstance(request, EnqueueRequest)
            many = len(request.drafts) if isinstance(request, EnqueueRequest) else len(request.args)
            more = request.size if isinstance(request, EnqueueRequest) else 0
            if ids and (ids + many > BATCH_MAX or size + more > BODY_MAX):
                break
            self._waiting.popleft()
            if request.done.cancelled():
                continue
            ids, size = ids + many, size + more
            if enqueue:
                batch.enqueues.append(request)  # type: ignore[arg-type]
            else:
                batch.settles.append(request)  # type: ignore[arg-type]
        return batch

    # -- one batch -----------------------------------------------------------------------------------------------------------

    async def _commit(self, batch: Batch) -> None:
        shard = self._shard
        epoch, previous, sequence = shard.epoch, shard.previous, shard.next_sequence()
        requests = [self._number(request, sequence) for request in batch.enqueues]
        messages = [message for request in requests for message in request]
        enqueues = [e for group, request in enumerate(requests) for e in for_script(group, request)]
        settles = [args for request in batch.settles for args in request.args]
        shard.metrics.batch_size.observe(len(enqueues) + len(settles))
        if enqueues:
            await failpoints.ahit("enqueue.before_wal")
            entry = LogRecord(sequence, epoch, entries.ENQUEUE, entries.pack_enqueued(messages))
            syncing = asyncio.create_task(self._sync(entry))
        else:
            syncing = None
            await failpoints.ahit("settle.before_redis")
        try:
            applied = await self._apply(epoch, previous, sequence, enqueues, settles)
        except BaseException:
            if syncing is not None:
                await asyncio.gather(syncing, return_exceptions=True)
            raise
        shard.previous = sequence
        shard.saw_clock(applied.due_clock, applied.clock)
        shard.buffer = applied.buffer
        failure: Exception | None = None
        if syncing is not None:
            await failpoints.ahit("enqueue.after_redis_before_wal")
            try:
                await syncing
            except WalFull as error:  # settles go on; these enqueues may or may not be there
                shard.doubtful = sequence
                failure = Unavailable(str(error), retry_after=5)
        if batch.settles:
            await failpoints.ahit("settle.after_redis")
            if not self._log_outcomes(batch, sequence, epoch, applied.outcomes):
                await self._flushed(sequence)
            await failpoints.ahit("settle.after_log")
            self._answer_settles(batch, applied.outcomes)
        if enqueues:
            await failpoints.ahit("enqueue.before_reply")
            self._log_voids(sequence, epoch, [m.record for m in messages], applied.verdicts)
            self._answer_enqueues(batch, applied.verdicts, failure)
        self._shard.metrics.buffer_bytes.set(applied.buffer)

    def _number(self, request: EnqueueRequest, sequence: int) -> list[Enqueued]:
        """Stamps the messages of a request with ids, this batch's number, and times."""
        shard = self._shard
        now, due_clock, node = shard.now_us(), shard.due_clock, shard.node
        created = record.CREATED.pack(8, due_clock)
        key_hash, key = request.key_hash, b""
        joins = False
        messages: list[Enqueued] = []
        for id, d in zip(self._ids.take(len(request.drafts)), request.drafts, strict=True):
            due = d.deliver_after_us if d.deliver_after_us is not None else now + d.delay_us if d.delay_us else due_clock
            body = created + d.body
            data = record.new(
                priority=d.priority, due=due, id=id, expires=now + d.ttl_us if d.ttl_us else 0, max_retries=d.max_retries,
                lease_ms=d.lease_ms, node=node, sequence=sequence, size=len(body), topic=d.topic,
            )  # fmt: skip
            if d.key_hash:
                own = record.IDEMPOTENCY.pack(id, d.body_hash, node, sequence, now + d.key_ttl_us, 0, b"u")
                messages.append(Enqueued(data, body, d.key_hash, own))
                continue
            if key_hash:
                key = record.IDEMPOTENCY.pack(id, request.body_hash, node, sequence, now + int(REQUEST_KEY_S * 1e6), 0, b"r")
            messages.append(Enqueued(data, body, key_hash, key, joins))
            joins, key_hash, key = bool(request.key_hash), b"", b""
        return messages

    async def _sync(self, entry: LogRecord) -> None:
        began = time.perf_counter()
        await self._shard.log.commit(entry)
        self._shard.metrics.wal_commit_seconds.observe(time.perf_counter() - began)

    async def _apply(self, epoch: int, previous: int, sequence: int, enqueues: Sequence[Enqueue], settles: Sequence[SettleArgs]) -> Applied:
        shard = self._shard
        if enqueues:
            await failpoints.ahit("enqueue.before_redis")
        while True:
            try:
                return await shard.cache.apply(epoch, shard.node, previous, sequence, enqueues, settles, shard.doubtful)
            except CacheLost as error:
                shard.suspect.set()
                if not shard.serving.is_set() or shard.epoch != epoch:
                    raise EpochEnded(None) from error
                await asyncio.sleep(RETRY_S)

    async def _flushed(self, sequence: int) -> None:
        """The log has no room: what Redis has decided is answered when PostgreSQL has it. Raises StoreLost past FLUSH_WAIT_S."""
        shard = self._shard
        deadline = shard.clock.monotonic() + FLUSH_WAIT_S
        while await shard.store.position(shard.node) < sequence:
            if shard.clock.monotonic() > deadline:
                raise StoreLost("the log is full, and the flush does not come")
            await shard.hurry_flush()

    def _log_outcomes(self, batch: Batch, sequence: int, epoch: int, outcomes: Sequence[Outcome]) -> bool:
        """False when the log is full."""
        asked = [args for request in batch.settles for args in request.args]
        changed = [
            Settled(int.from_bytes(args.id), *outcome[1:], args.topic, args.error)
            for args, outcome in zip(asked, outcomes, strict=True)
            if outcome.verdict == b"o" and (args.kind != "release" or args.delays)
        ]
        return not changed or self._append(LogRecord(sequence, epoch, entries.OUTCOME, entries.pack_settled(changed)))

    def _log_voids(self, sequence: int, epoch: int, records: Sequence[bytes], verdicts: Sequence[tuple[bytes, bytes]]) -> None:
        refused = [data[record.ID] for data, (letter, _) in zip(records, verdicts, strict=True) if letter != b"o"]
        if refused:
            self._append(LogRecord(sequence, epoch, entries.VOID, entries.pack_void(refused)))

    def _append(self, entry: LogRecord) -> bool:
        try:
            self._shard.log.append(entry)
        except WalFull:
            logger.warning("the log is full: outcomes wait for their flush", shard=self._shard.number)
            return False
        return True

    def _answer_settles(self, batch: Batch, outcomes: list[Outcome]) -> None:
        at = 0
        for request in batch.settles:
            if not request.done.done():
                request.done.set_result(outcomes[at : at + len(request.args)])
            at += len(request.args)

    def _answer_enqueues(self, batch: Batch, verdicts: Sequence[tuple[bytes, bytes]], failure: Exception | None) -> None:
        at = 0
        for request in batch.enqueues:
            own = verdicts[at : at + len(request.drafts)]
            at += len(request.drafts)
            error = failure or _refusal(own, bool(request.key_hash))
            if request.done.done():
                continue
            if error is not None:
                request.done.set_exception(error)
            else:
                request.done.set_result([int.from_bytes(id) for _, id in own])


def for_script(group: int, request: Sequence[Enqueued]) -> list[Enqueue]:
    """The messages of a request as `apply` takes them: the key of a request brings the ids with it."""
    enqueues = [Enqueue(group, m.record, m.body, m.key_hash, m.key) for m in request]
    if request[0].key[-1:] == b"r":
        ids = record.pack_runs([int.from_bytes(m.record[record.ID]) for m in request])
        enqueues[0] = enqueues[0]._replace(key=request[0].key + ids)
    return enqueues


def _refusal(verdicts: Sequence[tuple[bytes, bytes]], keyed: bool) -> Exception | None:
    """Why a request was refused whole, if it was. `keyed`: it has a key of its own."""
    letters = {letter for letter, _ in verdicts}
    if b"f" in letters:
        return BufferFull("the write-behind buffer is full: PostgreSQL does not keep up", retry_after=1)
    if b"r" in letters:
        return Repeated()
    if b"m" in letters and keyed:
        return KeyReused("this Idempotency-Key was used with another request", field="Idempotency-Key")
    if b"m" in letters:
        item = next(i for i, (letter, _) in enumerate(verdicts) if letter == b"m")
        return KeyReused("this idempotency key was used with another message", item=item, field="idempotency_key")
    if b"p" in letters:
        return InFlight("the first request with this idempotency key is not durable yet", retry_after=1)
    return None


def delays(jitter: float, retry_after: float | None) -> bytes:
    """µs until the next delivery, by how many attempts failed before: for one settle."""
    if retry_after is not None:
        return struct.pack(">d", retry_after * 1e6)
    return struct.pack(f">{DELAYS_MAX}d", *(backoff.delay_us(n + 1, jitter) for n in range(DELAYS_MAX)))
