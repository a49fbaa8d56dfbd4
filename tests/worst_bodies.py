"""The worst bodies of requests that are known, for every route that takes one, in JSON and in MessagePack: up to 8 MiB
that take long to parse, to walk, to explain.
"""

from collections.abc import Callable

import msgspec

SIZE = 8 * 2**20

ROUTES = ["/enqueue", "/poll", "/ack", "/nack", "/extend", "/dlq/delete", "/cancelled", "/workers", "/schedules/s"]
SETTLE = b'{"id":1,"topic":"t","kind":"ack"}'
ONE = b'{"id":1,"topic":"t"}'
WORKER = b'{"name":"n","host":"h","pid":1,"version":"v","tasks":[],"slots":1,"busy":1,"started_at":"2025-12-25T10:00:00Z","state":"running"'
RUNS = b'{"id":1,"namespace":"n","topic":"t","task":"","attempt":1,"seconds":1}'
PACK = msgspec.msgpack.encode

Make = Callable[[], bytes]


def much(before: bytes, unit: bytes, after: bytes, size: int = SIZE) -> bytes:
    """As many units as make a body of that size."""
    return before + unit * ((size - len(before) - len(after)) // len(unit)) + after


def explanation(size: int) -> bytes:
    """It reads like one explanation after another, and ends like a place."""
    return much(b"", b"contains unknown field `", b"x - at `$", size)


def unknown(size: int) -> bytes:
    """An unknown field."""
    return b'{"' + explanation(size) + b'":1}'


JSON: dict[str, tuple[str, Make]] = {
    **{f"unknown field, 120 KB, {path}": (path, lambda: unknown(120_000)) for path in ROUTES},
    **{f"unknown field, 8 MiB, {path}": (path, lambda: unknown(SIZE - 16)) for path in ROUTES},
    **{f"comments, {path}": (path, lambda: much(b"//[", b'"",', b"")) for path in ROUTES},
    **{f"spaces, {path}": (path, lambda: much(b"", b" ", b"x")) for path in ROUTES},
    **{f"deep, {path}": (path, lambda: much(b'{"metadata":', b'{"a":', b"")) for path in ROUTES},
    **{f"lists, {path}": (path, lambda: much(b"[", b"[],", b"[]]")) for path in ROUTES},
    "kind": ("/poll", lambda: b'{"settle":[{"id":1,"topic":"t","kind":"' + much(b"", b" - at `$", b"", 700_000) + b'"}]}'),
    "catch_up": ("/schedules/s", lambda: b'{"topic":"t","catch_up":"' + much(b"", b" - at `$", b"", 200_000) + b'"}'),
    "state": ("/workers", lambda: b'{"name":"n","state":"' + much(b"", b" - at `$", b"", 200_000) + b'"}'),
    "metadata, lists": ("/enqueue", lambda: much(b'[{"topic":"t","metadata":{"a":[', b"[],", b"[]]}}]")),
    "metadata, objects": ("/enqueue", lambda: much(b'[{"topic":"t","metadata":{"a":[', b"{},", b"{}]}}]")),
    "metadata, strings": ("/enqueue", lambda: much(b'[{"topic":"t","metadata":{"a":[', b'"",', b'""]}}]')),
    "metadata of a schedule": ("/schedules/s", lambda: much(b'{"topic":"t","metadata":{"a":[', b"[],", b"[]]}}")),
    "metadata, 1,000 of 4 KiB": ("/enqueue", lambda: many(b'{"topic":"t","metadata":{"a":[' + b",".join([b'""'] * 1_350) + b"]}}")),
    "metadata, 1,000 of 4 KiB of lists": ("/enqueue", lambda: many(b'{"topic":"t","metadata":{"a":[' + b",".join([b"[]"] * 1_350) + b"]}}")),
    "items": ("/enqueue", lambda: much(b"[", b'{"topic":"t"},', b'{"topic":"t"}]')),
    "a field again": ("/enqueue", lambda: much(b"[{", b'"topic":"t",', b'"topic":"t"}]')),
    "a number again": ("/enqueue", lambda: much(b"[{", b'"delay":1,', b'"topic":"t"}]')),
    "a long number": ("/enqueue", lambda: much(b'[{"topic":"t","delay":', b"1", b"}]")),
    "a payload": ("/enqueue", lambda: much(b'[{"topic":"t","payload":"', b"AAAA", b'"}]')),
    "a key": ("/enqueue", lambda: much(b'[{"topic":"t","idempotency_key":"', b"\\n", b'"}]')),
    "a full request": ("/enqueue", lambda: many(b'{"topic":"t","payload":"' + b"AAAA" * 2_048 + b'"}', 1_000)),
    "topics of a poll": ("/poll", lambda: much(b'{"topics":[', b'"a",', b'"a"]}')),
    "ends of a poll": ("/poll", lambda: much(b'{"end":[', b'"a",', b'"a"]}')),
    "settles of a poll": ("/poll", lambda: much(b'{"settle":[', SETTLE + b",", SETTLE + b"]}")),
    "topics again": ("/poll", lambda: much(b"{", b'"topics":[],', b'"limit":1}')),
    "settles": ("/ack", lambda: much(b"[", ONE + b",", ONE + b"]")),
    "a settle's topic again": ("/nack", lambda: much(b"{", b'"topic":"t",', b'"id":1}')),
    "a result": ("/ack", lambda: much(b'{"id":1,"topic":"t","result":"', b"AAAA", b'"}')),
    "an error": ("/nack", lambda: much(b'{"id":1,"topic":"t","error":"', b'\\"', b'"}')),
    "extends": ("/extend", lambda: much(b"[", ONE + b",", ONE + b"]")),
    "dead ids": ("/dlq/delete", lambda: much(b"[", ONE + b",", ONE + b"]")),
    "namespaces": ("/cancelled", lambda: much(b'{"namespaces":[', b'"a",', b'"a"]}')),
    "runs": ("/workers", lambda: much(WORKER + b',"running":[', RUNS + b",", RUNS + b"]}")),
    "counts": ("/workers", lambda: WORKER + b',"counts":{' + b",".join(b'"%x":1' % n for n in range(800_000)) + b"}}"),
    "topics of a worker": ("/workers", lambda: much(WORKER + b',"topics":[', b'"a/b",', b'"a/b"]}')),
}  # fmt: skip


def many(item: bytes, count: int = 1_000) -> bytes:
    """An array of items, as many of `count` as fit."""
    return b"[" + b",".join([item] * min(count, (SIZE - 2) // (len(item) + 1))) + b"]"


def array(count: int) -> bytes:
    return b"\xdd" + count.to_bytes(4)


def object(count: int) -> bytes:
    return b"\xdf" + count.to_bytes(4)


MSGPACK: dict[str, tuple[str, Make]] = {
    **{f"lists, {path}": (path, lambda: array(SIZE - 5) + b"\x90" * (SIZE - 5)) for path in ROUTES},
    **{f"deep, {path}": (path, lambda: b"\x91" * SIZE) for path in ROUTES},
    **{f"a field again, {path}": (path, lambda: object(SIZE // 9 - 1) + (b"\xa5topic\xa1t") * (SIZE // 9 - 1)) for path in ROUTES},
    **{
        f"unknown field, {path}": (path, lambda: b"\x81\xdb" + (SIZE - 16).to_bytes(4) + explanation(SIZE - 16) + b"\x01")
        for path in ROUTES
    },
    "metadata": ("/enqueue", lambda: b"\x91\x82\xa5topic\xa1t\xa8metadata\x81\xa1a" + array(SIZE - 64) + b"\x90" * (SIZE - 64)),
    "metadata of a schedule": ("/schedules/s", lambda: b"\x82\xa5topic\xa1t\xa8metadata\x81\xa1a" + array(SIZE - 64) + b"\x90" * (SIZE - 64)),
    "an item's field again": ("/enqueue", lambda: b"\x91" + object(SIZE // 9 - 2) + b"\xa5topic\xa1t" * (SIZE // 9 - 2)),
    "a settle's field again": ("/poll", lambda: b"\x81\xa6settle\x91" + object(SIZE // 9 - 3) + b"\xa5topic\xa1t" * (SIZE // 9 - 3)),
    "a settle's field again, of many": ("/ack", lambda: b"\x91" + object(SIZE // 9 - 3) + b"\xa5topic\xa1t" * (SIZE // 9 - 3)),
    "topics of a poll": ("/poll", lambda: b"\x81\xa6topics" + array(SIZE // 2 - 8) + b"\xa1a" * (SIZE // 2 - 8)),
    "metadata, 1,000 of 4 KiB": ("/enqueue", lambda: PACK([{"topic": "t", "metadata": {"a": [""] * 1_350}}] * 1_000)),
}  # fmt: skip

CASES = [(name, "application/json", *case) for name, case in JSON.items()] + [
    (f"MessagePack: {name}", "application/msgpack", *case) for name, case in MSGPACK.items()
]


def method_of(path: str) -> str:
    return "PUT" if path.startswith("/schedules") else "POST"
