"""Prometheus metrics are named here, and nowhere else.

Labels stay few: a namespace (the first NAMESPACES_MAX seen, the rest together as `(other)`), a shard, a script, a route
of the API and a status. The parts of the broker hold bound children (`metrics.shard(k).flush_seconds`), so that
counting costs about a microsecond; count once per request or batch, never per message.
"""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
NAMESPACES_MAX = 1_000
OTHER = "(other)"  # no namespace can be called so

_FAST = (0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
_HTTP = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_SIZES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000)


class Metrics:
    """One registry. `enqueued` … `dead` count messages of a namespace; `shard(k)` has the instruments of a shard."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)

        def by_namespace(name: str, text: str) -> "_ByNamespace":
            return _ByNamespace(Counter(name, text, ["namespace"], registry=registry))

        self.enqueued = by_namespace("mqueue_enqueue_total", "Messages accepted")
        self.dequeued = by_namespace("mqueue_dequeue_total", "Messages delivered")
        self.acked = by_namespace("mqueue_ack_total", "Deliveries acked")
        self.nacked = by_namespace("mqueue_nack_total", "Deliveries nacked")
        self.dead = by_namespace("mqueue_dead_total", "Messages moved to the dead letters")
        self.cancelled = by_namespace("mqueue_cancelled_total", "Messages cancelled; not those that a lease's end cancels")

        self.waiting_fetches = Gauge("mqueue_waiting_fetches", "Fetches that wait for a message", registry=registry)
        self._script_seconds = Histogram("mqueue_script_seconds", "Redis script calls", ["script"], buckets=_FAST, registry=registry)
        self._requests = Counter("mqueue_http_requests_total", "HTTP requests answered", ["route", "status"], registry=registry)
        self._request_seconds = Histogram("mqueue_http_seconds", "HTTP requests", ["route"], buckets=_HTTP, registry=registry)
        self._shard_instruments = _ShardInstruments(registry)
        self._shards: dict[int, ShardMetrics] = {}
        self._counts: dict[tuple[str, int], Callable[[], None]] = {}
        self._times: dict[str, Callable[[float], None]] = {}

    def shard(self, shard: int) -> "ShardMetrics":
        """The instruments of one shard, made at the first call."""
        if shard not in self._shards:
            self._shards[shard] = ShardMetrics(self._shard_instruments, str(shard))
        return self._shards[shard]

    def script(self, name: str) -> Callable[[float], None]:
        """Takes the seconds of one call of a Redis script; keep what this returns."""
        observe: Callable[[float], None] = self._script_seconds.labels(name).observe
        return observe

    def request(self, route: str, status: int, seconds: float) -> None:
        """Count one answered HTTP request. `route` is one of the API's own paths, never what a client sent."""
        count = self._counts.get((route, status))
        if count is None:
            count = self._counts[route, status] = self._requests.labels(route, str(status)).inc
            self._times[route] = self._request_seconds.labels(route).observe
        count()
        self._times[route](seconds)

    def render(self) -> bytes:
        """The text format, version 0.0.4. Safe to call in a thread."""
        return generate_latest(self.registry)


class _ByNamespace:
    """A counter per namespace with a bounded number of label values."""

    def __init__(self, counter: Counter) -> None:
        self._counter = counter
        self._children: dict[str, Callable[[float], None]] = {}

    def __call__(self, namespace: str, count: int) -> None:
        child = self._children.get(namespace)
        if child is None:
            label = namespace if len(self._children) < NAMESPACES_MAX else OTHER
            child = self._counter.labels(label).inc
            if label != OTHER:
                self._children[namespace] = child
        child(count)


