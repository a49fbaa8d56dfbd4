"""Behind Sentinel, each new connection to Redis asks where the master is.

A failover is nothing special to the broker: the new master has another run id, so the epoch closes.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlencode

from redis.asyncio.connection import Connection, SSLConnection, parse_url
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, ConnectionError, RedisError, ResponseError

from mqueue.broker.cache.refusals import unanswered
from mqueue.broker.faults import Refusal

URL = re.compile(r"(rediss?)\+sentinel://(?:([^@/\s]*)@)?([^@/\s]+)/([^@/\s?]+)(?:\?(\S*))?")
PORT = 26379
OWN = "sentinel_"  # options of the URL that are for the sentinels alone
ASK_TIMEOUT_S = 0.4  # of one: less than any caller's patience, so that two silent ones leave time for a third


class Service(NamedTuple):
    """A service and the sentinels that watch it, written as
    `redis+sentinel://user:password@host:port,host:port/service?option=…`, or `rediss+sentinel://` where all of them
    speak TLS.

    `master`: how to connect to the master; the user before the hosts is its. `sentinels`: how to connect to those: the
    same TLS, and `sentinel_username` and `sentinel_password` of the URL.
    """

    hosts: list[tuple[str, int]]
    name: str
    tls: bool = False
    master: Mapping[str, Any] = {}
    sentinels: Mapping[str, Any] = {}

    @property
    def connection_class(self) -> type[Connection]:
        return MasterTlsConnection if self.tls else MasterConnection


def parse(url: str) -> Service | None:
    """Reads such a URL; returns None for a Redis without Sentinel. Raises ValueError."""
    found = URL.fullmatch(url)
    if found is None:
        return None
    scheme, user, hosts, name, query = found.groups()
    try:
        pairs = parse_qsl((query or "").replace("+", "%2B"), keep_blank_values=True, strict_parsing=bool(query))
    except ValueError:  # its words would show what may be a password
        raise ValueError("the options of a URL of sentinels are like ?ssl_ca_certs=/path&sentinel_password=…") from None
    own = {option.removeprefix(OWN): value for option, value in pairs if option.startswith(OWN)}
    if unknown := own.keys() - {"username", "password"}:
        raise ValueError(f"a URL of sentinels has no option {OWN}{min(unknown)}")
    of_master = urlencode([pair for pair in pairs if not pair[0].startswith(OWN)])
    try:
        master = dict(parse_url(f"{scheme}://{user + '@' if user else ''}of.the.sentinels/?{of_master}"))
    except ValueError as error:
        if not str(error).startswith("Invalid value for"):  # the name of an option; else it may show the password
            error = ValueError("a URL of sentinels: what is special in user or password is percent-encoded")
        raise error from None
    for asked_for in ("host", "port", "connection_class"):
        master.pop(asked_for, None)
    tls = {option: value for option, value in master.items() if option.startswith("ssl_")}
    parts = (host.rpartition(":") for host in hosts.split(","))
    return Service([(host or port, int(port) if host else PORT) for host, _, port in parts], name, scheme == "rediss", master, tls | own)


class Master:
    """Finds out from the sentinels where the master of a service is."""

    def __init__(self, service: Service) -> None:
        self._name = service.name
        self._hosts = ", ".join(f"{host}:{port}" for host, port in service.hosts)
        once = {
            "socket_timeout": ASK_TIMEOUT_S,
            "socket_connect_timeout": ASK_TIMEOUT_S,
            "retry": Retry(NoBackoff(), 0),
            "ssl": service.tls,
        }  # where one fails the next is asked
        try:
            self._sentinel: Any = Sentinel(service.hosts, sentinel_kwargs=once | dict(service.sentinels))  # type: ignore[no-untyped-call]
        except TypeError as error:
            raise ValueError(f"a URL of sentinels has an option that is unknown: {error}") from error
        self.used: tuple[str, int] | None = None  # by the latest connection

    async def find(self) -> tuple[str, int]:
        """Returns where the master is. Raises redis.exceptions.ConnectionError where no sentinel knows one, or what one
        says that refuses.

        One that is not answered, or given up by its caller, begins with another sentinel the next time. The library's
        own way keeps of what they say the text alone, and shows how it connects there, passwords and all.
        """
        sentinels = self._sentinel.sentinels
        first, said = sentinels[0], list[Exception | None]()
        for each in [*sentinels]:
            try:
                masters = await each.sentinel_masters()
            except (RedisError, OSError) as error:
                said.append(error)
                continue
            except BaseException:
                if sentinels[0] is first:
                    sentinels.append(sentinels.pop(0))
                raise
            state = masters.get(self._name)
            if state and self._sentinel.check_master_state(state, self._name):
                sentinels.remove(each)
                sentinels.insert(0, each)
                return str(state["ip"]), int(state["port"])
            said.append(None)
        sentinels.append(sentinels.pop(0))
        raise _why(said) or ConnectionError(f"none of the sentinels {self._hosts} names a master of {self._name}")

    async def has_moved(self) -> bool:
        """Is it another one than the connections were made to?"""
        return self.used is not None and await self.find() != self.used

    async def close(self) -> None:
        for client in self._sentinel.sentinels:
            await client.aclose()


def _why(said: Sequence[Exception | None]) -> Exception | None:
    """Returns what to tell of what the sentinels said: a refusal, or that none of them can be found or trusted."""
    refused = next((error for error in said if isinstance(error, (AuthenticationError, ResponseError))), None)
    if refused is not None:
        return refused
    return said[0] if all(error is not None and unanswered(error) is not Refusal.SILENT for error in said) else None


class _ToMaster(Connection):
    """A connection to whichever server is the master when it connects. `master`: is asked then."""

    def __init__(self, *, master: Master, **more: Any) -> None:
        super().__init__(**more)
        self._master = master

    async def _connect(self) -> None:
        self.host, self.port = await self._master.find()
        await super()._connect()  # type: ignore[no-untyped-call]
        self._master.used = self.host, self.port


class MasterConnection(_ToMaster):
    """One without TLS."""


class MasterTlsConnection(_ToMaster, SSLConnection):
    """One with TLS: the master's certificate must name the address that the sentinels tell."""
