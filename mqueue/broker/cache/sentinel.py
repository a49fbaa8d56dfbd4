"""Behind Sentinel, each new connection to Redis asks where the master is.

A failover is nothing special to the broker: the new master has another run id, so the epoch closes.
"""

import re
from typing import Any, NamedTuple

from redis.asyncio.connection import Connection
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff

SCHEME = "redis+sentinel://"
PORT = 26379
ASK_TIMEOUT_S = 0.4  # of one: less than any caller's patience, so that two silent ones leave time for a third


class Service(NamedTuple):
    """A service and the sentinels that watch it, written as `redis+sentinel://host:port,host:port/service`."""

    hosts: list[tuple[str, int]]
    name: str


def parse(url: str) -> Service | None:
    """Reads such a URL; returns None for a Redis without Sentinel."""
    found = re.fullmatch(rf"{re.escape(SCHEME)}([^/\s]+)/([^/\s?]+)", url)
    if found is None:
        return None
    parts = (host.rpartition(":") for host in found[1].split(","))
    return Service([(host or port, int(port) if host else PORT) for host, _, port in parts], found[2])


class Master:
    """Finds out from the sentinels where the master of a service is."""

    def __init__(self, service: Service) -> None:
        self._name = service.name
        once = {
            "socket_timeout": ASK_TIMEOUT_S,
            "socket_connect_timeout": ASK_TIMEOUT_S,
            "retry": Retry(NoBackoff(), 0),
        }  # where one fails the next is asked
        self._sentinel: Any = Sentinel(service.hosts, sentinel_kwargs=once)  # type: ignore[no-untyped-call]
        self.used: tuple[str, int] | None = None  # by the latest connection

    async def find(self) -> tuple[str, int]:
        """Returns where the master is. Raises redis.exceptions.ConnectionError where no sentinel knows one.

        One that is not answered, or given up by its caller, begins with another sentinel the next time.
        """
        sentinels = self._sentinel.sentinels
        first = sentinels[0]
        try:
            host, port = await self._sentinel.discover_master(self._name)
        except BaseException:
            if sentinels[0] is first:
                sentinels.append(sentinels.pop(0))
            raise
        return str(host), int(port)

    async def has_moved(self) -> bool:
        """Is it another one than the connections were made to?"""
        return self.used is not None and await self.find() != self.used

    async def close(self) -> None:
        for client in self._sentinel.sentinels:
            await client.aclose()


class MasterConnection(Connection):
    """A connection to whichever server is the master when it connects. `master`: is asked then."""

    def __init__(self, *, master: Master, **more: Any) -> None:
        super().__init__(**more)
        self._master = master

    async def _connect(self) -> None:
        self.host, self.port = await self._master.find()
        await super()._connect()  # type: ignore[no-untyped-call]
        self._master.used = self.host, self.port
