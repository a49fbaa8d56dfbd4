"""After each step that can change the answer: would each acknowledged message survive losing Redis and all page caches
now?

It would when PostgreSQL has it, or the durable part of a log beyond the position flushed. Asked after every
transaction, every file that goes, every acknowledgement; nothing else can make it untrue.
"""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from mqueue.broker.format import entries, log_record, record
from mqueue.broker.wal.frame import decode
from mqueue.broker.wal.segment import HEADER_SIZE, Header

from .cache import SHARD
from .disk import File

if TYPE_CHECKING:
    from .broker import SimBroker
    from .world import World

UNWELL_S = 12.0  # so long a fault may keep a broker from a recovery

# The shard's life; per broker node, position, epoch confirmed; what messages and dead letters are there.
STATE = b"""SELECT (SELECT json_build_array(epoch, mode) FROM shard),
  (SELECT coalesce(json_agg(json_build_array(node, position, replayed) ORDER BY node), '[]') FROM broker),
  (SELECT coalesce(json_agg(convert_from(payload, 'UTF8')), '[]')
   FROM (SELECT payload FROM message UNION ALL SELECT payload FROM dead_letter) p)"""


class Entry(NamedTuple):
    sequence: int
    kind: int
    told: dict[int, int]  # id → token of enqueues; id → first byte of the state of outcomes, and attempts above it; id → 0 of voids


class Read:
    """A segment as far as it has been read."""

    def __init__(self) -> None:
        self.offset = HEADER_SIZE
        self.entries: list[Entry] = []


