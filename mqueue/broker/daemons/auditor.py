"""The auditor asks whether the ledger adds up: are there as many messages as it says?

A step compares one topic, in one statement and so of one moment, and counts ROWS_MAX of its rows at most. Of a topic
that has more the step knows only that so many are there; `mqueue verify` counts them all.
"""

from mqueue.broker.store.shard import ShardStore

ROWS_MAX = 1_000_000  # that a step counts: some tenths of a second


def drift_of(told: int, counted: int, most: int) -> int:
    """Returns by how many messages a ledger that tells of so many is wrong, at least. `counted` ends at `most`."""
    return abs(told - counted) if counted < most else max(0, counted - told)


class Auditor:
    """Goes from topic to topic. `drift`: what the last whole turn found, None before that."""

    def __init__(self, rows_max: int = ROWS_MAX) -> None:
        self._rows_max = rows_max
        self._after = 0  # id of the last topic looked at
        self._found = 0  # in this turn
        self.drift: int | None = None

    async def look(self, store: ShardStore) -> bool:
        """Compares the next topic. Returns whether there was one: else a turn has ended, and the next call begins
        another. What PostgreSQL does not answer is asked again by the next call.
        """
        line = await store.audit_topic(self._after, self._rows_max)
        if line is None:
            self.drift, self._after, self._found = self._found, 0, 0
            return False
        self._after, told, counted = line
        self._found += drift_of(told, counted, self._rows_max)
        return True
