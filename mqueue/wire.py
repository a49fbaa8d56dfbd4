"""These are the HTTP API's bodies, in both directions, as JSON or msgpack. Broker and clients share them; neither
adds fields of its own.

Times travel as RFC 3339 in UTC. Durations are seconds. Ids are integers. A payload is base64 in JSON and
raw bytes in msgpack.
"""

from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from mqueue import message as m
from mqueue import schedule as s

Name = Annotated[str, Meta(min_length=1, max_length=m.NAME_MAX, pattern=m.NAME_PATTERN)]
Id = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Int32 = Annotated[int, Meta(ge=-(2**31), lt=2**31)]
Seconds = Annotated[float, Meta(ge=0, le=100 * 365 * 86400)]
Lease = Annotated[float, Meta(ge=0.05, le=m.LEASE_MAX_S)]
PollName = Annotated[str, Meta(min_length=1, max_length=64)]
Receipt = Annotated[str, Meta(min_length=1, max_length=64)]


class EnqueueItem(Struct, forbid_unknown_fields=True, kw_only=True):
    topic: Name
    namespace: Name = m.DEFAULT_NAMESPACE
    priority: Int32 = 0
    payload: Annotated[bytes, Meta(max_length=m.PAYLOAD_MAX)] = b""
    metadata: dict[str, Any] | None = None
    deliver_after: Annotated[datetime, Meta(tz=True)] | None = None
    delay: Seconds | None = None  # seconds from now, by the shard clock; instead of deliver_after
    ttl: Annotated[float, Meta(gt=0, le=100 * 365 * 86400)] | None = None
    idempotency_key: Annotated[str, Meta(min_length=1, max_length=m.KEY_MAX)] | None = None
    max_retries: Annotated[int, Meta(ge=0, le=m.RETRIES_MAX)] | None = None
    lease: Lease | None = None
    unique_key: Annotated[str, Meta(min_length=1, max_length=m.KEY_MAX)] | None = None  # while one waits under it, its id is the answer


class Message(Struct, omit_defaults=True, kw_only=True):
    """This is one element of `GET /dequeue` and of `messages` in `POST /poll`."""

    id: int
    namespace: str
    topic: str
    priority: int
    payload: bytes
    deliver_after: datetime
    created_at: datetime
    attempt: int
    max_retries: int
    receipt: str
    lease_expires_at: datetime
    lease: float  # seconds from the fetch: it is right for a client whose clock is wrong, too
    metadata: msgspec.Raw | dict[str, Any] | None = None


