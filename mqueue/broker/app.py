"""The composition root builds the parts, starts them in order and stops them in reverse."""

import asyncio
import gc
import os
import signal
import ssl
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import quote

import structlog

from mqueue import paths, tokens
from mqueue.broker import tasks
from mqueue.broker.cache import sentinel
from mqueue.broker.cache.calls import Limits
from mqueue.broker.cache.ready import ReadyCache
from mqueue.broker.commit.committer import Committer
from mqueue.broker.config import ConfigError, Settings
from mqueue.broker.daemons.leader import Leader
from mqueue.broker.daemons.scheduler import Scheduler
from mqueue.broker.databases import Databases
from mqueue.broker.embedded.stores import EmbeddedStores, StoreUrls
from mqueue.broker.engine.engine import Engine
from mqueue.broker.engine.fetch_waiters import Waiters
from mqueue.broker.faults import MISCONFIGURED, CacheLost, Fault, Refusal
from mqueue.broker.http import Authenticator, HttpServer, Quotas, api, metrics_app
from mqueue.broker.metrics import Metrics
from mqueue.broker.recovery.membership import Membership
from mqueue.broker.reload import Read, Reload
from mqueue.broker.shard import COLD, Shard
from mqueue.broker.slots import SlotMap
from mqueue.broker.store.queries import preload
from mqueue.broker.store.shard import ShardStore
from mqueue.broker.wal.errors import WalError, WalFull
from mqueue.broker.wal.identity import Identity
from mqueue.broker.wal.ids import IdSource
from mqueue.broker.wal.log import ShardLog
from mqueue.broker.wal.reserve import Reserve
from mqueue.clock import SystemClock
from mqueue.errors import MQueueError
from mqueue.repeats import Repeats
from mqueue.systemd import Notify

SERVING_WAIT_S = 60.0
LAST_FLUSH_S = 15.0
STOP_MAX_S = 28.0
TOKEN_TTL_S = 365 * 86400.0
RENEW_IDS_S = 3.0
REDIS_LEAST = 7
NAME_TRIES, NAME_AGAIN_S = 6, 1.0
REMEDIES = {
    Refusal.NO_ACCESS: "Set REDIS_PASSWORD, or the user and password in the URL of REDIS_ADDRS, to those that Redis has",
    Refusal.ELSEWHERE: "A cluster is not followed: give REDIS_ADDRS a Redis, or the node of the cluster that has this shard's slot",
    Refusal.UNKNOWN_HOST: "Set REDIS_ADDRS to a name that has an address here",
    Refusal.UNTRUSTED: "Name the authority in REDIS_ADDRS (rediss://…?ssl_ca_certs=/path), and the host as the certificate does",
}

logger = structlog.get_logger(__name__)


def run(settings: Settings, read: Read | None = None) -> int:
    """Runs a broker until SIGTERM or SIGINT; a second one, later, ends it at once. On SIGHUP `read()` reads the
    settings again (None: they stay). Returns the exit code.
    """
    import uvloop

    try:
        return uvloop.run(_main(settings, read or (lambda: settings)))
    except WalError as error:
        logger.error(str(error))
        return error.exit_code
    except MQueueError as error:
        logger.error(error.detail)
        return getattr(error, "exit_code", 1)