class Checker:
    def __init__(self, world: "World") -> None:
        self._world = world
        self._reads: dict[int, tuple[File, Read]] = {}
        self.epoch = 0
        self.mode = ""
        self.looks = 0
        self._lost_power: set[SimBroker] = set()

    # -- the logs ------------------------------------------------------------------------------------------------------

    def _entries(self, broker: "SimBroker") -> Iterable[Entry]:
        for name, file in broker.disk.durable(broker.directory / f"shard-{SHARD}").items():
            if name.endswith(".wal") and len(file.synced) >= HEADER_SIZE:
                yield from self._read(file)

    def _read(self, file: File) -> list[Entry]:
        kept, read = self._reads.setdefault(id(file), (file, Read()))
        assert kept is file
        data = file.synced
        if read.offset > len(data):
            read.offset, read.entries = HEADER_SIZE, []
        if read.offset < len(data):
            seed = Header.decode(data[:HEADER_SIZE], self._world.folder).seed
            while (frame := decode(data, read.offset, seed)) is not None:
                read.offset = frame.end
                read.entries.append(_entry(frame.record.sequence, frame.record.kind, frame.record.payload))
        return read.entries

    def logged(self, positions: dict[int, int]) -> set[int]:
        """Tokens that a replay of all logs would bring."""
        tokens: dict[int, int] = {}
        void: set[int] = set()
        for broker in self._world.brokers:
            for entry in self._entries(broker):
                if entry.sequence > positions.get(broker.node, 0):
                    if entry.kind == log_record.ENQUEUE:
                        tokens |= entry.told
                    elif entry.kind == log_record.VOID:
                        void |= entry.told.keys()
        return {token for id, token in tokens.items() if id not in void}

    def lost_power(self, broker: "SimBroker") -> None:
        """Settles it was told of, and its disk was not."""
        self._lost_power.add(broker)
        logged = self._ended(broker)
        for all_told in self._world.history.told.values():
            for told in all_told:
                if told.broker is broker and not told.is_final and told.outcome not in logged:
                    told.log_lost = True

    def _ended(self, broker: "SimBroker") -> set[tuple[int, str, int]]:
        """The settles that its disk was told of: id, kind, and of a nack the attempt that it ended."""
        outcomes = [(id, *divmod(state, 256)) for e in self._entries(broker) if e.kind == log_record.OUTCOME for id, state in e.told.items()]
        ended = {
            ord("a"): ("ack",),
            ord("c"): ("cancel", "release", "bury", "nack"),  # of one that was to be cancelled all of these are its end
            ord("x"): ("bury", "nack"),
            ord("n"): ("nack",),
        }
        return {
            (id, kind, (attempts + (state == ord("c"))) if kind == "nack" else 0)
            for id, attempts, state in outcomes
            for kind in ended.get(state, ())
        }

    def went_back(self) -> None:
        """PostgreSQL forgot: what it had of these settles only the logs have now. Where a log was full they had waited
        for PostgreSQL alone, and so had the repeats of enqueues that a full log refused.
        """
        world = self._world
        logged = {broker: self._ended(broker) for broker in world.brokers}
        found = world.postgres.own.execute(STATE).fetchone()
        assert found is not None
        positions = {node: position for node, position, _ in found[1]}
        for all_told in world.history.told.values():
            for told in all_told:
                if positions.get(told.node, 0) < told.bound:
                    told.is_final = False
                    told.log_lost = told.log_lost or told.outcome not in logged[told.broker]
        stored, durable = {int(payload) for payload in found[2]}, self._durable(world.brokers)
        refused = {broker.node for broker in world.brokers if broker.disk.refused}
        for job in world.history.jobs.values():
            never_logged = durable.isdisjoint(job.ids) and any(id >> 12 & 1023 in refused for id in job.ids)
            if job.key is not None and job.token not in stored and never_logged:
                job.forgotten = job.key_excused = True
        world.history.cancelling.clear()  # who was to be cancelled stood there alone

    # -- a look --------------------------------------------------------------------------------------------------------

    def look(self, why: str, postgres: Sequence[int] = ()) -> None:
        """`postgres`: tokens that must be in PostgreSQL, by what a client was told."""
        self.looks += 1
        world = self._world
        found = world.postgres.own.execute(STATE).fetchone()
        assert found is not None
        shard, brokers, payloads = found
        stored = {int(payload) for payload in payloads}
        positions = {node: position for node, position, _ in brokers}
        if shard is not None and shard[1] != "recovering" and tuple(shard) != (self.epoch, self.mode):
            self.epoch, self.mode = shard
            self._opened({node: replayed for node, _, replayed in brokers})
        replaying = shard is not None and shard[1] == "recovering"  # then positions move past what a log has lost
        for all_told in world.history.told.values():
            for told in all_told:
                passed = positions.get(told.node, 0) >= told.bound
                told.is_final = told.is_final or (passed and not (told.log_lost and replaying))
        must = {job.token for job in world.history.jobs.values() if job.ids and not (job.open_acks or job.forgotten or self._may_expire(job))}
        missing = must - stored
        if missing:
            missing -= self.logged(positions)
        if missing:
            world.fail(f"lost ({why}): {[(t, [hex(i) for i in world.history.jobs[t].ids]) for t in sorted(missing)]}")
        if gone := must.intersection(postgres) - stored:
            world.fail(f"said to be in PostgreSQL, and not there: {gone}")

    def _may_expire(self, job: object) -> bool:
        ttl, sent_at = job.ttl, job.sent_at  # type: ignore[attr-defined]
        if ttl is None:
            return False
        return self._world.history.clocks_jumped or self._world.loop.time() > sent_at + ttl / 2

    def _opened(self, replayed: dict[int, int]) -> None:
        """A new epoch: whose log was not there for it?"""
        world = self._world
        world.count("epochs")
        world.count(f"epochs {self.mode}")
        world.tell("world", f"epoch {self.epoch} is open, {self.mode}; replayed {replayed}")
        absent = {broker for broker in world.brokers if replayed.get(broker.node, 0) < self.epoch}
        for broker in absent:
            if world.loop.time() - broker.unwell_at > UNWELL_S:
                world.fail(f"epoch {self.epoch} is open without {broker.name}, which is well")
        for all_told in world.history.told.values():
            for told in all_told:
                if not told.is_final and (told.log_lost or told.broker in absent):
                    told.excused = True
        if absent:  # whoever comes late may bring them
            world.history.cancelling.clear()
        unlogged = self._unlogged()
        for job in world.history.jobs.values():
            if job.key is not None and (job.whole or absent or not unlogged.isdisjoint(job.delivered)):
                job.key_excused = True

    def _durable(self, brokers: Sequence["SimBroker"]) -> set[int]:
        """The ids that their logs have had. What was read of segments that are gone counts, too: they went because all
        of it was flushed, keys and all.
        """
        for broker in brokers:
            list(self._entries(broker))
        return {id for _, read in self._reads.values() for e in read.entries if e.kind == log_record.ENQUEUE for id in e.told}

    def _unlogged(self) -> set[int]:
        """Gives the ids that were delivered, though their enqueue was never answered and is in no log: Redis had
        applied it, the power went before the disk had it, or the disk refused it. When Redis is lost, too, nobody
        knows of them, nor of their keys.
        """
        short = [broker for broker in self._world.brokers if broker in self._lost_power or broker.disk.refused]
        durable = self._durable(short)
        nodes = {broker.node for broker in short}
        answered = {id for job in self._world.history.jobs.values() for id in job.ids}
        return {id for id in self._world.history.held if id >> 12 & 1023 in nodes} - durable - answered


def _entry(sequence: int, kind: int, payload: bytes) -> Entry:
    if kind == log_record.ENQUEUE:
        messages = entries.unpack_enqueued(payload)
        return Entry(sequence, kind, {int.from_bytes(m.record[record.ID]): int(record.open_body(m.body).payload) for m in messages})
    if kind == log_record.OUTCOME:
        return Entry(sequence, kind, {o.id: o.attempts * 256 + o.state[0] for o in entries.unpack_settled(payload)})
    return Entry(sequence, kind, dict.fromkeys(entries.unpack_void(payload), 0))
