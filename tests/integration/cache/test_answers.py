"""The same commands get the same answers and errors over our connections as over the library's."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.asyncio.connection import ConnectionPool

from mqueue.broker.cache.connections import Connections
from mqueue.broker.embedded import StoreUrls

KEY = "answers of the test"
BIG = bytes(range(256)) * 20_000  # 5 MB
COMMANDS: list[tuple[Any, ...]] = [
    ("PING",),
    ("ECHO", ""),
    ("ECHO", BIG),
    ("ECHO", b"\r\n+OK\r\n$-1\r\n"),
    ("ECHO", "ünï"),
    ("ECHO", 12),
    ("ECHO", 1.5),
    ("GET", KEY + " which is not there"),
    ("SET", KEY, "1"),
    ("INCR", KEY),
    ("LPUSH", KEY, "wrong type"),
    ("NO SUCH", "command"),
    ("GET",),
    ("EVALSHA", "0" * 40, 0),
    ("FCALL", "nobody_has_it", 0),
    ("SELECT", 99),
    ("CONFIG", "GET", "maxmemory-policy"),
    ("EVAL", "return {1, {2, {3, {4, {}}}}, 'x', false}", 0),
    ("EVAL", "return {1, redis.error_reply('ERR mine'), {redis.error_reply('OOM inside'), 2}}", 0),
    ("EVAL", "return redis.error_reply('OOM command not allowed')", 0),
    ("EVAL", "return redis.error_reply('READONLY you cannot')", 0),
    ("EVAL", "return redis.error_reply('MOVED 1 127.0.0.1:1')", 0),
    ("EVAL", "return redis.error_reply('ASK 1 127.0.0.1:1')", 0),
    ("EVAL", "return redis.error_reply('CLUSTERDOWN down')", 0),
    ("EVAL", "return redis.error_reply('TRYAGAIN later')", 0),
    ("EVAL", "return redis.error_reply('NOPERM no')", 0),
    ("EVAL", "return redis.error_reply('NOAUTH no')", 0),
    ("EVAL", "return redis.error_reply('LOADING it')", 0),
    ("EVAL", "return redis.error_reply('BUSY it')", 0),
    ("EVAL", "return redis.error_reply('MISCONF it')", 0),
    ("EVAL", "return redis.error_reply('NOREPLICAS it')", 0),
    ("EVAL", "return redis.error_reply('MASTERDOWN it')", 0),
    ("EVAL", "return redis.error_reply('UNKNOWN it')", 0),
    ("EVAL", "error('of a script')", 0),
    ("EVAL", "redis.call('NOPE')", 0),
    ("EVAL", "redis.setresp(3) return {map = {a = 1, b = {double = 2.5}}}", 0),
    ("EVAL", "redis.setresp(3) return {set = {a = true}}", 0),
    ("EVAL", "redis.setresp(3) return {true, false, {big_number = '12345678901234567890'}, {double = -0.5}}", 0),
    ("EVAL", "redis.setresp(3) return {verbatim_string = {format = 'txt', string = 'said'}}", 0),
    ("EVAL", "local t = {} for i = 1, 7000 do t[i] = i end return t", 0),
]


@pytest.fixture(params=[2, 3], ids=["RESP2", "RESP3"])
async def pool(stores: StoreUrls, request: pytest.FixtureRequest) -> AsyncIterator[Any]:
    yield ConnectionPool.from_url(
        stores.redis_addrs[0], password=stores.redis_password, max_connections=4, protocol=request.param, socket_timeout=None
    )


async def theirs(pool: Any, command: tuple[Any, ...]) -> Any:
    """Over a connection of its own: some errors end it there."""
    connection = pool.make_connection()
    try:
        await connection.connect()
        packed = connection.pack_command(b"", *command[1:])
        packed[0] = packed[0].replace(b"$0\r\n\r\n", b"$%d\r\n%s\r\n" % (len(command[0]), command[0].encode()), 1)
        await connection.send_packed_command(packed)
        return await connection.read_response()
    except Exception as error:
        return error
    finally:
        await connection.disconnect()


def told(answer: Any) -> Any:
    """Errors compare by what they are and say."""
    if isinstance(answer, Exception):
        return type(answer), answer.args, getattr(answer, "status_code", None)
    if isinstance(answer, list):
        return [told(each) for each in answer]
    return type(answer), answer


async def test_one_after_another(pool: Any) -> None:
    connections = Connections(pool, 5.0)
    for command in COMMANDS:
        expected = await theirs(pool, command)
        (got,) = await asyncio.gather(connections.execute(command), return_exceptions=True)
        if command[0] == "INCR":
            expected += 1
        assert told(got) == told(expected), command
    assert len(connections._pipelines) == 1, "an error that the server says leaves the connection"
    await connections.execute(("DEL", KEY))
    connections.close()


async def test_all_at_once(pool: Any) -> None:
    connections = Connections(pool, 5.0)
    commands = [command for command in COMMANDS if command[0] not in ("SET", "INCR", "LPUSH")] * 3
    expected = [told(await theirs(pool, command)) for command in commands]
    got = await asyncio.gather(*map(connections.execute, commands), return_exceptions=True)
    assert [told(each) for each in got] == expected
    connections.close()
