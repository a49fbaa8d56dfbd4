"""Whatever a server sends, and whenever it stops: a caller gets its own answer or an error, never another's answer."""

import asyncio
from typing import Any

import hiredis
import pytest
from redis.exceptions import ConnectionError, InvalidResponse, ResponseError
from scripted import Scripted

from mqueue.broker.cache import pipeline
from mqueue.broker.cache.connections import Connections
from tests.waiting import until

ANSWERS = {
    b"small": (b"$3\r\none\r\n", b"one"),
    b"nested": (b"*4\r\n:12\r\n$-1\r\n*2\r\n$3\r\ntwo\r\n*0\r\n+fine\r\n", [12, None, [b"two", []], b"fine"]),
    b"large": (b"$2000\r\n" + b"x" * 2000 + b"\r\n", b"x" * 2000),
    b"last": (b":-7\r\n", -7),
}
COMMANDS = [("GET", name) for name in ANSWERS]


def known(command: list[bytes]) -> bytes:
    return ANSWERS[command[1]][0]


def bulk(data: bytes) -> bytes:
    return b"$%d\r\n%s\r\n" % (len(data), data)


def echo(command: list[bytes]) -> bytes:
    return bulk(command[1])


async def at_once(connections: Connections, commands: list[Any]) -> list[Any]:
    """The answers, or the errors, of what is asked in one turn of the loop."""
    return await asyncio.gather(*(connections.execute(command) for command in commands), return_exceptions=True)


async def serves_again(server: Scripted, connections: Connections) -> None:
    server.answer, server.hears = echo, None
    words = [b"%d" % n for n in range(5)]
    assert await at_once(connections, [("ECHO", word) for word in words]) == words


ENDS = [sum(len(ANSWERS[name][0]) for name in list(ANSWERS)[: n + 1]) for n in range(len(ANSWERS))]
CUTS = [n for n in range(ENDS[-1]) if not ENDS[1] + 40 < n < ENDS[2] - 40 or n % 50 == 0]  # the large one: its ends, and some


async def test_a_connection_that_ends_at_any_byte_of_the_answers() -> None:
    """Exactly those have their answers whose last byte came."""
    async with Scripted(echo).serve() as server:
        connections = server.connections()
        await serves_again(server, connections)
        for cut in CUTS:
            asked = 0

            def until_the_cut(command: list[bytes], cut: int = cut) -> bytes | None:
                nonlocal asked
                asked += 1
                if asked == len(COMMANDS):
                    server.writers[-1].write(b"".join(known([b"GET", name]) for _, name in COMMANDS)[:cut])
                    return None
                return b""

            server.answer = until_the_cut
            got = await at_once(connections, COMMANDS)
            for end, answer, (_, expected) in zip(ENDS, got, ANSWERS.values(), strict=True):
                if end <= cut:
                    assert answer == expected
                else:
                    assert isinstance(answer, ConnectionError)
            await serves_again(server, connections)
        connections.close()


async def test_a_connection_that_ends_at_any_byte_of_the_commands() -> None:
    sizes = [len(hiredis.pack_command(command)) for command in COMMANDS]
    async with Scripted(known).serve() as server:
        for cut in range(1, sum(sizes)):
            server.answer, server.hears = known, cut
            connections = server.connections()
            got = await at_once(connections, COMMANDS)
            for n, (answer, (_, expected)) in enumerate(zip(got, ANSWERS.values(), strict=True)):
                if sum(sizes[: n + 1]) <= cut:
                    assert answer == expected
                else:
                    assert isinstance(answer, ConnectionError)
            await serves_again(server, connections)
            connections.close()


async def test_an_answer_in_the_smallest_pieces() -> None:
    server = Scripted(lambda command: b"")
    async with server.serve():
        connections = server.connections()
        asked = asyncio.create_task(at_once(connections, COMMANDS))
        await until(lambda: len(server.commands) == len(COMMANDS))
        for byte in b"".join(said for said, _ in ANSWERS.values()):
            server.writers[0].write(bytes([byte]))
            await asyncio.sleep(0)
        assert await asked == [expected for _, expected in ANSWERS.values()]
        connections.close()


@pytest.mark.parametrize(
    "garbage", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\0", b"$x\r\n", b"$-2\r\n", b"*-2\r\n", b":one\r\n", b"*2\r\n:1\r\n?"], ids=repr
)
async def test_what_is_no_answer_ends_the_connection(garbage: bytes) -> None:
    """Who was answered before it has that answer; all others an error."""
    server = Scripted(lambda command: bulk(b"good") + garbage if command[1] == b"0" else b"")
    async with server.serve():
        connections = server.connections()
        first, *others = await at_once(connections, [("ECHO", n) for n in range(4)])
        assert first == b"good"
        assert [type(error) for error in others] == [InvalidResponse] * 3
        await serves_again(server, connections)
        assert len(server.heard) == 2
        connections.close()


