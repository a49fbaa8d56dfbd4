#!/usr/bin/env bash
# redis-py 8.1.0 cuts the code word off the text of an error where it has a class for it, and keeps it where it has none.
#
# An expert expects: str(error) of a ResponseError is what the server said, so that errors are told apart by how the text
# begins ("OOM ...", "MISCONF ..."), as the protocol means it.
# What happens: of "-OOM command not allowed when used memory > 'maxmemory'." the text begins with "command not
# allowed"; "-MISCONF Errors writing to the AOF file" keeps its word. A program that looks for both in the text finds
# one of them only, and a class that a later release adds makes the next one vanish. With and without hiredis.
# Output seen:
#   OOM     -> OutOfMemoryError: command not allowed when used memory > 'maxmemory'.
#   LOADING -> BusyLoadingError: Redis is loading the dataset in memory
#   MISCONF -> ResponseError: MISCONF Errors writing to the AOF file
#   BUSY    -> ResponseError: BUSY Redis is busy running a script.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
pip() { "$folder/venv/bin/python" -m pip --disable-pip-version-check --quiet "$@"; }
pip install 'redis==8.1.0'
cat >"$folder/ask.py" <<'PY'
import socket
import threading

import redis

SAID = {
    "OOM": "OOM command not allowed when used memory > 'maxmemory'.",
    "LOADING": "LOADING Redis is loading the dataset in memory",
    "MISCONF": "MISCONF Errors writing to the AOF file",
    "BUSY": "BUSY Redis is busy running a script.",
}


def told(text: str) -> redis.RedisError:
    """What a client is told by a server that answers each command with this error."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                while connection.recv(4096):
                    connection.sendall(f"-{text}\r\n".encode())

        threading.Thread(target=serve, daemon=True).start()
        client = redis.Redis(port=server.getsockname()[1], protocol=2, driver_info=None, retry=None)
        try:
            client.execute_command("PING")
        except redis.RedisError as error:
            return error
        finally:
            client.close()
    raise AssertionError("no error")


for word, text in SAID.items():
    error = told(text)
    print(f"{word:7} -> {type(error).__name__}: {error}")
PY
expected="OOM     -> OutOfMemoryError: command not allowed when used memory > 'maxmemory'.
LOADING -> BusyLoadingError: Redis is loading the dataset in memory
MISCONF -> ResponseError: MISCONF Errors writing to the AOF file
BUSY    -> ResponseError: BUSY Redis is busy running a script."
for more in '' 'hiredis==3.5.0'; do
  [ -z "$more" ] || pip install "$more"
  said=$("$folder/venv/bin/python" "$folder/ask.py")
  [ "$said" = "$expected" ] || { printf 'changed:\n%s\n' "$said" >&2; exit 1; }
done
printf '%s\n' "$said"
