"""Statements keep their index plans on a table that was never analysed, and right after it was filled in bulk."""

import re
from collections.abc import Iterator
from importlib import resources
from typing import Any

import psycopg
import pytest

from mqueue.broker.embedded.stores import StoreUrls
from mqueue.broker.store.migrate import migrate
from mqueue.broker.store.queries import sql
from mqueue.broker.store.shard import session_settings

ROWS = 20_000
FILL = """
INSERT INTO message (id, topic_id, priority, rank, deliver_after_us, attempts, max_retries, version, lease_ms, origin_node, origin_sequence,
                     created_at_us, expires_at_us, payload)
SELECT n, 1, n %% 5, 0, n, 0, 3, 1, 30000, 1, n, n - (n %% 2), CASE WHEN n %% 3 = 0 THEN n END, '\\x00' FROM generate_series(1, %(rows)s) n
"""
ARGUMENTS: dict[str, tuple[str, dict[str, Any]]] = {
    "refill_pages": ("message_key", {"namespaces": ["n"], "names": ["t"], "priorities": [2], "ranks": [0], "dues": [5], "ids": [5],
                                     "limits": [100], "now": ROWS, "t_due": ROWS, "t_id": 0, "bytes": 1 << 20}),
    "time_page": ("message_due", {"due": 5, "id": 5, "until": ROWS, "limit": 100, "bytes": 1 << 20}),
    "expired_page": ("message_expiry", {"now": 100, "expires": 5, "id": 5, "limit": 100}),
    "delete_messages": ("message_pkey", {"ids": [1, 2, 3], "versions": [1, 1, 1]}),
    "existing": ("message_pkey", {"ids": [1, 2, 3]}),
    "versions": ("message_pkey", {"ids": [1, 2, 3]}),
    "dead_page": ("dead_letter_topic", {"namespace": "n", "name": "t", "after": 0, "limit": 10, "size": 9, "error_weight": 1}),
    "find_keys": ("idempotency_pkey", {"key_hashes": [b"1"], "now": 0}),
    "prune_keys": ("idempotency_expiry", {"now": 0, "limit": 10}),
    "message_by_id": ("message_pkey", {"id": 7}),
    "delete_dead": ("dead_letter_pkey", {"namespace": "n", "name": "t", "ids": [1]}),
    "ledger": ("message_key", {}),
    "audit_topic": ("message_key", {"after": 0, "limit": 100}),
    "topic_counts": ("dead_letter_topic", {"namespaces": ["n"]}),
    "arrivals": ("message_pkey", {"after": 0, "limit": 100}),
    "put_arrivals": ("message_pkey", {"ids": [1, 2, 3]}),
    "unplaced": ("arrival_pkey", {"ids": [1]}),
    "delete_arrivals": ("arrival_pkey", {"ids": [1]}),
    "orphans_of": ("orphan_pkey", {"ids": [1]}),
    "settle_rows": ("message_pkey", {"ids": [1], "versions": [2], "attempts": [1], "dues": [5], "errors": [""]}),
    "bury_rows": ("message_pkey", {"ids": [1], "versions": [2], "attempts": [1], "errors": [""], "died_at": 0}),
    "bury": ("message_pkey", {"died_at": 0}),
    "request_key": ("idempotency_pkey", {"key_hash": b"1", "now": 0}),
    "request_keys": ("idempotency_request", {"now": 0, "limit": 10}),
    "overdue_page": ("message_key", {"topic_id": 1, "priority": 0, "rank": 0, "due": 5, "id": 5, "to_priority": 3, "to_rank": 0, "to_due": 5,
                                     "to_id": 5, "before": ROWS, "limit": 100}),
    "next_priority": ("message_key", {"topic_id": 1, "priority": 0, "rank": 0, "to_priority": 3, "to_rank": 0, "to_due": 5, "to_id": 5}),
    "set_aside": ("message_pkey", {"id": 1, "topic_id": 1, "version": 2, "state": b"s", "body": b"", "error": None, "reason": ""}),
    "lock_messages": ("message_pkey", {"ids": [1, 2, 3]}),
    "lock_leased": ("message_pkey", {"ids": [1, 2, 3]}),
    "lease_page": ("message_key", {"namespace": "n", "names": ["t"], "limit": 100, "bytes": 1 << 20, "due": ROWS, "now": ROWS, "lease_ms": 0,
                                   "epoch": 1, "number": 1}),
    "leased_messages": ("message_pkey", {"ids": [1, 2, 3]}),
    "extend_leases": ("message_pkey", {"ids": [1], "topics": ["n/t"], "epochs": [1], "numbers": [1], "leases": [0], "now": 0}),
    "dead_leases": ("lease_until", {"now": 0, "limit": 100}),
    "prune_leases": ("message_pkey", {"now": 0, "limit": 100}),
    "delete_unleased": ("message_pkey", {"ids": [1], "versions": [1]}),
    "live_leases": ("message_pkey", {"after": 0, "limit": 100, "now": 0}),
    "row_to_cancel": ("message_pkey", {"id": 7}),
    "row_to_refuse": ("message_pkey", {"id": 7}),
    "unique_rows": ("message_unique", {"unique_keys": [b"1"], "limit": 16}),
    "unique_waiting": ("message_unique", {"unique_keys": [b"1"], "now": 0}),
    "prune_cancel_requests": ("message_pkey", {"age_s": 60.0, "limit": 10}),
    "cancel_requested": ("message_pkey", {"now": 0}),
    "result_of": ("result_pkey", {"id": 7, "namespaces": ["n"], "topic": None, "values": True}),
    "ended": ("result_pkey", {"ids": [1, 2, 3]}),
    "prune_results": ("result_expiry", {"limit": 10}),
    "schedule_is_due": ("schedule_due", {"now": 0}),
    "due_schedules": ("schedule_due", {"now": 0, "limit": 100}),
    "move_schedules": ("schedule_pkey", {"namespaces": ["n"], "names": ["a"], "nexts": [1], "lasts": [0]}),
    "schedule": ("schedule_pkey", {"namespace": "n", "name": "a"}),
    "schedule_by_name": ("schedule_pkey", {"namespace": "n", "name": "a"}),
    "schedule_page": ("schedule_pkey", {"namespace": "n", "after": "", "limit": 100}),
    "count_schedules": ("schedule_pkey", {"namespace": "n"}),
    "delete_schedule": ("schedule_pkey", {"namespace": "n", "name": "a"}),
    "cold_counts": ("message_key", {"namespaces": ["n"]}),
}  # fmt: skip
WITHOUT = {
    "upsert_message",
    "put_orphans",
    "keep_keys",
    "claim_keys",
    "keep_results",
    "put_schedule",
}  # they look into an index to see what is there already: EXPLAIN does not show it


