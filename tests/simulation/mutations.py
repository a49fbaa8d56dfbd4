"""Rules taken away, one at a time: the simulation must notice each. What it cannot notice it does not test.

A mutation says which faults bring it out, since few seeds have them all. Not here: rules that another one stands behind
(a script of an ended epoch names the wrong predecessor; a leader without its lock has lost its connection too), and
those of the frontier, which tests/integration/test_order_machine.py is for.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple
from unittest.mock import patch

from mqueue.broker.cache import scripts
from mqueue.broker.commit.committer import Committer
from mqueue.broker.daemons import epoch, flusher
from mqueue.broker.store import replay, write
from mqueue.broker.store.leader.store import LeaderStore
from mqueue.broker.store.queries import sql
from mqueue.broker.wal.identity import Identity
from mqueue.broker.wal.log import ShardLog
from mqueue.broker.wal.segment import Writer

from .cache import Redis, SimCache
from .disk import ForgetfulDisk

SEEDS = 40
POWER = ("power_loss", "redis_forgets")


class Mutation(NamedTuple):
    """`breaks`: what to replace; given the server, whose scripts it may change."""

    name: str
    faults: Sequence[str]
    breaks: Callable[[Redis, ExitStack], object]


def _replace(owner: Any, name: str, by: Any) -> Callable[[Redis, ExitStack], object]:
    return lambda redis, stack: stack.enter_context(patch.object(owner, name, by))


def _script(name: str, old: str, new: str) -> Callable[[Redis, ExitStack], object]:
    def breaks(redis: Redis, stack: ExitStack) -> None:
        own = (scripts.FOLDER / f"{name}.lua").read_text()
        assert own in redis.library.body and old in own, f"{name}.lua has no {old!r}"
        mutant = scripts.library(redis.library.body.replace(own, own.replace(old, new)))
        redis.client.function_load(mutant.text, replace=True)
        stack.enter_context(patch.object(redis, "library", mutant))

    return breaks


def _statement(module: Any, name: str, old: bytes, new: bytes) -> Callable[[Redis, ExitStack], object]:
    assert old in sql(name), f"{name}.sql has no {old!r}"
    return _replace(module, "sql", lambda asked: sql(asked).replace(old, new) if asked == name else sql(asked))


def _never_raise_start(identity: Identity, **fields: int) -> None:
    if "start_count" in fields and identity.start_count > 0:
        return
    CHANGE(identity, **fields)


def _both(*breaks: Callable[[Redis, ExitStack], object]) -> Callable[[Redis, ExitStack], object]:
    return lambda redis, stack: [one(redis, stack) for one in breaks]


async def _nothing(*args: Any) -> list[Any]:
    return []


def _first_unknown(pages: Any) -> Any:
    batch, *others = GATHER(pages)
    batch.first = 0
    return batch, *others


GATHER = flusher.gather
CHANGE = Identity._change
REMOVE = ShardLog.remove_flushed
RUN_IDS_ARE_EQUAL = staticmethod(lambda row, reached: row.mode == "hot" and reached is not None and reached.epoch == row.epoch)
NO_RUN_ID = _replace(SimCache, "connect", lambda cache: None)

MUTATIONS = (
    Mutation("acknowledge before the fsync", POWER, _replace(Writer, "sync", lambda writer: None)),
    Mutation("no fsync of a directory", POWER, _replace(ForgetfulDisk, "sync_directory", lambda disk, path: None)),
    Mutation("outcomes are not logged", ("redis_forgets",), _replace(Committer, "_log_outcomes", lambda *args: True)),
    Mutation(
        "a late replay announces nothing", ("redis_forgets", "kill"), _statement(replay, "put_arrivals", b"WHERE id", b"WHERE false AND id")
    ),
    Mutation("an epoch opens before the brokers have replayed", ("redis_forgets",), _replace(epoch.Epochs, "_behind", _nothing)),
    Mutation("the dirty list is trimmed too far", ("kill", "redis_forgets"), _script("flush_done", "<= up_to do", "<= up_to + 2 do")),
    Mutation("numbers are used again after a start", ("kill", "power_loss"), _replace(Identity, "_change", _never_raise_start)),
    Mutation("the pruner does not ask Redis", ("disk_slow",), _replace(SimCache, "known", _nothing)),
    Mutation("a rolled-back Redis goes on", ("redis_goes_back",), _both(_replace(epoch.Epochs, "goes_on", RUN_IDS_ARE_EQUAL), NO_RUN_ID)),
    Mutation(
        "a replay forgets idempotency keys", ("redis_forgets",), _statement(write, "keep_keys", b"::bytea[])\nON", b"::bytea[]) LIMIT 0\nON")
    ),
    Mutation(
        "segments go before they are flushed", POWER, _replace(ShardLog, "remove_flushed", lambda log, position, now: REMOVE(log, 2**62, now))
    ),
    Mutation("a new epoch runs what was to be cancelled", ("redis_forgets",), _replace(LeaderStore, "_cancel_requested", _nothing)),
    Mutation("a flush goes on past a forgotten one", ("postgres_goes_back",), _replace(flusher, "gather", _first_unknown)),
    Mutation("a flush does not move the positions", ("redis_forgets",), _replace(write, "move_positions", _nothing)),
)


@contextmanager
def broken(mutation: Mutation, redis: Redis) -> Iterator[None]:
    with ExitStack() as stack:
        mutation.breaks(redis, stack)
        yield
