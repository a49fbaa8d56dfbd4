"""This carries requests by urllib3: for a way to the broker that the lean pool does not get along with, and for a test
that holds the two against each other. It has no limit of connections, and keeps so many open.
"""

import ssl
from typing import Any
from urllib.parse import urlsplit

import urllib3

from mqueue.client import protocol
from mqueue.client.http1 import Broken, Reply
from mqueue.client.protocol import Call


class Pool:
    """It does what `lean_sync.Pool` does."""

    def __init__(self, url: str, token: str | None, connections: int, tls: ssl.SSLContext | None) -> None:
        self._prefix = urlsplit(url).path
        self._authorization = {"Authorization": f"Bearer {token}"} if token else {}
        context = {"ssl_context": tls} if tls is not None else {}
        self._pool = urllib3.connection_from_url(url, maxsize=connections, **context)

    def send(self, call: Call[Any], timeout: float) -> Reply:
        try:
            reply = self._pool.urlopen(
                call.method,
                self._prefix + call.path,
                body=call.body,
                headers={**call.headers, **self._authorization},
                timeout=urllib3.Timeout(connect=min(protocol.CONNECT_S, timeout), read=timeout, total=timeout),
                retries=False,
                redirect=False,
            )
        except urllib3.exceptions.HTTPError as error:
            raise Broken(str(error)) from error
        return Reply(reply.status, reply.headers, reply.data)

    def close(self) -> None:
        self._pool.close()
