"""Faults are what the adapters report upward. None of these reaches a client as it is (`http` turns them into
`Unavailable`).
"""

from mqueue.errors import Unavailable


class Fault(Exception):
    """Something that an adapter reports."""


class EpochEnded(Fault):
    """Redis does not know the epoch this broker works in: another one, or its state is gone."""

    def __init__(self, found: int | None) -> None:
        super().__init__(f"the epoch has ended; Redis says {found}")
        self.found = found


class NodeTaken(Fault):
    """A broker's number was freed, and another one has it now."""


class Overtaken(Fault):
    """A broker's position has moved meanwhile: what was to be replayed is in PostgreSQL, and may have ended there."""


class Refused(EpochEnded):
    """The epoch has ended, and nothing of the batch was applied."""


class Deposed(Fault):
    """A later leader's term stands in the shard."""


class GivesWay(Fault):
    """This broker leads and cannot reach Redis, and another one can."""


class Behind(Fault):
    """Redis has not applied this batch's predecessor: the broker must recover."""


class CacheLost(Fault):
    """Redis did not answer; whether the call took effect is unknown."""


class StoreLost(Fault):
    """PostgreSQL did not answer; whether the transaction took effect is unknown."""


class RowRefused(StoreLost):
    """PostgreSQL refuses what was to be written, not the one who writes: the transaction wrote nothing."""


class RowExists(Fault):
    """A row that was to be new is in PostgreSQL already: the transaction wrote nothing."""


def unavailable(fault: Fault) -> Unavailable:
    """Returns what a client is told."""
    what = "PostgreSQL" if isinstance(fault, StoreLost) else "Redis" if isinstance(fault, CacheLost | EpochEnded) else "a store"
    return Unavailable(f"{what} of this shard cannot be reached: unknown whether this happened", retry_after=1)
