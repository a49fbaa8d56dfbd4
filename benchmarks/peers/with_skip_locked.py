"""A table of PostgreSQL and `FOR UPDATE SKIP LOCKED`, as one writes it by hand: no library, no lease, no retries.

It stands for what PostgreSQL itself can do here. Its worker deletes a page in one transaction with running it.
"""

import time
from collections.abc import Sequence

import psycopg

from benchmarks.peers import job, peer

PACKAGE = "psycopg"
SETTINGS = "a loop of ours: takes 100 in a transaction, looks every 10 ms"
PAUSE_S = 0.01
TAKE = """
    DELETE FROM job USING (SELECT id FROM job ORDER BY id LIMIT 100 FOR UPDATE SKIP LOCKED) taken
    WHERE job.id = taken.id RETURNING payload
"""


def prepare() -> None:
    with psycopg.connect(peer.URL, autocommit=True) as connection:
        connection.execute("CREATE TABLE job (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, payload text NOT NULL)")


def workers(count: int) -> list[list[str]]:
    return [peer.module("benchmarks.peers.with_skip_locked")] * count


class Producer(peer.Producer):
    BULK = True

    def open(self) -> None:
        self._connection = psycopg.connect(peer.URL, autocommit=True)

    def enqueue(self, payload: str) -> None:
        self._connection.execute("INSERT INTO job (payload) VALUES (%s)", [payload])

    def enqueue_many(self, payloads: Sequence[str]) -> None:
        self._connection.execute("INSERT INTO job (payload) SELECT unnest(%s::text[])", [list(payloads)])


def work() -> None:
    with psycopg.connect(peer.URL, autocommit=True) as connection:
        while True:
            with connection.transaction():
                taken = connection.execute(TAKE).fetchall()
                for (payload,) in taken:
                    job.run(payload)
            if not taken:
                time.sleep(PAUSE_S)


if __name__ == "__main__":
    work()
