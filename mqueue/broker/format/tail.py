"""The end of a log is folded by message here. This is pure."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from mqueue.broker.format import entries, log_record, record
from mqueue.broker.format.entries import Settled
from mqueue.broker.format.log_record import LogRecord
from mqueue.broker.format.record import Record


@dataclass(slots=True)
class Told:
    """A message as the log tells it: its latest version, and how it ended (a acked, c cancelled, x dead), if it did."""

    record: Record
    body: bytes
    key_hash: bytes = b""
    body_hash: bytes = b""
    key_expires: int = 0
    key_is_kept: bool = False  # a message's own key, not that of its request
    owner: int = 0  # the message that has the key first: itself, or the first of its request
    error: bytes | None = None
    end: bytes | None = None
    settled: bool = False  # its last lease ended

    def settle(self, state: bytes, version: int, attempts: int, due: int, error: bytes) -> None:
        """Takes an outcome by its version: an older one changes nothing."""
        if version <= self.record.version:
            return
        self.record = self.record._replace(version=version, attempts=attempts, due=due)
        self.end = None if state == b"n" else state
        self.settled = True
        self.error = error or self.error


@dataclass(slots=True)
class Tail:
    """What the end of a log says. `others`: outcomes of messages whose enqueue is not in this tail, the latest of each.
    `last`: its last sequence, 0 for none.
    """

    messages: dict[int, Told] = field(default_factory=dict)
    others: dict[int, Settled] = field(default_factory=dict)
    last: int = 0

    def topics(self) -> set[str]:
        return {t.record.topic for t in self.messages.values()} | {o.topic.decode() for o in self.others.values()}


def fold(log: Iterable[LogRecord]) -> Tail:
    tail = Tail()
    for entry in log:
        tail.last = max(tail.last, entry.sequence)
        if entry.kind == log_record.ENQUEUE:
            before: Told | None = None
            for m in entries.unpack_enqueued(entry.payload):
                told = Told(record.unpack(m.record), m.body)
                if m.key_hash:
                    _, told.body_hash, _, _, told.key_expires, _, kind = record.IDEMPOTENCY.unpack(m.key)
                    told.key_hash, told.key_is_kept, told.owner = m.key_hash, kind == b"u", told.record.id
                elif m.joins and before is not None:
                    told.key_hash, told.owner = before.key_hash, before.owner
                tail.messages[told.record.id] = before = told
        elif entry.kind == log_record.VOID:
            for id in entries.unpack_void(entry.payload):
                tail.messages.pop(id, None)
        elif entry.kind == log_record.OUTCOME:
            for o in entries.unpack_settled(entry.payload):
                told_of = tail.messages.get(o.id)
                if told_of is not None:
                    told_of.settle(o.state, o.version, o.attempts, o.due, o.error)
                elif o.id not in tail.others or tail.others[o.id].version < o.version:
                    tail.others[o.id] = o
    return tail
