"""This carries requests by aiohttp: for a way to the broker that the lean session does not get along with, and for a
test that holds the two against each other.
"""

import ssl
from typing import Any

import aiohttp
from yarl import URL

from mqueue.client import protocol
from mqueue.client.http1 import Broken, Reply
from mqueue.client.protocol import Call


class Session:
    """It does what `lean_aio.Session` does."""

    def __init__(self, url: str, token: str | None, connections: int, tls: ssl.SSLContext | None) -> None:
        self._url = url
        self._tls = tls or True
        connector = aiohttp.TCPConnector(limit=connections)
        authorization = {"Authorization": f"Bearer {token}"} if token else {}
        self._session = aiohttp.ClientSession(connector=connector, headers=authorization, cookie_jar=aiohttp.DummyCookieJar())
        self._session._retry_connection = False  # else aiohttp repeats a GET whose connection breaks; a fetch would lease twice

    @property
    def closed(self) -> bool:
        return self._session.closed

    async def send(self, call: Call[Any], timeout: float) -> Reply:
        url = URL(self._url + call.path, encoded=True)
        limits = aiohttp.ClientTimeout(total=timeout, sock_connect=protocol.CONNECT_S)
        try:
            async with self._session.request(
                call.method, url, data=call.body, headers=call.headers, timeout=limits, allow_redirects=False, ssl=self._tls
            ) as reply:
                return Reply(reply.status, reply.headers, await reply.read())
        except aiohttp.ClientError as error:
            raise Broken(str(error) or type(error).__name__) from error

    async def close(self) -> None:
        await self._session.close()
