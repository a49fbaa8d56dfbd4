"""One run of one seed: brokers, stores, clients, faults; then all is healed, drained and counted."""

import asyncio
import random
import shutil
import sys
import warnings
from collections import Counter, deque
from collections.abc import Callable, MutableMapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import structlog

from mqueue.broker.daemons import work
from mqueue.message import Settle

from .broker import SimBroker, config_of, partial_fetches
from .cache import Redis
from .checker import Checker
from .clients import NAMESPACE, TOPICS, Clients
from .faults import Faults
from .history import History
from .loop import OWNER, Stuck, VirtualLoop, elapse, run
from .store import Postgres

START_US = 1_750_000_000_000_000
SLOWER = {"TICK_S": 0.15, "SCAN_EVERY_S": 0.5, "ARRIVALS_EVERY_S": 0.5}  # of the leader: fewer calls that find nothing
ENDS = ("ack", "cancel")  # settles after which there is nothing more
QUIET_S = 25.0  # past every lease and delay
CLOCK_LAG_US = 2_000_000  # of the due clock
SERVE_S = 150.0
DRAIN_ROUNDS = 400
KEPT = 400  # lines of the story told when it fails


class Violation(AssertionError):
    """Something that must hold did not."""


class World:
    """`kinds`: of faults; none: the seed chooses."""

    def __init__(
        self,
        seed: int,
        folder: Path,
        redis: Redis,
        postgres: Postgres,
        *,
        kinds: Sequence[str] = (),
        trace: Callable[[str], object] | None = None,
    ) -> None:
        self.seed = seed
        self.kinds = kinds
        self.rng = random.Random(seed)
        self.loop = VirtualLoop(self.rng)
        self.folder = folder / str(seed)
        self.redis, self.postgres = redis, postgres
        self.counts: Counter[str] = Counter()
        self.story: deque[str] = deque(maxlen=KEPT)
        self._trace = trace
        self._failed: asyncio.Future[None] = self.loop.create_future()
        redis.begin(self.wall_us)
        postgres.begin(self.wall_us)
        self.config = config_of(self.rng)
        self.brokers: list[SimBroker] = []
        self.history = History(self)
        self.checker = Checker(self)
        self.clients = Clients(self)

    def wall_us(self) -> int:
        return START_US + int(self.loop.time() * 1e6)

    def tell(self, who: str, text: str) -> None:
        line = f"{self.loop.time():9.4f} {who:8} {text}"
        self.story.append(line)
        if self._trace is not None:
            self._trace(line)

    def count(self, what: str, many: int = 1) -> None:
        self.counts[what] += many

    def fail(self, what: str, error: BaseException | None = None) -> None:
        """The run ends here, whoever noticed it."""
        if not self._failed.done():
            self.tell("FAILED", what)
            failure = Violation(f"seed {self.seed}, at {self.loop.time():.4f}: {what}")
            failure.__cause__ = error
            self._failed.set_exception(failure)

    # -- a run ---------------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Raises Violation."""
        random.seed(self.seed)
        kept = {name: getattr(work, name) for name in SLOWER}
        vars(work).update(SLOWER)
        structlog.configure(processors=[self._log], cache_logger_on_first_use=False)
        try:
            with suppress(FileNotFoundError):
                shutil.rmtree(self.folder)
            self.folder.mkdir(parents=True)
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "coroutine .* was never awaited")  # the process was dead before
                run(self.loop, self._main())
        except Stuck as stuck:
            raise Violation(f"seed {self.seed}: nobody has anything to do") from stuck
        finally:
            vars(work).update(kept)
            structlog.reset_defaults()
            self.postgres.written = lambda: None
            self.postgres.restart()
            shutil.rmtree(self.folder, ignore_errors=True)

    def _log(self, logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        """What the product logs is part of the story."""
        owner = OWNER.get()
        text = str(event.pop("event"))
        failed = event.pop("exc_info", None)
        words = " ".join(f"{k}={v}" for k, v in event.items())
        self.tell(owner.name if owner else "-", f"[{method}] {text} {words}")
        if failed and method in ("exception", "error") and owner is not None and owner.alive:
            self.fail(f"{owner.name} logs: {text}", sys.exc_info()[1])
        raise structlog.DropEvent

    async def _main(self) -> None:
        self.postgres.written = lambda: self.checker.look("written")
        for n in range(self.rng.choice([2, 2, 3])):
            broker = SimBroker(self, f"broker-{n + 1}", self.folder / f"broker-{n + 1}")
            broker.disk.changed = lambda: self.checker.look("directory")
            self.brokers.append(broker)
        story = self.loop.create_task(self._story())
        await asyncio.wait({story, self._failed}, return_when=asyncio.FIRST_COMPLETED)
        if self._failed.done():
            story.cancel()
            await self._failed
        story.result()
        if self.loop.complaints:
            raise Violation(f"seed {self.seed}: {self.loop.complaints}")

    async def _story(self) -> None:
        self.faults = Faults(self)
        self.tell("world", f"{len(self.brokers)} brokers, {self.config}, faults {[kind.__name__ for kind in self.faults.kinds]}")
        keeping = self.loop.create_task(self._restart())
        await self._until_all_serve()
        until = self.loop.time() + self.rng.choice([10.0, 20.0, 40.0])
        work = [
            self.clients.produce(until),
            self.clients.cancel(until),
            *(self.clients.work(until) for _ in range(self.rng.choice([1, 2, 4]))),
            self.faults.run(until),
        ]
        await asyncio.gather(*work)
        await self._heal()
        await self._until_all_serve()
        await elapse(QUIET_S)
        await self._drain()
        keeping.cancel()
        await self._count()

    async def _restart(self) -> None:
        while True:
            for broker in self.brokers:
                if not broker.is_well or not self.postgres.up:
                    broker.unwell_at = self.loop.time()
                if not broker.alive and broker.restart_at is not None and broker.restart_at <= self.loop.time():
                    broker.start()
            await elapse(0.05)

    async def _until_all_serve(self) -> None:
        deadline = self.loop.time() + SERVE_S
        while not all(b.serves and b.shard is not None and b.shard.mode == "hot" for b in self.brokers):
            if self.loop.time() > deadline:
                return self.fail(f"do not serve: {[(b.name, b.alive, b.shard and (b.shard.mode, b.shard.epoch)) for b in self.brokers]}")
            await elapse(0.1)

    async def _heal(self) -> None:
        self.tell("world", "all is healed")
        self.faults.end()
        self.redis.up = self.postgres.up = True
        self.redis.failing = 0
        for broker in self.brokers:
            broker.disk.full = broker.disk.broken = False
            broker.disk.fuse = None
            broker.heal()
            if not broker.alive:
                broker.restart_at = self.loop.time()
        await self.clients.finish()

    # -- the end -------------------------------------------------------------------------------------------------------

    async def _drain(self) -> None:
        """Nobody has a lease: what is due already comes in strict order, and everything comes. A fetch that left topics
        out promises no order between them and the others.
        """
        least = (-10, 0, 0)
        last = dict.fromkeys(TOPICS, least)  # by topic
        left_out = partial_fetches()
        due_us = self.redis.clock_us() - CLOCK_LAG_US
        for _ in range(DRAIN_ROUNDS):
            broker = self.rng.choice(self.brokers)
            got = await self.clients.fetch(broker, TOPICS, self.rng.randint(1, 5), 0.0, 30.0)
            for d in got:
                key = (d.priority, d.deliver_after_us, d.id)
                before = max(last.values()) if partial_fetches() == left_out else last[d.topic]
                if key < before and d.deliver_after_us <= due_us:
                    self.fail(f"out of order: {key} of job {int(d.payload)} after {before}")
                last[d.topic] = max(key, last[d.topic])
            if got:
                settles = [Settle(d.id, NAMESPACE, d.topic, "ack", d.receipt) for d in got]
                verdicts = await self.clients.settle(self.rng.choice(self.brokers), settles, [int(d.payload) for d in got])
                if set(verdicts) != {"ok"}:
                    self.fail(f"an ack in peace: {verdicts}")
            elif not self._rows() and not self.redis.left():
                return
            else:
                await elapse(1.0)
        self.fail(f"stuck: rows {self._rows()}, Redis has {self.redis.left()}")

    def _rows(self) -> list[tuple[int, int]]:
        return [(id, int(payload)) for id, payload in self.postgres.own.execute(b"SELECT id, payload FROM message").fetchall()]

    async def _count(self) -> None:
        """The ledger adds up, and every job has come to its end."""
        sql, history = self.postgres.own, self.history
        names = ("enqueued", "acked", "dead", "expired", "purged", "cancelled")
        sums = ", ".join(f"coalesce(sum({name}), 0)::bigint" for name in names)
        row = sql.execute(f"SELECT {sums} FROM topic".encode()).fetchone()
        assert row is not None
        ledger = dict(zip(names, row, strict=True))
        dead = {int(payload) for (payload,) in sql.execute(b"SELECT payload FROM dead_letter").fetchall()}
        if ledger["enqueued"] != sum(n for name, n in ledger.items() if name != "enqueued"):
            self.fail(f"the ledger does not add up: {ledger}")
        if ledger["dead"] != len(dead):
            self.fail(f"{len(dead)} dead letters, and the ledger says {ledger}")
        answered = {id for job in history.jobs.values() for id in job.ids}  # an enqueue that no disk had may end uncounted, if Redis is lost
        sure = {id for id in answered if any(t.settle.kind == "ack" and not t.excused for t in history.told.get(id, ()))}
        if not len(sure) <= ledger["acked"] <= len(history.acks_sent):
            self.fail(f"between {len(sure)} and {len(history.acks_sent)} acked, and the ledger says {ledger}")
        known = answered.union(*(job.delivered for job in history.jobs.values()))
        # one that ended without a row, by a broker that was not there when Redis was lost, is counted nowhere
        excused = {
            id for id, told in history.told.items() if any(t.excused and (t.settle.kind in ENDS or id in history.cancels_sent) for t in told)
        }
        # whose time was over may be found expired first: both are true of it
        lasting = {id for job in history.jobs.values() if job.ttl is None for id in job.ids}
        cancelled = {id for id, told in history.told.items() if any(t.settle.kind == "cancel" and not t.excused for t in told)} & lasting
        told_cancelled = {id for id, told in history.told.items() if any(t.settle.kind == "cancel" and not t.excused for t in told)}
        if len(told_cancelled) > ledger["cancelled"] + ledger["expired"]:
            self.fail(f"{len(told_cancelled)} cancelled or expired, and the ledger says {ledger}")
        if not len(cancelled) <= ledger["cancelled"] <= len(history.cancels_sent):
            self.fail(f"between {len(cancelled)} and {len(history.cancels_sent)} cancelled, and the ledger says {ledger}")
        if not len(answered - excused) <= ledger["enqueued"] <= len(known) + history.unanswered:
            self.fail(f"{len(answered)} to {len(known)} + {history.unanswered} enqueued, and the ledger says {ledger}")
        for job in history.jobs.values():
            if job.ids and not (job.open_acks or job.forgotten) and job.token not in dead and job.ttl is None:
                self.fail(f"job {job.token} has neither been acked nor died: {job}")
        self.counts["jobs"] += sum(bool(job.ids) for job in history.jobs.values())
        self.counts["dead letters"] += len(dead)
        self.counts["looks"] += self.checker.looks
        self.tell("world", f"done: {ledger}")
