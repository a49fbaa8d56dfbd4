"""Whatever a Redis that answers refuses with, the adapter says why; nothing has happened, and the epoch stands."""

import asyncio
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio as aioredis
from redis.exceptions import RedisError

from mqueue.broker.cache import keys
from mqueue.broker.cache.calls import Limits
from mqueue.broker.cache.ready import ReadyCache
from mqueue.broker.embedded.binaries import find_valkey
from mqueue.broker.faults import CacheLost, CacheRefused, EpochEnded, Refusal
from tests.waiting import until

EPOCH, TERM, NODE = 7, 1, 1
CLOCK = 1_700_000_000_000_000
LIMITS = Limits(10, 20, 10, 1 << 20, 4 << 20)
PASSWORD = "secret"
SLOW_START = ("--key-load-delay", "2000", "--loading-process-events-interval-bytes", "1024")  # µs a key
KEYS = 5000


class Valkey:
    """One of its own, whose settings a test may spoil."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = f"unix://{folder}/s"
        self.client: Any = aioredis.Redis(unix_socket_path=str(folder / "s"), password=PASSWORD)
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self, *options: str) -> None:
        command = [str(find_valkey()), "--port", "0", "--unixsocket", str(self.folder / "s"), "--dir", str(self.folder), "--save", ""]
        self._process = subprocess.Popen([*command, "--requirepass", PASSWORD, *options], stdout=subprocess.DEVNULL)
        await until(lambda: self.client.execute_command("PING"), "it answers", enough=lambda _: True, despite=_NotYet)

    async def stop(self) -> None:
        await self.client.aclose()
        if self._process is not None:
            self._process.kill()
            self._process.wait()


_NotYet = (ConnectionRefusedError, FileNotFoundError, aioredis.ConnectionError)


@pytest.fixture
async def valkey(data_dir: Path) -> AsyncIterator[Valkey]:
    valkey = Valkey(data_dir)
    await valkey.start()
    yield valkey
    await valkey.stop()


@pytest.fixture
async def cache(valkey: Valkey) -> AsyncIterator[ReadyCache]:
    """An epoch is open."""
    cache = ReadyCache(0, valkey.url, PASSWORD)
    await cache.lead(TERM, "a", LIMITS)
    await cache.open_epoch(EPOCH, TERM, (CLOCK, CLOCK), LIMITS, {NODE: 0})
    yield cache
    await cache.close()


async def read_only(valkey: Valkey) -> None:
    await valkey.client.execute_command("REPLICAOF", "127.0.0.1", "1")


async def without_replicas(valkey: Valkey) -> None:
    await valkey.client.config_set("min-replicas-to-write", 1)


async def unsaved(valkey: Valkey) -> None:
    (valkey.folder / "dump.rdb" / "in the way").mkdir(parents=True)
    await valkey.client.config_set("save", "3600 1")
    await valkey.client.bgsave()
    await until(lambda: valkey.client.info("persistence"), "it could not save", enough=lambda info: info["rdb_last_bgsave_status"] == "err")


async def without_rights(valkey: Valkey) -> None:
    await valkey.client.acl_setuser("default", enabled=True, commands=["-fcall"])


async def behind_a_script(valkey: Valkey) -> None:
    await valkey.client.config_set("busy-reply-threshold", 50)
    connection = await asyncio.open_unix_connection(str(valkey.folder / "s"))
    connection[1].write(f"AUTH {PASSWORD}\r\nEVAL 'while true do end' 0\r\n".encode())
    await until(lambda: _refused(valkey), "it is busy")


async def _refused(valkey: Valkey) -> bool:
    try:
        await valkey.client.execute_command("PING")
    except RedisError:
        return True
    return False


REFUSALS = [
    (read_only, Refusal.READ_ONLY),
    (without_replicas, Refusal.NO_REPLICAS),
    (unsaved, Refusal.UNSAVED),
    (without_rights, Refusal.NO_ACCESS),
    (behind_a_script, Refusal.BUSY),
]


async def snapshot(valkey: Valkey) -> dict[bytes, bytes]:
    """All it holds."""
    return {key: await valkey.client.dump(key) for key in await valkey.client.keys()}


@pytest.mark.parametrize(("spoil", "kind"), REFUSALS, ids=[kind.value for _, kind in REFUSALS])
async def test_what_refuses_says_why(valkey: Valkey, cache: ReadyCache, spoil: Callable[[Valkey], Awaitable[None]], kind: Refusal) -> None:
    before = await snapshot(valkey)
    await spoil(valkey)
    calls: list[Callable[[], Awaitable[Any]]] = [
        lambda: cache.reach(EPOCH, NODE),
        lambda: cache.lead(TERM, "a", LIMITS),
        lambda: cache.tick(EPOCH, TERM, CLOCK),
        lambda: cache.apply(EPOCH, NODE, 0, 1, [], []),
    ]
    for call in calls:
        with pytest.raises(CacheRefused) as refused:
            await call()
        assert refused.value.kind is kind
    if kind is not Refusal.BUSY:  # which refuses reads, too
        assert await snapshot(valkey) == before


@pytest.mark.parametrize("knows_the_library", [True, False])
async def test_a_full_one_refuses_only_what_is_new(valkey: Valkey, cache: ReadyCache, knows_the_library: bool) -> None:
    assert await cache.reach(EPOCH, NODE) is False
    if not knows_the_library:
        await valkey.client.function_flush()
    await valkey.client.config_set("maxmemory", 1)
    assert await cache.reach(EPOCH, NODE) is True
    await cache.tick(EPOCH, TERM, CLOCK)
    await cache.apply(EPOCH, NODE, 0, 1, [], [])
    await cache.ask_flush()
    begun = await cache.refill_begin(EPOCH, TERM, ["n/t"])
    assert begun.topics == {"n/t": (b"", 0)}
    before = await snapshot(valkey)
    with pytest.raises(CacheRefused) as refused:
        await cache.refill_end(EPOCH, TERM, [("n/t", [(bytes(84) + b"n/t", b"body")], b"\xff" * 24)])
    assert refused.value.kind is Refusal.FULL
    assert await snapshot(valkey) == before
    await cache.refill_end(EPOCH, TERM, [("n/t", [], b"\xff" * 24)])
    assert await cache.frontier("n/t") == b"\xff" * 24
    await cache.clear(TERM)
    await cache.open_epoch(EPOCH + 1, TERM, (CLOCK, CLOCK), LIMITS, {})
    assert bool(await valkey.client.function_list()) is knows_the_library
    await valkey.client.config_set("maxmemory", 0)
    await cache.tick(EPOCH + 1, TERM, CLOCK)
    assert await valkey.client.function_list()


@pytest.mark.parametrize("meets_it", ["tick", "reach"])
async def test_one_that_was_a_replica_may_have_gone_back_so_the_epoch_ends(valkey: Valkey, cache: ReadyCache, meets_it: str) -> None:
    await read_only(valkey)
    with pytest.raises(CacheRefused):
        await (cache.tick(EPOCH, TERM, CLOCK) if meets_it == "tick" else cache.reach(EPOCH, NODE))
    await valkey.client.execute_command("REPLICAOF", "NO", "ONE")
    with pytest.raises(EpochEnded):
        await cache.tick(EPOCH, TERM, CLOCK)
    await cache.open_epoch(EPOCH + 1, TERM, (CLOCK, CLOCK), LIMITS, {})
    await cache.tick(EPOCH + 1, TERM, CLOCK)


async def test_a_later_epoch_is_not_ended_by_what_an_earlier_one_met(valkey: Valkey, cache: ReadyCache) -> None:
    await read_only(valkey)
    with pytest.raises(CacheRefused):
        await cache.tick(EPOCH, TERM, CLOCK)
    await valkey.client.execute_command("REPLICAOF", "NO", "ONE")
    async with aioredis.Redis(unix_socket_path=str(valkey.folder / "s"), password=PASSWORD) as other:
        await other.hset(keys.shard(0), "epoch", EPOCH + 1)
    await cache.tick(EPOCH + 1, TERM, CLOCK)


async def test_a_slow_one_is_one_that_does_not_answer(valkey: Valkey, cache: ReadyCache, monkeypatch: pytest.MonkeyPatch) -> None:
    for connections in (cache._connections, cache._beside):
        monkeypatch.setattr(connections, "_timeout", 0.3)
    await valkey.client.execute_command("CLIENT", "PAUSE", 60_000, "WRITE")
    for call in (lambda: cache.reach(EPOCH, NODE), lambda: cache.tick(EPOCH, TERM, CLOCK)):
        with pytest.raises(CacheLost) as lost:
            await call()
        assert not isinstance(lost.value, CacheRefused)
    await valkey.client.execute_command("CLIENT", "UNPAUSE")
    await cache.tick(EPOCH, TERM, CLOCK)


async def test_one_that_loads_says_so(valkey: Valkey, cache: ReadyCache) -> None:
    await valkey.client.mset({f"key {n}": "x" for n in range(KEYS)})
    await valkey.client.save()
    await valkey.stop()
    loading = asyncio.create_task(valkey.start(*SLOW_START))

    async def refused() -> Refusal | None:
        try:
            await cache.reach(EPOCH, NODE)
        except CacheRefused as refused:
            return refused.kind
        except CacheLost:
            return None
        return None

    await until(refused, "it loads", enough=lambda kind: kind is Refusal.LOADING)
    loading.cancel()


async def test_a_script_that_fails_ends_the_epoch(valkey: Valkey, cache: ReadyCache) -> None:
    await valkey.client.delete(keys.delayed(0))
    await valkey.client.set(keys.delayed(0), "no zset")
    with pytest.raises(EpochEnded):
        await cache.tick(EPOCH, TERM, CLOCK)
    assert await valkey.client.hget(keys.shard(0), "epoch") is None
