"""Group commit turns all enqueues and settles that wait into one batch of this broker and shard.

One batch in flight: one batch = one sequence number = one append and fdatasync beside one script call = one dirty
entry. While it is under way the next gathers. An enqueue is answered when both are done; a settle when Redis has
decided and its outcome is written to the log (not synced). A call without an answer is repeated until it is answered or
the epoch ends: the number makes that safe. Its requests, and those behind them, are told after REPEAT_S that this is
unknown. A call that Redis refuses is repeated for as long, and then it has not happened.
"""

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import NamedTuple

import structlog

from mqueue.broker import failpoints
from mqueue.broker.cache.calls import Applied, Enqueue, Outcome, SettleArgs, is_logged
from mqueue.broker.commit import cold, stamps
from mqueue.broker.commit.batch import Batch, Draft, EnqueueRequest, SettleRequest, Stamp, for_script, number, refusal
from mqueue.broker.faults import Behind, CacheLost, CacheRefused, EpochEnded, Fault, Refused, unavailable
from mqueue.broker.format import entries, log_record, record
from mqueue.broker.format.entries import Enqueued
from mqueue.broker.format.log_record import LogRecord
from mqueue.broker.shard import APART, FLUSH_WAIT_S, HOT, Shard
from mqueue.broker.wal.errors import WalError, WalFull
from mqueue.broker.wal.ids import IdSource
from mqueue.errors import Unavailable
from mqueue.message import BATCH_MAX, BODY_MAX, Settle

WAITING_MAX = 10_000  # requests that may wait for the next batch
REPEAT_S = 5.0  # nobody waits longer for a batch that is repeated
HURRY_EVERY_S = 0.1  # a flush is asked for
PAUSE_S, PAUSE_MAX_S = 0.05, 0.8  # between two tries

logger = structlog.get_logger(__name__)


class Numbered(NamedTuple):
    """A batch with its number, as the log takes it (`messages`) and as the script does (`enqueues`, `settles`)."""

    epoch: int
    previous: int
    sequence: int
    messages: list[Enqueued]
    enqueues: list[Enqueue]
    settles: list[SettleArgs]
    at_once: int  # stamped on what is due at once


