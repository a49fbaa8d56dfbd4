"""The engine gives each call to its use case, a module of its own; HTTP calls nothing else (`ports.Engine`).

Everything was checked before it comes here (`http/convert.py`); what is decided here is where it goes.
"""

import random
from collections.abc import Callable, Sequence

from mqueue.broker.commit.committer import Committer
from mqueue.broker.engine.cancel_notices import Cancellations
from mqueue.broker.engine.canceller import Canceller
from mqueue.broker.engine.dead_letters import DeadLetters
from mqueue.broker.engine.edge.give_back import GiveBack
from mqueue.broker.engine.enqueuer import Enqueuer
from mqueue.broker.engine.fetch_waiters import Waiters
from mqueue.broker.engine.fetcher import Fetcher
from mqueue.broker.engine.result_waiters import ResultWaiters
from mqueue.broker.engine.results import Results
from mqueue.broker.engine.schedules import Schedules
from mqueue.broker.engine.settler import Settler
from mqueue.broker.engine.views import Views
from mqueue.broker.engine.workers import Workers
from mqueue.broker.metrics import Metrics
from mqueue.broker.shard import Shard
from mqueue.broker.slots import SlotMap
from mqueue.clock import Clock
from mqueue.message import RESULT_MAX, Readiness


class Engine:
    def __init__(
        self,
        shards: Sequence[Shard],
        committers: Sequence[Committer],
        slots: SlotMap,
        waiters: Waiters,
        metrics: Metrics,
        clock: Clock,
        *,
        lease_s: float,
        max_retries: int,
        idempotency_s: float,
        postgres_namespaces: Sequence[str] = (),
        result_max: int = RESULT_MAX,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._shards = shards
        enqueuer = Enqueuer(
            shards, committers, slots, metrics, clock, lease_s=lease_s, max_retries=max_retries, idempotency_s=idempotency_s,
            postgres_namespaces=postgres_namespaces,
        )  # fmt: skip
        result_waiters = ResultWaiters()
        settler = Settler(shards, committers, slots, metrics, jitter, result_waiters, result_max)
        fetcher = Fetcher(shards, slots, waiters, metrics, clock, GiveBack(settler.settle))
        dead_letters = DeadLetters(shards, slots, clock)
        workers = Workers(shards[0].store, clock)
        views = Views(shards, workers.progress, settler.leaves, slots.shard)
        results = Results(shards, slots, result_waiters, views.look, clock)
        cancellations = Cancellations(shards, clock)
        canceller = Canceller(shards, committers, cancellations, metrics)
        self.schedules = Schedules(shards, slots, clock, enqueuer.enqueue)
        self.enqueue = enqueuer.enqueue
        self.fetch = fetcher.fetch
        self.wake_loop = fetcher.wake_loop
        self.settle = settler.settle
        self.extend = settler.extend
        self.cancel = canceller.cancel
        self.wait_cancelled = cancellations.wait
        self.dead_letters = dead_letters.page
        self.delete_dead = dead_letters.delete
        self.topics = views.topics
        self.message = views.message
        self.result = results.result
        self.hear_worker = workers.hear
        self.workers = workers.workers
        self.workers_loop = workers.run

    def readiness(self) -> list[Readiness]:
        return [shard.readiness() for shard in self._shards]
