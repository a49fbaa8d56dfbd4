"""The favourite is the broker that should lead a shard: the shards take turns among the brokers that could, so that the
leaders are spread. It is pure.

Anybody leads where nobody else does. A leader that is not the favourite hands over to it, once that has been the same
for SETTLED_S: so a shard moves once in so long, and a broker that starts again and again gets nothing.
"""

from collections.abc import Sequence

from mqueue.broker.store.seats import BrokerRow

ALIVE_S = 2.5  # since the last heartbeat
SETTLED_S = 10.0


def favourite(brokers: Sequence[BrokerRow], shard: int) -> int | None:
    """Returns its node: of those that live, reach Redis, and whose wall clock agrees with PostgreSQL's. None: there is
    none.
    """
    able = sorted(b.node for b in brokers if b.silent_s < ALIVE_S and b.reaches and b.clock_agrees)
    return able[shard % len(able)] if able else None


class Favour:
    """For how long another broker has been the favourite, as the leader `node` sees it."""

    def __init__(self, node: int, now: float) -> None:
        self._node = node
        self._other: int | None = None
        self._since = now

    def is_lost(self, favourite: int | None, now: float) -> bool:
        """Should the leader hand over? `now`: by its monotonic clock."""
        other = None if favourite == self._node else favourite
        if other != self._other:
            self._other, self._since = other, now
        return other is not None and now - self._since >= SETTLED_S
