"""This is the HTTP API without I/O: each function builds a `Call`; `answer` reads its reply or
raises the broker's error.

Enqueues, polls and results travel as msgpack (payloads as they are), the rest as JSON.
"""

import math
import os
import ssl
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from http import HTTPStatus
from typing import Any, Generic, TypedDict, TypeVar
from urllib.parse import quote, urlencode

import msgspec

from mqueue import message as m
from mqueue import wire
from mqueue.client.http1 import Headers
from mqueue.errors import BY_CODE, MQueueError, NotFound, Unavailable

T = TypeVar("T")
Settled = wire.SettleItem | wire.Message  # what ack and nack take; a message brings its receipt
Extended = wire.ExtendItem | wire.Message

CONNECT_S = 5.0
IDLE_S = 4.0  # a connection is used again within; a broker closes one after 5 s of silence
LEAST_S = 0.05  # for an answer, whatever time is left
TOTAL_S = 30.0  # of a call with all its tries, beyond its own wait
TIMEOUT_MAX_S = 86_400.0
CONNECTIONS = 100
CONNECTIONS_MAX = 65_535  # ports that one address has
CLOSED = "the client is closed"
BATCH_BYTES = 7 * 1024 * 1024  # payload bytes in one enqueue, leaving room for the rest of the body
ITEM_BYTES = 1024  # what an item takes beside payload and metadata

MSGPACK = {"Content-Type": "application/msgpack", "Accept": "application/msgpack"}
JSON = {"Content-Type": "application/json", "Accept": "application/json"}


class RequestTimeout(Unavailable):
    """The broker got only a part of the request in time, and has done nothing."""

    code, status, title = "request-timeout", HTTPStatus.REQUEST_TIMEOUT, "The request took too long to arrive"


_KINDS: dict[str, type[MQueueError]] = {**BY_CODE, RequestTimeout.code: RequestTimeout}


class EnqueueOptions(TypedDict, total=False):
    """A message may have these beside topic and payload. Durations are seconds; `delay` or
    `deliver_after`, not both.
    """

    namespace: str
    priority: int
    delay: float | None
    deliver_after: datetime | None
    ttl: float | None
    idempotency_key: str | None
    unique_key: str | None
    max_retries: int | None
    lease: float | None
    metadata: dict[str, Any] | None


class Call(msgspec.Struct, Generic[T], frozen=True):
    """It is one request. `repeatable`: sent twice it does what it does once. `wait`: seconds the broker may take on
    purpose. `within`: seconds that it may take in all, with what is sent again.
    """

    method: str
    path: str
    read: Callable[[bytes], T]
    body: bytes | None = None
    headers: Mapping[str, str] = msgspec.field(default_factory=lambda: JSON)
    wait: float = 0.0
    within: float = math.inf
    repeatable: bool = False
    answers: tuple[int, ...] = (HTTPStatus.OK,)  # statuses that have a result
    whole: bool = False  # what only some of the shards say is no answer