async def _main(settings: Settings, read: Read) -> int:
    notify = Notify()
    broker = Broker(settings, read, notify)
    stop = asyncio.Event()
    loop, repeats = asyncio.get_running_loop(), Repeats()
    on_terminal = [number for number in (1, 2) if os.isatty(number)]  # of standard output and error

    def told() -> None:
        if repeats.heard() == 2:
            logger.warning("stopping at once")
            broker.abandon()
        stop.set()

    def hung_up() -> None:
        if on_terminal and not any(os.isatty(number) for number in on_terminal):  # it is gone: nobody sees this broker
            _mute(on_terminal)
            stop.set()
        else:
            broker.reload.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told)
    loop.add_signal_handler(signal.SIGHUP, hung_up)
    starting = asyncio.create_task(broker.start())
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
    try:
        if starting.done():
            starting.result()
            gc.collect()
            gc.freeze()  # what is there now stays; to look through it again and again would stop everything for some 60 ms each time
            with suppress(OSError):  # whoever started it has gone: that is told by a signal, or means nothing
                notify.ready()
                print(f"mqueue broker ready url={broker.url} metrics={broker.metrics_url}", flush=True)  # noqa: T201
            ends: set[asyncio.Future[Any]] = {stopping, broker.failed}
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        else:
            starting.cancel()
            await asyncio.gather(starting, return_exceptions=True)
    finally:
        notify.stopping()
        await broker.stop()
    if broker.failed.done():
        raise broker.failed.result()
    return 0


