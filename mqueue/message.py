"""This module says what a message is: frozen types, field limits, ids. It does no I/O."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from msgspec import Struct

NAME_MAX = 128  # letters of a namespace or topic
PAYLOAD_MAX = 256 * 1024  # bytes
METADATA_MAX = 4 * 1024  # bytes of JSON
KEY_MAX = 255  # characters of an idempotency key, and of a unique key
ERROR_MAX = 4 * 1024  # bytes kept of a nack's error text
BATCH_MAX = 1_000  # items in one request, ids in one script call
BODY_MAX = 8 * 1024 * 1024  # bytes of a request, of a script call
PAGE_MAX = 4 * 1024 * 1024  # bytes of dead letters in one answer, beyond which no other is added
ERROR_WEIGHT = 6  # bytes that one of an error may take in JSON
WAIT_MAX_S = 60.0
LEASE_MAX_S = 24 * 3600.0
LEASE_LEAST_S = 1.0  # of a message: shorter ones are lengthened, since a busy worker could not renew them in time
RETRIES_MAX = 1_000
TOPICS_MAX = 64  # topics in one fetch
SINCE_MAX = 4_096  # letters of the `since` of a `POST /cancelled`
TIME_MAX_US = 253_402_300_800_000_000 // 32  # year 2220: µs stay exact in Lua's doubles

DEFAULT_NAMESPACE = "default"
TOPIC_PATTERN = r"^[A-Za-z0-9_.\-]{1,128}/[A-Za-z0-9_.\-]{1,128}(?!\n)$"
NAME_PATTERN = r"^[A-Za-z0-9_.\-]{1,128}(?!\n)$"
RESULT_MAX = 1024 * 1024  # bytes of a result; a broker may allow less
RESULT_TTL_S = 3600.0  # of a result that names none
RESULT_TTL_MAX_S = 30 * 86400.0
REQUEST_KEY_S = 600.0  # how long the key of a whole request is known

Kind = Literal["ack", "nack", "release", "bury", "cancel"]
Verdict = Literal["ok", "stale", "gone"]
Cancelled = Literal["cancelled", "cancelling", "gone"]


class TopicName(NamedTuple):
    namespace: str
    topic: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.topic}"  # neither half may hold a slash


class NewMessage(Struct, frozen=True):
    """It is a validated message to enqueue. Times: µs since 1970; durations: seconds, or None for
    the broker's default.
    """

    namespace: str
    topic: str
    payload: bytes
    priority: int = 0
    metadata: bytes | None = None  # a JSON object, encoded
    deliver_after_us: int | None = None
    delay: float | None = None  # seconds from now by the shard clock; instead of deliver_after_us
    ttl: float | None = None
    idempotency_key: str | None = None
    max_retries: int | None = None
    lease: float | None = None
    unique_key: str | None = None  # while a message of the topic waits under the same one, its id is the answer


@dataclass(frozen=True, slots=True)
class RequestKey:
    """It is the idempotency key of a whole enqueue: the same request again gives the same ids. `body_hash`: 16 bytes,
    of the request as it came.
    """

    key: str
    body_hash: bytes


class Delivery(Struct, frozen=True):
    """It is a leased message. `attempt` counts from 1; `receipt` fences every settle and extend of this delivery."""

    id: int
    namespace: str
    topic: str
    priority: int
    payload: bytes
    metadata: bytes | None
    deliver_after_us: int
    created_at_us: int
    attempt: int
    max_retries: int
    receipt: str
    lease_expires_at_us: int
    lease_us: int  # the length of the lease when it began


class Settle(Struct, frozen=True):
    """It ends one delivery: ack, nack (retry later), release (as if never delivered), bury (dead letter now) or
    cancel (the message ends).
    """

    id: int
    namespace: str
    topic: str
    kind: Kind
    receipt: str | None = None  # None: of whatever lease is current
    error: str | None = None
    retry_after: float | None = None  # seconds; overrides the backoff
    result: bytes | None = None  # of an ack: to be kept
    result_ttl: float = RESULT_TTL_S  # seconds


def by_namespace(messages: Sequence[NewMessage | Settle]) -> dict[str, int]:
    """Returns how many of them each namespace has; most have one, and a Counter is slow to make."""
    counts: dict[str, int] = {}
    for message in messages:
        counts[message.namespace] = counts.get(message.namespace, 0) + 1
    return counts


class Extend(Struct, frozen=True):
    """It renews a lease, which then ends `lease` seconds from now (None: the message's own lease)."""

    id: int
    namespace: str
    topic: str
    receipt: str | None = None
    lease: float | None = None


@dataclass(frozen=True, slots=True)
class DeadLetter:
    id: int
    namespace: str
    topic: str
    priority: int
    payload: bytes
    metadata: bytes | None
    attempts: int
    error: str | None
    created_at_us: int
    died_at_us: int

    @property
    def weight(self) -> int:
        """How many bytes of a page does it take?"""
        return letter_weight(len(self.payload), len(self.metadata or b""), len((self.error or "").encode()))


def letter_weight(payload: int, metadata: int, error: int) -> int:
    """Returns what a dead letter takes of a page, by the bytes of its parts."""
    return payload + metadata + ERROR_WEIGHT * error


@dataclass(frozen=True, slots=True)
class MessageStatus:
    """`GET /messages/{id}` shows this."""

    id: int
    namespace: str
    topic: str
    state: Literal["ready", "delayed", "leased", "waiting", "dead", "done"]
    priority: int
    attempts: int
    max_retries: int
    payload: bytes
    metadata: bytes | None
    deliver_after_us: int
    created_at_us: int
    error: str | None = None
    cancelling: bool = False  # it is leased, and ends with this delivery
    progress: float | None = None  # 0 to 1, as its handler told
    note: str | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """It is what an acked message left. `receipt`: of its delivery, 12 bytes; of two results, that of the
    later delivery stands.

    `ttl`: seconds from when PostgreSQL has it.
    """

    id: int
    namespace: str
    topic: str
    receipt: bytes
    value: bytes
    ttl: float


@dataclass(frozen=True, slots=True)
class ResultLook:
    """A look finds a `value` where the message is done, else the state it is in; `error` is that of a dead letter."""

    state: Literal["ready", "delayed", "leased", "waiting", "dead", "done"]
    value: bytes = b""
    error: str | None = None


WORKER_UNHEARD_S = 10.0  # a worker that was silent for so long is gone
WORKERS_MAX = 1_000  # of one broker, and in one answer
WORKERS_BYTES_MAX = 32 * 1024 * 1024  # of their reports in one answer
REPORT_MAX = 256 * 1024  # bytes of what one worker tells
RUNNING_MAX = 100  # jobs in it
NOTE_MAX = 200  # characters of a job's note


class WorkerKey(NamedTuple):
    """`namespaces` are those of its topics, sorted."""

    name: str
    namespaces: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class WorkerReport:
    """A worker tells this of itself. `progressing`: messages whose progress is in `text`, which is
    JSON (`wire.Worker`).
    """

    key: WorkerKey
    progressing: tuple[int, ...]
    text: str


Durability = Literal["wal", "postgres"]


class Accepted(NamedTuple):
    """It has the ids in order, and where the messages are: in a broker's log and in Redis (`wal`), or
    committed in PostgreSQL.
    """

    ids: list[int]
    durability: Durability


@dataclass(frozen=True, slots=True)
class Readiness:
    """It is that of one shard. `serves`: would a fetch and an enqueue be served? A Redis that is full refuses only the
    latter, and is no reason to send fetches and settles elsewhere: they make room. `redis`: ok, or why it refuses.
    """

    shard: int
    serves: bool
    mode: Literal["hot", "cold", "apart", "recovering"]
    redis: str
    postgres: bool
    wal: Literal["ok", "full", "broken"]


@dataclass(frozen=True, slots=True)
class TopicStats:
    """`waiting` and `dead` are PostgreSQL's counts plus what Redis holds beyond it; the rest is Redis' own."""

    namespace: str
    topic: str
    shard: int
    ready: int
    delayed: int
    leased: int
    waiting: int
    dead: int
    counters: dict[str, int] = field(default_factory=dict)
