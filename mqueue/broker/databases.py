"""A broker enters the databases of its shards: it brings them to the present schema, and gets its number there.

It starts with those that it reaches, and enters the others once they are there: each is tried again, with pauses that
grow. Two things must be known before anything is served. Its number: a broker that never had one gets it in shard 0,
since all do, so that no two have the same. Which shard has which topic: that is written in shard 0; each start keeps a
copy in the data dir, which serves while shard 0 is away. Where no database answers, the broker does not start: a wrong
setting looks the same, and whoever started it must hear of it.
"""

import asyncio
import json
import random
from collections.abc import Sequence
from pathlib import Path

import structlog

from mqueue.backoff import pause_s
from mqueue.broker.config import ConfigError
from mqueue.broker.faults import Fault, NodeTaken, NoNodeFree, StoreLost
from mqueue.broker.store.migrate import NotReached, migrate_shard
from mqueue.broker.store.seats import Registered
from mqueue.broker.store.shard import ShardStore
from mqueue.broker.wal.identity import Identity
from mqueue.errors import MQueueError
from mqueue.paths import write_private

AGAIN_S, AGAIN_MAX_S = 0.5, 10.0
SLOTS_FILE = "slot-map.json"

logger = structlog.get_logger(__name__)


class Databases:
    """`away`: the shards that are still to be entered."""

    def __init__(self, stores: Sequence[ShardStore], identity: Identity, data_dir: Path) -> None:
        self._stores = stores
        self._identity = identity
        self._slots_file = data_dir / SLOTS_FILE
        self._slots: list[int] = []
        self.away: set[int] = set()

    async def enter_all(self) -> list[int]:
        """Enters those that are there. Returns the slot map. Raises MQueueError where the broker cannot start."""
        failed: MQueueError | None = None
        for store in self._stores:
            try:
                await self._enter(store)
            except (NotReached, StoreLost) as error:
                failed = error if isinstance(error, NotReached) else NotReached(f"shard {store.number}: {error}")
                if store.number == 0:
                    self._may_do_without_first(failed)
                self.away.add(store.number)
                logger.error("started without a shard, which is tried again", shard=store.number, reason=failed.detail)
        if failed is not None and len(self.away) == len(self._stores):
            raise failed
        return self._slots

    async def until_entered(self, number: int) -> Registered:
        """Enters one that was away, as soon as it is there. Raises SlotsDiffer."""
        tries = 0
        while True:
            tries += 1
            await asyncio.sleep(pause_s(tries, random.random(), AGAIN_S, AGAIN_MAX_S))
            try:
                registered = await self._enter(self._stores[number])
            except SlotsDiffer:
                raise
            except (Fault, MQueueError) as error:
                reason = error.detail if isinstance(error, MQueueError) else str(error)
                logger.warning("a shard is still away", shard=number, tries=tries, reason=reason)
                continue
            self.away.discard(number)
            logger.info("a shard that was away is there", shard=number)
            return registered

    async def _enter(self, store: ShardStore) -> Registered:
        for line in await asyncio.to_thread(migrate_shard, store.number, store.url):
            logger.info("migrated", what=line)
        shards = len(self._stores)
        await store.open()
        await _check_safety(store)
        await store.create(shards)
        row = await store.row()  # looked at before the next one is begun: a refusal changes nothing
        if (row.number, row.shards) != (store.number, shards):
            raise ConfigError(
                f"shard {store.number}: this database is shard {row.number} of {row.shards}, but {shards} are configured: "
                f"give the {row.shards} in their order. Their number is fixed at the first start; for another begin with empty databases"
            )
        if store.number == 0:
            self._take_slots(await store.slot_map(shards))
        identity = self._identity
        try:
            registered = await store.register_broker(identity.uuid, identity.node)
        except NodeTaken as taken:
            raise ConfigError(f"{taken}: {identity.directory} was retired; give this broker an empty WAL directory") from taken
        except NoNodeFree as full:
            raise ConfigError(
                f"{full}. Free that of a broker that never comes back: mqueue wal retire DIR, or, where its directory is lost, "
                "mqueue wal retire --node NUMBER"
            ) from full
        identity.set_node(registered.node)
        identity.begin_after(max(registered.position, registered.started), registered.id_floor_ms)
        return registered

    def _take_slots(self, slots: list[int]) -> None:
        if self._slots and slots != self._slots:
            raise SlotsDiffer("topics were moved to other shards while shard 0 was away: start this broker again")
        self._slots = slots
        write_private(self._slots_file, json.dumps(slots))

    def _may_do_without_first(self, error: MQueueError) -> None:
        """Reads the copy of the slot map. Raises the error where there is none, or this broker has no number."""
        try:
            self._slots = json.loads(self._slots_file.read_text())
        except (OSError, ValueError):
            raise error from None
        if self._identity.node is None or max(self._slots) >= len(self._stores):
            raise error


class SlotsDiffer(ConfigError):
    """The copy of the slot map is not what shard 0 has."""


async def _check_safety(store: ShardStore) -> None:
    """Refuses a server that forgets what it said to be committed."""
    syncs, whole_pages = await store.safety()
    if not syncs:
        raise ConfigError(f"shard {store.number}: PostgreSQL runs with fsync=off and may lose what it has committed: set fsync=on, reload it")
    if not whole_pages:  # right where the file system never tears a page, as ZFS
        logger.warning("full_page_writes is off: unless the file system never tears a page, a crash may destroy data", shard=store.number)