def _mute(numbers: Sequence[int]) -> None:
    """Lets what is written there go nowhere: a log line would end the broker amid its stop."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for number in numbers:
        os.dup2(nowhere, number)
    os.close(nowhere)


class Broker:
    """One broker in this process. `url`, `metrics_url`: where it answers. `failed`: is done with the error after which
    the process must end. `reload`: is set when certificates and secret are to be read again, once it serves.
    """

    def __init__(self, settings: Settings, read: Read, notify: Notify | None = None) -> None:
        self._settings = settings
        self._notify = notify or Notify({})
        self._alive: asyncio.Task[None] | None = None
        self._read = read
        self._clock = SystemClock()
        self._metrics = Metrics()
        self._tasks: list[asyncio.Task[Any]] = []
        self._ending = False
        self._embedded: EmbeddedStores | None = None
        self._identity: Identity | None = None
        self._shards: list[Shard] = []
        self._committers: list[Committer] = []
        self._admins: list[ReadyCache] = []
        self._leaders: list[Leader] = []
        self._servers: list[HttpServer] = []
        self.failed: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()
        self.reload = asyncio.Event()
        self.url = self.metrics_url = ""

    # -- start ---------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        self._alive = asyncio.create_task(self._tell_alive())
        settings = self._settings
        _check_certificate(settings)
        data_dir = paths.make_data_dir(settings.data_dir)
        secret = settings.jwt_secret or paths.keep_jwt_secret(data_dir)
        self._identity = await asyncio.to_thread(Identity.open, settings.effective_wal_dir, moved=settings.wal_moved)
        urls = await self._open_stores()
        preload()
        stores = [ShardStore(k, url) for k, url in enumerate(urls.database_urls)]
        databases = Databases(stores, self._identity, data_dir)
        caches = [self._cache(k, urls) for k in range(len(stores))]
        slots = SlotMap(await databases.enter_all())
        assert self._identity.node is not None
        ids = IdSource(self._identity.node, self._identity, self._clock)
        await self._build_shards(stores, caches, urls, ids, self._identity)
        engine = self._build_engine(slots)
        self._run_parts(engine, ids, self._identity, databases)
        async with asyncio.timeout(SERVING_WAIT_S):
            for shard in self._shards:
                if shard.number not in databases.away:
                    await shard.serving.wait()
        authenticator = Authenticator(secret, self._clock)
        await self._serve_http(engine, authenticator, urls)

        def tell(secret: str) -> None:
            token = tokens.issue(secret, subject="local", now=self._clock.wall_us() / 1e6, ttl=TOKEN_TTL_S)
            paths.write_endpoint(data_dir, self.url, token)

        tell(secret)
        self._spawn(Reload(self._read, secret, authenticator, self._servers, tell).run(self.reload), "reload")

    async def _build_shards(
        self, stores: list[ShardStore], caches: list[ReadyCache], urls: StoreUrls, ids: IdSource, identity: Identity
    ) -> None:
        """Builds what there is once for each shard: its log, its committer and its leader."""
        settings, node, start = self._settings, identity.node, identity.start_count << 40
        assert node is not None
        buffer_max = settings.buffer_max_mb * 1024 * 1024
        limits = Limits(
            max(1, settings.ready_max * 3 // 4), settings.ready_max, settings.delayed_max, buffer_max, settings.redis_max_mb * 1024 * 1024
        )
        scheduler = Scheduler(ids, lease_s=settings.lease_s, max_retries=settings.max_retries)
        ages = {
            "flush_age_us": settings.flush_age_ms * 1000,
            "horizon_us": settings.time_horizon_s * 1_000_000,
            "idle_us": settings.topic_idle_s * 1_000_000,
        }
        for k, (store, cache) in enumerate(zip(stores, caches, strict=True)):
            log = await asyncio.to_thread(_open_log, identity, k)
            shard = Shard(k, node, cache, store, log, self._clock, self._metrics.shard(k), start, sequence=start, buffer_max=buffer_max)
            self._shards.append(shard)
            self._committers.append(Committer(shard, ids, self._fail))
            admin = self._cache(shard.number, urls)
            self._admins.append(admin)
            await _check_redis(admin, node, may_refuse=not settings.allow_cold and not await _has_served(store))
            self._leaders.append(Leader(shard, admin, limits, scheduler, **ages))

    def _build_engine(self, slots: SlotMap) -> Engine:
        settings = self._settings
        return Engine(
            self._shards,
            self._committers,
            slots,
            Waiters(),
            self._metrics,
            self._clock,
            lease_s=settings.lease_s,
            max_retries=settings.max_retries,
            idempotency_s=settings.idempotency_s,
            postgres_namespaces=settings.postgres_namespaces,
            result_max=settings.result_max_kb * 1024,
        )

    def _run_parts(self, engine: Engine, ids: IdSource, identity: Identity, databases: Databases) -> None:
        """Starts all that runs beside the requests."""
        for shard, committer in zip(self._shards, self._committers, strict=True):
            self._spawn(committer.run(), f"committer-{shard.number}")
            self._spawn(engine.wake_loop(shard), f"wake-{shard.number}")
            if shard.number in databases.away:
                self._spawn(self._enter_later(shard, databases, ids, identity), f"enter-{shard.number}")
            else:
                self._run_shard(shard)
        self._spawn(self._keep_ahead(ids, identity.reserve), "ids")
        self._spawn(engine.workers_loop(), "workers")
        self._spawn(self._watch_health(), "health")

    def _run_shard(self, shard: Shard) -> None:
        self._spawn(Membership(shard).run(), f"membership-{shard.number}")
        self._spawn(self._leaders[shard.number].run(), f"leader-{shard.number}")

    async def _enter_later(self, shard: Shard, databases: Databases, ids: IdSource, identity: Identity) -> None:
        """Serves a shard whose database was away at the start, once it is there. Until then nothing has used its
        numbers.
        """
        registered = await databases.until_entered(shard.number)
        ids.begin_at(registered.id_floor_ms)
        shard.start = shard.sequence = identity.start_count << 40
        self._run_shard(shard)

    async def _open_stores(self) -> StoreUrls:
        settings = self._settings
        if not settings.embedded:
            return StoreUrls(settings.database_urls, settings.redis_addrs, settings.redis_password or "")
        self._embedded = EmbeddedStores(settings.data_dir, settings.shards, redis_max=settings.shards * settings.redis_max_mb * 1024 * 1024)
        return await self._embedded.start()

    def _cache(self, shard: int, urls: StoreUrls) -> ReadyCache:
        try:
            return ReadyCache(shard, urls.redis_addrs[shard % len(urls.redis_addrs)], urls.redis_password or None, self._metrics.script)
        except ValueError as error:
            raise ConfigError(f"REDIS_ADDRS: {error}") from error

    async def _serve_http(self, engine: Engine, authenticator: Authenticator, urls: StoreUrls) -> None:
        settings = self._settings
        tls = None
        if settings.tls_cert_file and settings.tls_key_file:
            tls = (settings.tls_cert_file, settings.tls_key_file)
        uri, options = _limits_storage(urls.redis_addrs[0], urls.redis_password)
        quotas = Quotas(settings.namespace_quotas, uri, options=options)
        app = api(engine, authenticator, quotas, self._metrics)
        metrics = HttpServer(metrics_app(self._metrics), settings.host, settings.metrics_port, tls=tls)
        server = HttpServer(app, settings.host, settings.port, tls=tls)
        for each, name in ((server, "port"), (metrics, "metrics port")):
            try:
                await each.start()
            except OSError as error:
                raise MQueueError(f"cannot listen on the {name}: {error}") from error
            self._servers.append(each)
        self.url, self.metrics_url = server.url, f"{metrics.url}/metrics"

    def _spawn(self, work: Coroutine[Any, Any, Any], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        task.add_done_callback(self._ended)
        self._tasks.append(task)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        if task.cancelled():
            if not self._ending:  # by nobody who may: what waits for this part would wait for ever
                self._fail(RuntimeError(f"{task.get_name()} was cancelled"))
                logger.error("a part of the broker ended", part=task.get_name())
        elif (error := task.exception()) is not None:
            self._fail(error if isinstance(error, Exception) else RuntimeError(str(error)))
            logger.error("a part of the broker failed", part=task.get_name(), exc_info=error)

    def _fail(self, error: Exception) -> None:
        if not self.failed.done():
            self.failed.set_result(error)

    async def _keep_ahead(self, ids: IdSource, reserve: Reserve) -> None:
        """Reserves ids and room on the disk before they are needed."""
        while True:
            try:
                await asyncio.to_thread(ids.renew)
            except WalFull as error:  # fetch and settle go on; an enqueue that needs new ids says so
                logger.warning("cannot reserve ids", reason=str(error))
            await asyncio.to_thread(reserve.keep)
            await asyncio.sleep(RENEW_IDS_S)

    async def _tell_alive(self) -> None:
        """The loop turns: that is all that systemd is told, and a broker that waits for its stores lives."""
        while self._notify.alive_every_s:
            self._notify.alive()
            await asyncio.sleep(self._notify.alive_every_s)

    async def _watch_health(self) -> None:
        while True:
            for shard in self._shards:
                shard.metrics.health.set(shard.serving.is_set())
                shard.metrics.circuit_open.set(shard.store.circuit.is_open)
                shard.metrics.cold.set(shard.mode == COLD)
            await asyncio.sleep(0.2)

    # -- stop ----------------------------------------------------------------------------------------------------------

    async def stop(self) -> None:
        """Stops taking work, finishes what is in hand and flushes; then, whatever came of it, stops the embedded
        stores. It takes a bounded time.
        """
        try:
            async with asyncio.timeout(STOP_MAX_S):
                await self._stop()
        except TimeoutError:
            logger.warning("not all was flushed in time; it is in the log", seconds=STOP_MAX_S)
        finally:
            if self._embedded is not None:
                await self._embedded.stop()
            if self._identity is not None:
                self._identity.close()

    async def _stop(self) -> None:
        if self.url:
            paths.remove_endpoint(self._settings.data_dir)
        for server in self._servers:
            await server.stop()
        logger.info("takes no more requests")
        flushed = [False] * len(self._shards)
        if not self.failed.done():
            for committer in self._committers:
                await committer.stop()
            logger.info("all that came is answered")
            await asyncio.gather(*(leader.flush_all(LAST_FLUSH_S) for leader in self._leaders))
            flushed = await asyncio.gather(*(self._flush_own(shard) for shard in self._shards))
            for shard, done in zip(self._shards, flushed, strict=True):
                if done:
                    logger.info("all that this broker had taken is in PostgreSQL", shard=shard.number)
                elif shard.epoch:  # it is the only one that has it where Redis is lost, too: it must come back
                    logger.warning("not all is in PostgreSQL: start this broker again on its directory", shard=shard.number)
        self._ending = True
        await tasks.end(self._tasks)
        for shard, done in zip(self._shards, flushed, strict=True):
            with suppress(Fault):
                await shard.store.leave(shard.node, flushed=done)
            with suppress(WalError):
                await asyncio.to_thread(shard.log.close)
            await shard.cache.close()
            await shard.store.close()
        for admin in self._admins:
            await admin.close()

    async def _flush_own(self, shard: Shard) -> bool:
        """A shard that was never entered has had nothing of this life, and its log may have something of another."""
        return shard.epoch != 0 and await shard.flush_own(LAST_FLUSH_S)

    def abandon(self) -> None:
        """Ends the process at once, at the second signal: what is durable is durable."""
        os._exit(1)


def _open_log(identity: Identity, shard: int) -> ShardLog:
    return identity.reserve.with_room(lambda: ShardLog.open(identity.shard_directory(shard), shard, identity.uuid))


def _check_certificate(settings: Settings) -> None:
    """Raises ConfigError where it is none, or not that of its key."""
    if settings.tls_cert_file and settings.tls_key_file:
        try:
            ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(settings.tls_cert_file, settings.tls_key_file)
        except (ssl.SSLError, OSError) as error:
            raise ConfigError(
                f"TLS_CERT_FILE {settings.tls_cert_file} and TLS_KEY_FILE {settings.tls_key_file} are no pair of a certificate and its key "
                f"in PEM: {error}"
            ) from error


async def _check_redis(cache: ReadyCache, node: int, *, may_refuse: bool) -> None:
    """Raises ConfigError where Redis knows no functions, or would throw keys away, or is not what was configured. One
    that only does not answer yet is waited for later.
    """
    try:
        version = await (_ask_version(cache) if may_refuse else cache.version())
        if version.partition(".")[0].isdecimal() and int(version.partition(".")[0]) < REDIS_LEAST:
            raise ConfigError(f"this Redis is of version {version}, which knows no functions: {REDIS_LEAST} or newer is needed, or Valkey")
        if policy := await cache.evicts():
            raise ConfigError(f"this Redis throws keys away when its memory is full (maxmemory-policy {policy}): set it to noeviction")
        await cache.reach(0, node)  # may it be written to?
    except CacheLost as lost:
        if lost.kind in MISCONFIGURED and may_refuse:
            raise ConfigError(f"{lost}. {REMEDIES[lost.kind]}, or start without it, served by PostgreSQL alone: --allow-cold") from lost


async def _has_served(store: ShardStore) -> bool:
    """Has an epoch of this shard ever been opened? Then what was given was right once, and what is wrong may pass."""
    try:
        return (await store.row()).epoch > 0
    except Fault:  # it is away, and nobody can say
        return True


async def _ask_version(cache: ReadyCache) -> str:
    """A name may come a moment later, as those of containers do that start together."""
    for _ in range(NAME_TRIES - 1):
        try:
            return await cache.version()
        except CacheLost as lost:
            if lost.kind is not Refusal.UNKNOWN_HOST:
                raise
            logger.warning("Redis has no address yet", reason=str(lost))
        await asyncio.sleep(NAME_AGAIN_S)
    return await cache.version()


def _limits_storage(address: str, password: str) -> tuple[str, dict[str, Any]]:
    """Returns the first Redis as the `limits` library takes it: an address, and options."""
    if (service := sentinel.parse(address)) is not None:
        hosts = ",".join(f"{host}:{port}" for host, port in service.hosts)
        more = {"password": password} if password else {}
        # the library would give them what is the master's
        sentinels = {"username": None, "password": None} | dict(service.sentinels) | {"ssl": service.tls}
        options = more | dict(service.master) | {"ssl": service.tls, "sentinel_kwargs": sentinels}
        return f"async+redis+sentinel://{hosts}/{service.name}", options
    scheme, _, rest = address.rpartition("://")
    login = f":{quote(password, safe='')}@" if password and "@" not in rest else ""
    return (f"async+redis+unix://{login}{rest}" if scheme == "unix" else f"async+{scheme or 'redis'}://{login}{rest}"), {}