@pytest.mark.parametrize("unasked", [b"+OK\r\n", b"$5\r\nhe", b"-ERR max number of clients reached\r\n"], ids=repr)
async def test_what_nobody_asked_for_is_nobodys_answer(unasked: bytes) -> None:
    async with Scripted(echo).serve() as server:
        connections = server.connections()
        await connections.execute(("ECHO", "1"))
        server.writers[0].write(unasked)
        await until(lambda: not connections._pipelines, "the connection has ended")
        await serves_again(server, connections)
        connections.close()


async def test_more_answers_than_were_asked_for() -> None:
    server = Scripted(lambda command: 2 * echo(command))
    async with server.serve():
        connections = server.connections()
        assert await connections.execute(("ECHO", "1")) == b"1"
        await until(lambda: not connections._pipelines, "the connection has ended")
        await serves_again(server, connections)
        connections.close()


async def test_what_the_server_tells_of_itself_is_no_answer() -> None:
    server = Scripted(lambda command: b">2\r\n+invalidate\r\n*0\r\n" + echo(command))
    async with server.serve():
        connections = server.connections()
        assert await at_once(connections, [("ECHO", n) for n in range(3)]) == [b"0", b"1", b"2"]
        connections.close()


async def test_an_answer_without_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "ANSWER_MAX", 1_000_000)
    size = {b"large": 900_000, b"endless": 9_000_000}
    server = Scripted(lambda command: bulk(bytes(size[command[1]])))
    async with server.serve():
        connections = server.connections()
        assert await at_once(connections, [("GET", "large")] * 3) == [bytes(900_000)] * 3
        (error,) = await at_once(connections, [("GET", "endless")])
        assert isinstance(error, InvalidResponse)
        await serves_again(server, connections)
        connections.close()


async def test_one_of_many_is_cancelled_and_the_others_get_their_own() -> None:
    server = Scripted(lambda command: b"")
    async with server.serve():
        connections = server.connections()
        tasks = [asyncio.create_task(connections.execute(("ECHO", str(n)))) for n in range(5)]
        await until(lambda: len(server.commands) == 5)
        tasks[1].cancel()
        await asyncio.wait({tasks[1]})
        server.answer = echo
        assert await connections.execute(("ECHO", "later")) == b"later"
        assert len(server.heard) == 2, "what is asked later goes another way"
        server.writers[0].write(b"".join(bulk(b"%d" % n) for n in range(5)))
        got = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(got.pop(1), asyncio.CancelledError)
        assert got == [b"0", b"2", b"3", b"4"]
        await until(lambda: server.writers[0].transport.is_closing(), "nobody waits there any more")
        connections.close()


async def test_one_that_nobody_waits_for_any_more_is_closed_at_once() -> None:
    server = Scripted(lambda command: b"")
    async with server.serve():
        connections = server.connections(most=1)
        tasks = [asyncio.create_task(connections.execute(("ECHO", str(n)))) for n in range(3)]
        await until(lambda: len(server.commands) == 3)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        await serves_again(server, connections)
        connections.close()


async def test_each_has_a_time_of_its_own() -> None:
    """The first one's is over before the answers come, the second one's is not."""
    server = Scripted(lambda command: b"")
    async with server.serve():
        connections = server.connections(timeout=0.3, most=1)
        first = asyncio.create_task(connections.execute(("ECHO", "first")))
        await until(lambda: server.commands)
        await asyncio.sleep(0.15)  # half of its time
        second = asyncio.create_task(connections.execute(("ECHO", "second")))
        with pytest.raises(TimeoutError):
            await first
        server.writers[0].write(bulk(b"first") + bulk(b"second"))
        assert await second == b"second"
        await serves_again(server, connections)
        connections.close()


async def test_a_server_that_is_silent() -> None:
    server = Scripted(lambda command: b"")
    async with server.serve():
        connections = server.connections(timeout=0.2, most=2)
        got = await at_once(connections, COMMANDS * 50)  # more than two connections take
        assert [type(error) for error in got] == [TimeoutError] * len(got)
        # a busy machine gives some of them a connection when the first two have been given up
        assert 2 * pipeline.IN_FLIGHT_MAX <= len(server.commands) <= 4 * pipeline.IN_FLIGHT_MAX
        await until(lambda: not connections._pipelines)
        await serves_again(server, connections)
        connections.close()


