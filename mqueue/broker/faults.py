"""Faults are what the adapters report upward. None of these reaches a client as it is (`http` turns them into
`Unavailable`).
"""

from enum import Enum

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


class NoNodeFree(Fault):
    """Every node number belongs to some broker."""


class Overtaken(Fault):
    """A broker's position has moved meanwhile: what was to be replayed is in PostgreSQL, and may have ended there."""


class Refused(EpochEnded):
    """The epoch has ended, and nothing of the batch was applied."""


class Forgotten(EpochEnded):
    """PostgreSQL lacks what it had committed in this epoch."""

    def __init__(self) -> None:
        super().__init__(None)


class Deposed(Fault):
    """A later leader's term stands in the shard."""


class GivesWay(Fault):
    """This broker leads, and another one should: it reaches Redis, which this one does not, or it is its turn."""


class Behind(Fault):
    """Redis has not applied this batch's predecessor: the broker must recover."""


class Refusal(Enum):
    """Why Redis does not do what it is asked. The set is closed: what it may say is mapped to it in
    cache/refusals.py. The value is what /ready and the errors say.
    """

    FULL = "full"  # maxmemory is reached: what is new is refused, all else goes on
    READ_ONLY = "read-only"  # a replica: what it holds may be replaced by what its master has
    LOADING = "loading"
    BUSY = "busy"  # somebody's script runs
    UNSAVED = "unsaved"  # it takes no writes, since it could not save what it has
    NO_REPLICAS = "no-replicas"  # it takes no writes without some
    NO_ACCESS = "no-access"  # a wrong password, or a user that may not do this
    ELSEWHERE = "elsewhere"  # at another node of its cluster
    NO_CLUSTER = "no-cluster"  # of a cluster or a master that is not there
    UNKNOWN_HOST = "unknown-host"  # its name has no address
    UNTRUSTED = "untrusted"  # its certificate is none that is trusted, or is another's
    OTHER = "refusing"
    SILENT = "unreachable"  # it does not answer


# These do not pass by themselves: password, certificate, name or kind of server are not what was configured.
MISCONFIGURED = frozenset({Refusal.NO_ACCESS, Refusal.ELSEWHERE, Refusal.UNKNOWN_HOST, Refusal.UNTRUSTED})


class CacheLost(Fault):
    """Redis cannot be used just now. Where it did not answer, whether the call took effect is unknown."""

    def __init__(self, text: str, kind: Refusal = Refusal.SILENT) -> None:
        super().__init__(text)
        self.kind = kind


class CacheRefused(CacheLost):
    """Redis answered, and refused: nothing took effect."""

    def __init__(self, kind: Refusal, detail: str) -> None:
        super().__init__(detail, kind)


class StoreLost(Fault):
    """PostgreSQL did not answer; whether the transaction took effect is unknown."""


class RowRefused(StoreLost):
    """PostgreSQL refuses what was to be written, not the one who writes: the transaction wrote nothing."""


class RowExists(Fault):
    """A row that was to be new is in PostgreSQL already: the transaction wrote nothing."""


def unavailable(fault: Fault) -> Unavailable:
    """Returns what a client is told."""
    if isinstance(fault, CacheRefused):
        return Unavailable(f"Redis of this shard refuses this: it is {fault.kind.value}", retry_after=1)
    what = "PostgreSQL" if isinstance(fault, StoreLost) else "Redis" if isinstance(fault, CacheLost | EpochEnded) else "a store"
    return Unavailable(f"{what} of this shard cannot be reached: unknown whether this happened", retry_after=1)