@pytest.fixture(scope="module")
def database(stores: StoreUrls) -> Iterator[psycopg.Connection[Any]]:
    migrate(stores.database_urls[0])
    with psycopg.connect(stores.database_urls[0], autocommit=True) as connection:
        connection.execute(sql("session"), session_settings("flush"))
        connection.execute("ALTER TABLE message SET (autovacuum_enabled = false)")
        connection.execute("INSERT INTO topic (namespace, name) VALUES ('n', 't')")
        connection.execute(FILL, {"rows": ROWS})
        connection.execute(sql("create_staging"))
        yield connection
        connection.execute("TRUNCATE message, topic CASCADE")


@pytest.mark.parametrize("name", ARGUMENTS)
def test_the_index_is_used_without_statistics(database: psycopg.Connection[Any], name: str) -> None:
    index, arguments = ARGUMENTS[name]
    never = "SELECT last_analyze IS NULL AND last_autoanalyze IS NULL FROM pg_stat_user_tables WHERE relname = 'message'"
    assert database.execute(never).fetchone() == (True,)
    plan = "\n".join(line for (line,) in database.execute(b"EXPLAIN " + sql(name), arguments))
    assert re.search(rf"{index}\b.*\n\s*Index Cond", plan), plan
    assert not re.search(r"Seq Scan on (message|dead_letter|idempotency|schedule|result)", plan), plan


def test_no_statement_with_an_index_is_left_out() -> None:
    folder = resources.files("mqueue.broker.store") / "sql"
    of_many_rows = re.compile(r"Index: .*(message|dead_letter|idempotency|arrival|orphan|schedule|result)_")
    named = {file.name.removesuffix(".sql") for file in folder.iterdir() if of_many_rows.search(file.read_text())}
    assert named == ARGUMENTS.keys() | WITHOUT