async def test_a_server_that_does_not_even_read() -> None:
    """A bounded number of bytes waits here for it."""
    server = Scripted(lambda command: b"")
    server.deaf = True
    size = 1 << 20
    async with server.serve():
        connections = server.connections(timeout=1.0, most=2)
        asked = asyncio.create_task(at_once(connections, [("ECHO", bytes(size))] * 30))
        await until(lambda: len(connections._pipelines) == 2 and not any(p.has_room for p in connections._pipelines))
        unsent = [p._transport.get_write_buffer_size() + p._unsent_bytes for p in connections._pipelines]
        assert max(unsent) <= pipeline.UNSENT_MAX + size + 100
        assert [type(error) for error in await asked] == [TimeoutError] * 30
        connections.close()


async def test_those_for_whom_there_is_no_room_wait_in_order() -> None:
    most = 0

    def counted(command: list[bytes]) -> bytes:
        nonlocal most
        most = max(most, sum(p.in_flight for p in connections._pipelines))
        return echo(command)

    async with Scripted(counted).serve() as server:
        connections = server.connections(most=1)
        words = [b"%d" % n for n in range(5 * pipeline.IN_FLIGHT_MAX)]
        assert await at_once(connections, [("ECHO", word) for word in words]) == words
        assert [word for _, word in server.commands] == words
        assert most == pipeline.IN_FLIGHT_MAX
        connections.close()


async def test_what_waits_for_room_is_told_when_the_connection_ends() -> None:
    server = Scripted(lambda command: None)
    async with server.serve():
        connections = server.connections(most=1)
        got = await at_once(connections, COMMANDS * 20)
        assert [type(error) for error in got[:20]] == [ConnectionError] * 20
        await serves_again(server, connections)
        connections.close()


async def test_a_large_command_keeps_none_behind_it_in_the_same_turn() -> None:
    async with Scripted(echo).serve() as server:
        connections = server.connections()
        await connections.execute(("ECHO", "0"))
        server.answer = lambda command: b""
        asked = asyncio.create_task(at_once(connections, [("ECHO", "1"), ("ECHO", bytes(pipeline.UNSENT_MAX)), ("ECHO", "2")]))
        await until(lambda: len(server.commands) == 4)
        assert [[command[1][:1] for command in heard] for heard in server.heard] == [[b"0", b"1", b"\0"], [b"2"]]
        connections.close()
        asked.cancel()


async def test_turns_take_connections_of_their_own_while_there_are_some() -> None:
    server = Scripted(lambda command: b"")
    async with server.serve():
        connections = server.connections(most=2)
        tasks = []
        for turn in range(4):
            tasks += [asyncio.create_task(connections.execute(("ECHO", f"{turn}"))) for _ in range(3)]
            await until(lambda turn=turn: len(server.commands) == 3 * (turn + 1))
        assert [[command[1] for command in heard] for heard in server.heard] == [[b"0"] * 3 + [b"2"] * 3, [b"1"] * 3 + [b"3"] * 3]
        for heard, writer in zip(server.heard, server.writers, strict=True):
            writer.write(b"".join(map(echo, heard)))
        assert await asyncio.gather(*tasks) == [b"%d" % turn for turn in range(4) for _ in range(3)]
        connections.close()


async def test_closed_ones_give_the_answers_that_are_waited_for() -> None:
    server = Scripted(lambda command: b"")
    async with server.serve():
        connections = server.connections()
        asked = asyncio.create_task(connections.execute(("ECHO", "1")))
        await until(lambda: server.commands)
        connections.close()
        server.writers[0].write(bulk(b"1"))
        assert await asked == b"1"
        await until(lambda: not connections._pipelines, "it is closed")
        await serves_again(server, connections)
        connections.close()
        assert not connections._pipelines, "an idle one is closed at once"


async def test_an_error_that_the_server_says_is_for_one_and_the_connection_stays() -> None:
    server = Scripted(lambda command: b"-ERR no\r\n" if command[1] == b"1" else b"*1\r\n-ERR in\r\n" if command[1] == b"2" else echo(command))
    async with server.serve():
        connections = server.connections()
        zero, one, two, three = await at_once(connections, [("ECHO", n) for n in range(4)])
        assert (zero, three) == (b"0", b"3")
        assert isinstance(one, ResponseError)
        assert isinstance(two[0], ResponseError)
        await serves_again(server, connections)
        assert len(server.heard) == 1
        connections.close()