class SettleItem(Struct, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """This is the body of `/ack` and `/nack`: one, or an array. `error` and `retry_after` are for nack, `result` and
    `result_ttl` for ack.
    """

    id: Id
    topic: Name
    namespace: Name = m.DEFAULT_NAMESPACE
    receipt: Receipt | None = None
    error: Annotated[str, Meta(max_length=256 * 1024)] | None = None
    retry_after: Seconds | None = None
    result: bytes | None = None
    result_ttl: Annotated[float, Meta(gt=0, le=m.RESULT_TTL_MAX_S)] | None = None  # seconds


class PollSettle(SettleItem, kw_only=True):
    kind: Literal["ack", "nack", "release", "bury", "cancel"]


class ExtendItem(Struct, forbid_unknown_fields=True, kw_only=True):
    """This is the body of `/extend`: one, or an array."""

    id: Id
    topic: Name
    namespace: Name = m.DEFAULT_NAMESPACE
    receipt: Receipt | None = None
    lease: Lease | None = None


class Verdict(Struct):
    """This is one element of the answer to an array of settles or extends."""

    id: int
    status: Literal["ok", "stale", "gone"]


class Poll(Struct, forbid_unknown_fields=True, kw_only=True):
    """This is the body of `/poll`: it settles what ended, then fetches for the free slots. `limit` 0 only settles.

    `name`: a later poll, of the same namespace and to the same broker, may `end` the wait of this one by it: this one
    is answered at once with what it has. If the client hangs up instead, a message may just be on its way to it, and
    that costs an attempt.
    """

    namespace: Name = m.DEFAULT_NAMESPACE
    topics: Annotated[list[Name], Meta(max_length=m.TOPICS_MAX)] = []
    limit: Annotated[int, Meta(ge=0, le=m.BATCH_MAX)] = 0
    wait: Annotated[float, Meta(ge=0, le=m.WAIT_MAX_S)] = 0.0
    lease: Lease | None = None
    settle: Annotated[list[PollSettle], Meta(max_length=m.BATCH_MAX)] = []
    name: PollName | None = None
    end: Annotated[list[PollName], Meta(max_length=m.TOPICS_MAX)] = []


class Polled(Struct, omit_defaults=True):
    """This is the answer of `/poll`, with `verdicts` in the order of `settle`. `missing`: shards of its topics that
    gave no answer, or more than there was room for; `messages` has what the others gave.
    """

    verdicts: list[Verdict]
    messages: list[Message]
    missing: list[int] = []


class DeadItem(Struct, omit_defaults=True, kw_only=True):
    """This is one element of `GET /dlq`."""

    id: int
    namespace: str
    topic: str
    priority: int
    payload: bytes
    attempts: int
    created_at: datetime
    died_at: datetime
    error: str | None = None
    metadata: msgspec.Raw | dict[str, Any] | None = None


class DeadId(Struct, forbid_unknown_fields=True, kw_only=True):
    """This is the body of `/dlq/delete`: one, or an array."""

    id: Id
    topic: Name
    namespace: Name = m.DEFAULT_NAMESPACE


class ScheduleItem(Struct, forbid_unknown_fields=True, kw_only=True):
    """This is the body of `PUT /schedules/{name}`: `cron` in its `timezone`, or `every` (seconds); and
    the messages it makes.

    `declared`: it comes from code. It changes something only where it differs from what code declared last, so that
    what was edited meanwhile stays.
    """

    topic: Name
    namespace: Name = m.DEFAULT_NAMESPACE
    cron: Annotated[str, Meta(min_length=1, max_length=s.CRON_MAX)] | None = None
    timezone: Annotated[str, Meta(min_length=1, max_length=s.ZONE_MAX)] = "UTC"
    every: Annotated[float, Meta(ge=s.EVERY_MIN_S, le=s.EVERY_MAX_S)] | None = None
    catch_up: s.CatchUp = "one"
    priority: Int32 = 0
    payload: Annotated[bytes, Meta(max_length=s.PAYLOAD_MAX)] = b""
    metadata: dict[str, Any] | None = None
    ttl: Annotated[float, Meta(gt=0, le=100 * 365 * 86400)] | None = None
    max_retries: Annotated[int, Meta(ge=0, le=m.RETRIES_MAX)] | None = None
    lease: Lease | None = None
    declared: bool = False


class Schedule(Struct, omit_defaults=True, kw_only=True):
    """This is one schedule. In a list they come without their payloads. `next_at` is left out where
    it never comes again.
    """

    name: str
    namespace: str
    topic: str
    cron: str | None = None
    timezone: str
    every: float | None = None
    catch_up: s.CatchUp
    priority: int
    paused: bool
    next_at: datetime | None = None
    last_at: datetime | None = None
    payload: bytes = b""
    metadata: msgspec.Raw | dict[str, Any] | None = None
    ttl: float | None = None
    max_retries: int | None = None
    lease: float | None = None


class Ran(Struct):
    """This is the answer of `POST /schedules/{name}/run`: the id of its message."""

    id: int


class Deleted(Struct):
    """This is the answer of `DELETE /schedules/{name}`."""

    deleted: bool


class Topic(Struct, kw_only=True):
    """This is one element of `GET /topics`."""

    namespace: str
    topic: str
    shard: int
    ready: int
    delayed: int
    leased: int
    waiting: int
    dead: int
    counters: dict[str, int] = {}


class ShardReady(Struct, kw_only=True):
    """This is one shard in the answer of `GET /ready`. `redis`: ok, full, or why it takes no writes (docs/http-api.md);
    more words may come.
    """

    shard: int
    mode: Literal["hot", "cold", "apart", "recovering"]
    redis: str
    postgres: Literal["ok", "unreachable"]
    wal: Literal["ok", "full", "broken"]


class Ready(Struct, kw_only=True):
    """This is the answer of `GET /ready`: 200 where every shard would serve a fetch and, unless its Redis is full, an
    enqueue; else 503.
    """

    status: Literal["ready", "not-ready"]
    shards: list[ShardReady]


class Status(Struct, omit_defaults=True, kw_only=True):
    """This is the answer of `GET /messages/{id}`."""

    id: int
    namespace: str
    topic: str
    state: Literal["ready", "delayed", "leased", "waiting", "dead", "done"]
    priority: int
    attempts: int
    max_retries: int
    payload: bytes
    deliver_after: datetime
    created_at: datetime
    error: str | None = None
    metadata: msgspec.Raw | dict[str, Any] | None = None
    cancelling: bool = False
    progress: float | None = None  # 0 to 1, while it runs, if its handler tells
    note: str | None = None


class Cancel(Struct):
    """This is the answer of `POST /messages/{id}/cancel`. `cancelled`: it waited, and is no more; `cancelling`: it
    runs, and its worker is told; `gone`: it has ended, or never was.
    """

    id: int
    status: Literal["cancelled", "cancelling", "gone"]


class WaitCancelled(Struct, forbid_unknown_fields=True, kw_only=True):
    """This is the body of `POST /cancelled`. `since`: as the last answer had it; without it all
    that is remembered comes.
    """

    namespaces: Annotated[list[Name], Meta(min_length=1, max_length=m.TOPICS_MAX)]
    since: Annotated[str, Meta(max_length=m.SINCE_MAX)] | None = None
    wait: Annotated[float, Meta(ge=0, le=m.WAIT_MAX_S)] = 0.0


class Cancelled(Struct):
    """This is the answer of `POST /cancelled`: ids of running messages that are to be cancelled, at
    most 1,000 of a shard.
    """

    since: str
    ids: list[int]


class Result(Struct, kw_only=True):
    """This is the answer of `GET /messages/{id}/result` once there is one."""

    id: int
    value: bytes


class Running(Struct, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """A slot of a worker runs this."""

    id: Id
    namespace: Name
    topic: Name
    task: Annotated[str, Meta(max_length=m.NAME_MAX)]
    attempt: Annotated[int, Meta(ge=1, lt=2**31)]
    seconds: Seconds
    progress: Annotated[float, Meta(ge=0, le=1)] | None = None
    note: Annotated[str, Meta(max_length=m.NOTE_MAX)] | None = None


class Worker(Struct, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """This is the body of `POST /workers`, and one element of `GET /workers`. `topics`: as `namespace/topic`.

    `busy`: slots taken; `running`: what they run, those with a progress and then the longest-running first. A worker
    that is `stopped` is forgotten. `seen_at`: in the answer alone, when the broker last heard of it.
    """

    name: Name
    host: Annotated[str, Meta(max_length=255)]
    pid: Annotated[int, Meta(ge=0, lt=2**31)]
    version: Annotated[str, Meta(max_length=64)]
    topics: Annotated[list[Annotated[str, Meta(pattern=m.TOPIC_PATTERN)]], Meta(min_length=1, max_length=200)]
    tasks: Annotated[list[Annotated[str, Meta(max_length=m.NAME_MAX)]], Meta(max_length=200)]
    slots: Annotated[int, Meta(ge=1, lt=2**31)]
    busy: Annotated[int, Meta(ge=0, lt=2**31)]
    started_at: Annotated[datetime, Meta(tz=True)]
    state: Literal["running", "stopping", "stopped"]
    counts: Annotated[dict[Annotated[str, Meta(max_length=32)], Id], Meta(max_length=32)] = {}
    running: Annotated[list[Running], Meta(max_length=m.RUNNING_MAX)] = []
    seen_at: datetime | None = None


class Problem(Struct, omit_defaults=True, kw_only=True):
    """This is an RFC 9457 problem document, `application/problem+json`. `item` (index in the array) and `field`
    where one is to blame.
    """

    type: str = "about:blank"
    title: str
    status: int
    code: str
    detail: str
    item: int | None = None
    field: str | None = None
    retry_after: float | None = None