class Committer:
    def __init__(self, shard: Shard, ids: IdSource, on_fatal: Callable[[Exception], None]) -> None:
        self._shard = shard
        self._ids = ids
        self._on_fatal = on_fatal
        self._waiting: deque[EnqueueRequest | SettleRequest] = deque()
        self._wake = asyncio.Event()
        self._stopped = False
        self._hurried_at = -math.inf
        self._hurrying: asyncio.Task[None] | None = None

    async def enqueue(self, drafts: Sequence[Draft], key_hash: bytes = b"", body_hash: bytes = b"", epoch: int = 0) -> list[int]:
        """Returns the ids in order, once they are durable and applied. All messages are enqueued or none. Raises
        BufferFull, KeyReused, InFlight, Repeated, LookAgain, Unavailable.
        """
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
                    if self._shard.mode == APART:  # they were let in while it was hot: Redis has not said that their keys are free
                        batch.refuse_keyed(self._shard.keys_are_away())
                    if self._shard.mode != HOT:
                        await cold.commit(self._shard, self._ids, batch)
                    elif batch.enqueues or batch.settles:
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
        """Takes no new requests; returns when those that wait are answered."""
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

    # -- one batch -----------------------------------------------------------------------------------------------------

    async def _commit(self, batch: Batch) -> None:
        shard = self._shard
        numbered = self._number(batch, await stamps.at_once(shard) if batch.enqueues else 0)
        shard.metrics.batch_size.observe(len(numbered.enqueues) + len(numbered.settles))
        applied, failure = await self._write(batch, numbered)
        if batch.settles:
            await failpoints.ahit("settle.after_redis")
            if not self._log_outcomes(batch, numbered.sequence, numbered.epoch, applied.outcomes):
                await shard.until_flushed(numbered.sequence, FLUSH_WAIT_S)
            await failpoints.ahit("settle.after_log")
            self._answer_settles(batch, applied.outcomes)
        if numbered.enqueues:
            await failpoints.ahit("enqueue.before_reply")
            self._log_voids(numbered.sequence, numbered.epoch, [m.record for m in numbered.messages], applied.verdicts)
            await stamps.until_due(shard, numbered.at_once, applied.clock)
            self._answer_enqueues(batch, applied.verdicts, failure)
        shard.metrics.buffer_bytes.set(applied.buffer)

    def _number(self, batch: Batch, at_once: int) -> Numbered:
        shard = self._shard
        epoch, previous, sequence = shard.epoch, shard.previous, shard.next_sequence()
        stamp = Stamp(shard.node, sequence, shard.clocks.most_us(), at_once)
        requests = [number(request, self._ids, stamp) for request in batch.enqueues]
        return Numbered(
            epoch,
            previous,
            sequence,
            [message for request in requests for message in request],
            [e for group, request in enumerate(requests) for e in for_script(group, request)],
            [args for request in batch.settles for args in request.args],
            at_once,
        )

    async def _write(self, batch: Batch, numbered: Numbered) -> tuple[Applied, Exception | None]:
        """Writes a batch to the log and applies it in Redis, side by side. Returns what Redis answered, and what its
        enqueues fail with where the log is full.
        """
        shard, syncing = self._shard, None
        if numbered.enqueues:
            await failpoints.ahit("enqueue.before_wal")
            payload = entries.pack_enqueued(numbered.messages)
            syncing = asyncio.create_task(self._sync(LogRecord(numbered.sequence, numbered.epoch, log_record.ENQUEUE, payload)))
        else:
            await failpoints.ahit("settle.before_redis")
        asked_at = shard.clock.monotonic()
        try:
            applied = await self._apply(batch, numbered)
        except BaseException as error:
            if syncing is not None:
                await asyncio.gather(syncing, return_exceptions=True)
                if isinstance(error, Refused | CacheRefused):  # its requests will be made again, so no replay may bring them as well
                    void = entries.pack_void(m.record[record.ID] for m in numbered.messages)
                    self._append(LogRecord(numbered.sequence, numbered.epoch, log_record.VOID, void))
            raise
        shard.previous = shard.buffered = numbered.sequence
        shard.clocks.saw(applied.due_clock, applied.clock, asked_at, applied.frontier)
        shard.buffer = applied.buffer
        self._hurry()
        if syncing is not None:
            await failpoints.ahit("enqueue.after_redis_before_wal")
            try:
                await syncing
            except WalFull as error:  # settles go on; these enqueues may or may not be there
                shard.doubtful = numbered.sequence
                shard.wal_full = True
                return applied, Unavailable(str(error), retry_after=5)
        return applied, None

    def _hurry(self) -> None:
        """Past half of the buffer there is no time to wait for acks: asks for a flush, now and then."""
        shard, now = self._shard, self._shard.clock.monotonic()
        if shard.buffer * 2 > shard.buffer_max > 0 and now - self._hurried_at > HURRY_EVERY_S:
            self._hurried_at = now
            self._hurrying = asyncio.create_task(self._ask_flush())

    async def _ask_flush(self) -> None:
        with suppress(Fault):
            await self._shard.cache.ask_flush()

    async def _sync(self, entry: LogRecord) -> None:
        began = time.perf_counter()
        await self._shard.log.commit(entry)
        self._shard.wal_full = False
        self._shard.metrics.wal_commit_seconds.observe(time.perf_counter() - began)

    async def _apply(self, batch: Batch, numbered: Numbered) -> Applied:
        """Calls the script until it answers or the epoch ends. Raises Refused, CacheRefused where it certainly was not
        applied, EpochEnded where that is unknown.
        """
        shard, now = self._shard, self._shard.clock.monotonic
        epoch, previous, sequence, _, enqueues, settles, at_once = numbered
        if enqueues:
            await failpoints.ahit("enqueue.before_redis")
        unknown, pause, deadline = False, PAUSE_S, now() + REPEAT_S
        while True:
            try:
                return await shard.cache.apply(epoch, shard.node, previous, sequence, enqueues, settles, shard.doubtful, stamp=at_once)
            except EpochEnded as ended:
                if not unknown:
                    raise Refused(ended.found) from ended
                raise
            except CacheLost as error:
                unknown = unknown or not isinstance(error, CacheRefused)
                shard.suspect.set()
                if not shard.serving.is_set() or shard.epoch != epoch:
                    raise (EpochEnded if unknown else Refused)(None) from error
                if not unknown and (now() >= deadline or not shard.reaches):
                    raise
                if unknown and now() >= deadline:  # it is repeated all the same: what follows must know what became of it
                    batch.fail(unavailable(CacheLost(str(error))))
                    self._refuse_waiting(unavailable(error))
                await asyncio.sleep(pause)
                pause = min(2 * pause, PAUSE_MAX_S)

    def _refuse_waiting(self, error: Unavailable) -> None:
        """Tells those that wait for the next batch that it does not come: nothing of theirs has happened."""
        while self._waiting:
            request = self._waiting.popleft()
            if not request.done.done():
                request.done.set_exception(error)

    def _log_outcomes(self, batch: Batch, sequence: int, epoch: int, outcomes: Sequence[Outcome]) -> bool:
        """Writes what the settles did to the log. Returns False when it is full."""
        asked = [args for request in batch.settles for args in request.args]
        changed = [
            (int.from_bytes(args.id), *outcome[1:], args.topic, args.error)
            for args, outcome in zip(asked, outcomes, strict=True)
            if is_logged(args, outcome)
        ]
        return not changed or self._append(LogRecord(sequence, epoch, log_record.OUTCOME, entries.pack_settled(changed)))

    def _log_voids(self, sequence: int, epoch: int, records: Sequence[bytes], verdicts: Sequence[tuple[bytes, bytes]]) -> None:
        refused = [data[record.ID] for data, (letter, _) in zip(records, verdicts, strict=True) if letter != b"o"]
        if refused:
            self._append(LogRecord(sequence, epoch, log_record.VOID, entries.pack_void(refused)))

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
            error = failure or refusal(own, bool(request.key_hash))
            if request.done.done():
                continue
            if error is not None:
                request.done.set_exception(error)
            else:
                request.done.set_result([int.from_bytes(id) for _, id in own])