class _ShardInstruments:
    """The families whose only label is the shard."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def gauge(name: str, text: str) -> Gauge:
            return Gauge(name, text, ["shard"], registry=registry)

        def counter(name: str, text: str) -> Counter:
            return Counter(name, text, ["shard"], registry=registry)

        def seconds(name: str, text: str) -> Histogram:
            return Histogram(name, text, ["shard"], buckets=_FAST, registry=registry)

        self.buffer_queue_depth = gauge("mqueue_buffer_queue_depth", "Items waiting to be flushed to PostgreSQL")
        self.buffer_bytes = gauge("mqueue_buffer_bytes", "Bytes waiting to be flushed")
        self.redis_bytes = gauge("mqueue_redis_bytes", "Bytes counted for what Redis holds, against the budget; its leader tells")
        self.ready_queue_depth = gauge("mqueue_ready_queue_depth", "Messages in the ready queues of Redis")
        self.delayed_depth = gauge("mqueue_delayed_depth", "Messages not yet due, held in Redis")
        self.leased = gauge("mqueue_leased", "Messages leased to workers")
        self.health = gauge("mqueue_shard_health", "1: the shard can serve")
        self.leader = gauge("mqueue_leader", "1: this broker leads the shard")
        self.circuit_open = gauge("mqueue_circuit_open", "1: PostgreSQL has failed in a row and is left alone for a moment")
        self.redis_misconfigured = gauge("mqueue_redis_misconfigured", "1: Redis refuses the name, password or certificate it is given")
        self.cold = gauge("mqueue_cold", "1: Redis is away, PostgreSQL serves the shard")
        self.epoch = gauge("mqueue_epoch", "Epoch of the shard as this broker knows it")
        self.clock_lag_seconds = gauge("mqueue_clock_lag_seconds", "How far the due clock is behind the shard clock")
        self.clock_ahead_seconds = gauge("mqueue_clock_ahead_seconds", "How far Redis' clock is ahead of the shard clock; its leader tells")
        self.clock_off_seconds = gauge("mqueue_clock_off_seconds", "How far this broker's wall clock is ahead of that of PostgreSQL")
        self.wal_bytes = gauge("mqueue_wal_bytes", "Bytes of write-ahead log on disk")
        self.flush_seconds = seconds("mqueue_flush_seconds", "One flush to PostgreSQL")
        self.wal_commit_seconds = seconds("mqueue_wal_commit_seconds", "One group commit: append and fdatasync")
        self.batch_size = Histogram(
            "mqueue_batch_size", "Enqueues and settles in one group commit", ["shard"], buckets=_SIZES, registry=registry
        )
        self.flush_rows = counter("mqueue_flush_rows_total", "Rows written by flushes")
        self.elided = counter("mqueue_elided_total", "Messages that ended before PostgreSQL ever saw them")
        self.scheduled = counter("mqueue_scheduled_total", "Messages enqueued by schedules")
        self.refused = counter("mqueue_flush_refused_rows_total", "Rows that PostgreSQL has refused, set aside: should stay 0")
        self.strays = counter("mqueue_reconciler_strays_total", "Rows that nobody would have delivered, found and placed: should stay 0")
        self.mirrored = gauge("mqueue_mirrored_leases", "Long leases that PostgreSQL knows too")
        self.drift = gauge("mqueue_ledger_drift", "Messages by which a ledger does not add up, over all topics: should stay 0")
        self.refills = counter("mqueue_refill_total", "Refills of ready queues")
        self.refill_rows = counter("mqueue_refill_rows_total", "Rows read by refills")
        self.lane_failures = counter("mqueue_lane_failures_total", "Failures of PostgreSQL in one lane of the leader's work")
        self.partial_fetches = counter("mqueue_partial_fetches_total", "Fetches that left out topics which need PostgreSQL")


class ShardMetrics:
    """The same instruments, bound to one shard."""

    def __init__(self, instruments: _ShardInstruments, shard: str) -> None:
        self.buffer_queue_depth = instruments.buffer_queue_depth.labels(shard)
        self.buffer_bytes = instruments.buffer_bytes.labels(shard)
        self.redis_bytes = instruments.redis_bytes.labels(shard)
        self.ready_queue_depth = instruments.ready_queue_depth.labels(shard)
        self.delayed_depth = instruments.delayed_depth.labels(shard)
        self.leased = instruments.leased.labels(shard)
        self.health = instruments.health.labels(shard)
        self.leader = instruments.leader.labels(shard)
        self.circuit_open = instruments.circuit_open.labels(shard)
        self.redis_misconfigured = instruments.redis_misconfigured.labels(shard)
        self.cold = instruments.cold.labels(shard)
        self.epoch = instruments.epoch.labels(shard)
        self.clock_lag_seconds = instruments.clock_lag_seconds.labels(shard)
        self.clock_ahead_seconds = instruments.clock_ahead_seconds.labels(shard)
        self.clock_off_seconds = instruments.clock_off_seconds.labels(shard)
        self.wal_bytes = instruments.wal_bytes.labels(shard)
        self.flush_seconds = instruments.flush_seconds.labels(shard)
        self.wal_commit_seconds = instruments.wal_commit_seconds.labels(shard)
        self.batch_size = instruments.batch_size.labels(shard)
        self.flush_rows = instruments.flush_rows.labels(shard)
        self.elided = instruments.elided.labels(shard)
        self.scheduled = instruments.scheduled.labels(shard)
        self.refused = instruments.refused.labels(shard)
        self.strays = instruments.strays.labels(shard)
        self.mirrored = instruments.mirrored.labels(shard)
        self.drift = instruments.drift.labels(shard)
        self.refills = instruments.refills.labels(shard)
        self.refill_rows = instruments.refill_rows.labels(shard)
        self.lane_failures = instruments.lane_failures.labels(shard)
        self.partial_fetches = instruments.partial_fetches.labels(shard)