def batches(items: Iterable[wire.EnqueueItem]) -> Iterator[list[wire.EnqueueItem]]:
    """Cuts the items into lists that each fit one request."""
    batch: list[wire.EnqueueItem] = []
    size = 0
    for item in items:
        weight = len(item.payload) + ITEM_BYTES + (m.METADATA_MAX if item.metadata else 0)
        if batch and (len(batch) == m.BATCH_MAX or size + weight > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(item)
        size += weight
    if batch:
        yield batch


def chunks(items: Sequence[T]) -> Iterator[Sequence[T]]:
    return (items[start : start + m.BATCH_MAX] for start in range(0, len(items), m.BATCH_MAX))


_read_ids = msgspec.msgpack.Decoder(list[int]).decode
_read_polled = msgspec.msgpack.Decoder(wire.Polled).decode
_read_messages = msgspec.json.Decoder(list[wire.Message]).decode
_read_verdicts = msgspec.json.Decoder(list[wire.Verdict]).decode
_read_dead = msgspec.json.Decoder(list[wire.DeadItem]).decode
_read_topics = msgspec.json.Decoder(list[wire.Topic]).decode
_read_ready = msgspec.json.Decoder(wire.Ready).decode
_read_schedules = msgspec.json.Decoder(list[wire.Schedule]).decode
_read_schedule = msgspec.json.Decoder(wire.Schedule).decode
_read_ran = msgspec.json.Decoder(wire.Ran).decode
_read_deleted = msgspec.json.Decoder(wire.Deleted).decode
_read_status = msgspec.json.Decoder(wire.Status).decode
_read_cancel = msgspec.json.Decoder(wire.Cancel).decode
_read_cancelled = msgspec.json.Decoder(wire.Cancelled).decode
_read_result = msgspec.msgpack.Decoder(wire.Result).decode
_read_workers = msgspec.json.Decoder(list[wire.Worker]).decode
_read_problem = msgspec.json.Decoder(wire.Problem).decode
_pack = msgspec.msgpack.Encoder().encode
_json = msgspec.json.Encoder().encode


def check_limits(timeout: float, connections: int) -> None:
    """Raises ValueError for limits that no client can have."""
    if not isinstance(timeout, int | float) or not 0 < timeout <= TIMEOUT_MAX_S:
        raise ValueError(f"timeout={timeout!r}: seconds for a call with all its tries, above 0, at most {TIMEOUT_MAX_S:,.0f}")
    if not isinstance(connections, int) or not 1 <= connections <= CONNECTIONS_MAX:
        raise ValueError(f"connections={connections!r}: a number of connections, 1 to {CONNECTIONS_MAX:,}")


def tls() -> ssl.SSLContext:
    """Returns what both clients ask of a broker's certificate: that the system trusts it, and that it is the host's.
    `SSL_CERT_FILE` names other authorities.
    """
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


def within_s(call: Call[Any], timeout: float) -> float:
    """Returns the seconds for all tries of a call and the pauses between. `timeout` is the client's."""
    return min(timeout + call.wait, call.within)


def enqueue(items: Sequence[wire.EnqueueItem], *, safe_retries: bool = False, durability: m.Durability = "wal") -> Call[list[int]]:
    """This takes 1 to 1,000 items, and is answered with their ids. With `safe_retries` the request gets a key; where
    some items have keys of their own, every other item gets one instead.
    """
    keyed = len([i for i in items if i.idempotency_key])
    if safe_retries and 0 < keyed < len(items):
        items = [i if i.idempotency_key else msgspec.structs.replace(i, idempotency_key=_key()) for i in items]
        keyed = len(items)
    return _enqueue(items, keyed=keyed == len(items), safe_retries=safe_retries, durability=durability)


def _key() -> str:
    """Returns an idempotency key that nobody else has."""
    return os.urandom(16).hex()


def packed(item: wire.EnqueueItem) -> bytes:
    """Returns an item for `enqueue_packed`. Raises TypeError for metadata that has no MessagePack form."""
    return _pack(item)


def enqueue_packed(items: Sequence[bytes], *, keyed: bool, safe_retries: bool) -> Call[list[int]]:
    """This is `enqueue` for items of which all have a key of their own, or none has."""
    return _enqueue([msgspec.Raw(item) for item in items], keyed=keyed, safe_retries=safe_retries)


def _enqueue(
    items: Sequence[wire.EnqueueItem | msgspec.Raw], *, keyed: bool, safe_retries: bool, durability: m.Durability = "wal"
) -> Call[list[int]]:
    headers = MSGPACK if keyed or not safe_retries else {**MSGPACK, "Idempotency-Key": f'"{_key()}"'}
    if durability != "wal":
        headers = {**headers, "Mqueue-Durability": durability}
    return Call("POST", "/enqueue", _read_ids, _pack(items), headers, repeatable=safe_retries or keyed)


def poll(request: wire.Poll) -> Call[wire.Polled]:
    return Call("POST", "/poll", _read_polled, _pack(request), MSGPACK, wait=request.wait)


def fetch(topics: str | Sequence[str], namespace: str, limit: int, wait: float, lease: float | None) -> Call[list[wire.Message]]:
    query: list[tuple[str, Any]] = [
        ("namespace", namespace),
        *(("topic", t) for t in ([topics] if isinstance(topics, str) else topics)),
    ]
    query += [("limit", limit), *([("wait", wait)] if wait else []), *([("lease", lease)] if lease is not None else [])]
    return Call("GET", "/dequeue?" + urlencode(query), _read_messages, wait=wait)


def settle(path: str, items: Sequence[wire.SettleItem]) -> Call[list[wire.Verdict]]:
    """`path` is `/ack` or `/nack`. It is repeatable when every item has its receipt: a second nack is then stale
    and changes nothing.
    """
    return Call("POST", path, _read_verdicts, _json(items), repeatable=path == "/ack" or all(i.receipt for i in items))


def extend(items: Sequence[wire.ExtendItem]) -> Call[list[wire.Verdict]]:
    return Call("POST", "/extend", _read_verdicts, _json(items), repeatable=True)


def dead_letters(topic: str, namespace: str, limit: int, after: int) -> Call[list[wire.DeadItem]]:
    query = {"namespace": namespace, "topic": topic, "limit": limit, "after": after}
    return Call("GET", "/dlq?" + urlencode(query), _read_dead, repeatable=True)


def delete_dead(topic: str, namespace: str, ids: Sequence[int]) -> Call[list[wire.Verdict]]:
    body = _json([wire.DeadId(id=i, topic=topic, namespace=namespace) for i in ids])
    return Call("POST", "/dlq/delete", _read_verdicts, body, repeatable=True)


def topics(namespace: str | None) -> Call[list[wire.Topic]]:
    return Call("GET", "/topics" + (f"?{urlencode({'namespace': namespace})}" if namespace else ""), _read_topics, repeatable=True, whole=True)


def workers(namespace: str | None) -> Call[list[wire.Worker]]:
    return Call("GET", "/workers" + (f"?{urlencode({'namespace': namespace})}" if namespace else ""), _read_workers, repeatable=True)


def tell(worker: wire.Worker) -> Call[None]:
    return Call("POST", "/workers", lambda body: None, _json(worker), repeatable=True)


def message(id: int) -> Call[wire.Status]:
    return Call("GET", f"/messages/{id:d}", _read_status, repeatable=True)


def cancel(id: int) -> Call[wire.Cancel]:
    return Call("POST", f"/messages/{id:d}/cancel", _read_cancel, repeatable=True)


def cancelled(namespaces: Sequence[str], since: str | None, wait: float) -> Call[wire.Cancelled]:
    body = _json(wire.WaitCancelled(namespaces=list(namespaces), since=since, wait=wait))
    return Call("POST", "/cancelled", _read_cancelled, body, wait=wait, repeatable=True)


def result(id: int, topic: str | None, namespace: str, wait: float, within: float) -> Call[bytes]:
    """`topic` tells the broker where to look."""
    query = {**({"topic": topic, "namespace": namespace} if topic is not None else {}), **({"wait": wait} if wait else {})}
    path = f"/messages/{id:d}/result" + (f"?{urlencode(query)}" if query else "")
    return Call("GET", path, lambda body: _read_result(body).value, headers=MSGPACK, wait=wait, within=within, repeatable=True)


def schedules(namespace: str, after: str, limit: int) -> Call[list[wire.Schedule]]:
    query = {"namespace": namespace, "after": after, "limit": limit}
    return Call("GET", "/schedules?" + urlencode(query), _read_schedules, repeatable=True)


def schedule(name: str, namespace: str) -> Call[wire.Schedule]:
    return Call("GET", _schedule_path(name, "", namespace), _read_schedule, repeatable=True)


def put_schedule(name: str, item: wire.ScheduleItem) -> Call[wire.Schedule]:
    return Call("PUT", f"/schedules/{quote(name, safe='')}", _read_schedule, _json(item), repeatable=True)


def pause_schedule(name: str, namespace: str) -> Call[wire.Schedule]:
    return Call("POST", _schedule_path(name, "/pause", namespace), _read_schedule, repeatable=True)


def resume_schedule(name: str, namespace: str) -> Call[wire.Schedule]:
    return Call("POST", _schedule_path(name, "/resume", namespace), _read_schedule, repeatable=True)


def run_schedule(name: str, namespace: str, *, safe_retries: bool = False) -> Call[int]:
    headers = {**JSON, "Idempotency-Key": f'"{_key()}"'} if safe_retries else JSON
    path = _schedule_path(name, "/run", namespace)
    return Call("POST", path, lambda body: _read_ran(body).id, headers=headers, repeatable=safe_retries)


def delete_schedule(name: str, namespace: str) -> Call[bool]:
    path = _schedule_path(name, "", namespace)
    return Call("DELETE", path, lambda body: _read_deleted(body).deleted, repeatable=True)


def _schedule_path(name: str, verb: str, namespace: str) -> str:
    return f"/schedules/{quote(name, safe='')}{verb}?{urlencode({'namespace': namespace})}"


def health() -> Call[bool]:
    return Call("GET", "/health", lambda body: True)


def ready() -> Call[wire.Ready]:
    return Call("GET", "/ready", _read_ready, answers=(HTTPStatus.OK, HTTPStatus.SERVICE_UNAVAILABLE))


def ack_items(items: Iterable[Settled]) -> list[wire.SettleItem]:
    return nack_items(items, None, None)


def nack_items(items: Iterable[Settled], error: str | None, retry_after: float | None) -> list[wire.SettleItem]:
    """Messages become items with their receipt; `error` and `retry_after` are put into those."""
    return [
        wire.SettleItem(
            id=i.id, namespace=i.namespace, topic=i.topic, receipt=i.receipt, error=error, retry_after=retry_after
        )
        if isinstance(i, wire.Message)
        else i
        for i in items
    ]  # fmt: skip


def extend_items(items: Iterable[Extended], lease: float | None) -> list[wire.ExtendItem]:
    return [
        wire.ExtendItem(id=i.id, namespace=i.namespace, topic=i.topic, receipt=i.receipt, lease=lease) if isinstance(i, wire.Message) else i
        for i in items
    ]


def answer(call: Call[T], status: int, headers: Headers, body: bytes) -> T:
    """Returns the result of `call`. Raises what the broker said, Unavailable where no broker answered."""
    if status not in call.answers:
        raise error(status, headers, body)
    if call.whole and (missing := headers.get("Mqueue-Missing-Shards")):
        raise Unavailable(f"{call.method} {call.path}: not all shards answer, without: {missing}", retry_after=1)
    try:
        return call.read(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as wrong:
        if status != HTTPStatus.OK:
            raise error(status, headers, body) from None
        raise Unavailable(f"{call.method} {call.path}: the answer is not a broker's ({wrong})") from wrong


def unreachable(url: str, error: OSError) -> Unavailable:
    """Returns the exception for a request without an answer."""
    return Unavailable(f"cannot reach the broker at {url}: {str(error) or type(error).__name__}")


def error(status: int, headers: Headers, body: bytes) -> MQueueError:
    """Returns the exception for a refusal: by its problem document's code, else (a proxy answered) by its status."""
    try:
        problem = _read_problem(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        text = body[:200].decode(errors="replace").strip()
        problem = wire.Problem(title="", status=status, code="", detail=f"HTTP {status}: {text}" if text else f"HTTP {status}")
    kind = _KINDS.get(problem.code) or _kind(status)
    retry_after = problem.retry_after if problem.retry_after is not None else _seconds(headers.get("Retry-After"))
    raised = kind(problem.detail, retry_after=retry_after, item=problem.item, field=problem.field)
    if problem.code:
        vars(raised)["code"] = problem.code  # the code may have no class of its own here
    return raised


def _kind(status: int) -> type[MQueueError]:
    by_status = (kind for kind in _KINDS.values() if kind.status == status and kind is not NotFound)
    return Unavailable if status >= 500 else next(by_status, MQueueError)


def _seconds(retry_after: str | None) -> float | None:
    return float(retry_after) if retry_after is not None and retry_after.isdecimal() else None
