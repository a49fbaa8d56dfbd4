"""pgmq's SQL (its functions without the extension), through psycopg. It has no worker: this is the loop of its
documentation, which reads a page, runs it and deletes it.
"""

import json
from collections.abc import Sequence

import psycopg
from pgmq import get_embedded_install_sql

from benchmarks.peers import job, peer

PACKAGE = "pgmq"
SETTINGS = "a loop of ours: reads 100, deletes 100"
LEASE_S, PAGE = 30, 100
WAIT_S, LOOK_MS = 5, 50


def prepare() -> None:
    with psycopg.connect(peer.URL, autocommit=True) as connection:
        connection.execute(get_embedded_install_sql().encode())
        connection.execute("SELECT pgmq.create('bench')")


def workers(count: int) -> list[list[str]]:
    return [peer.module("benchmarks.peers.with_pgmq")] * count


class Producer(peer.Producer):
    BULK = True

    def open(self) -> None:
        self._connection = psycopg.connect(peer.URL, autocommit=True)

    def enqueue(self, payload: str) -> None:
        self._connection.execute("SELECT pgmq.send('bench', %s::jsonb)", [json.dumps({"payload": payload})])

    def enqueue_many(self, payloads: Sequence[str]) -> None:
        messages = [json.dumps({"payload": payload}) for payload in payloads]
        self._connection.execute("SELECT pgmq.send_batch('bench', %s::jsonb[])", [messages])


def work() -> None:
    read = f"SELECT msg_id, message FROM pgmq.read_with_poll('bench', {LEASE_S}, {PAGE}, {WAIT_S}, {LOOK_MS})"
    with psycopg.connect(peer.URL, autocommit=True) as connection:
        while True:
            if page := connection.execute(read).fetchall():
                for _, message in page:
                    job.run(message["payload"])
                connection.execute("SELECT pgmq.delete('bench', %s::bigint[])", [[number for number, _ in page]])


if __name__ == "__main__":
    work()
