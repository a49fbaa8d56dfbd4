"""On SIGHUP a broker reads its certificates and its secret again; no other setting changes while it runs.

Each is looked at before it counts. What is wrong with one is logged, the old one stays, and the broker goes on.
"""

import asyncio
from collections.abc import Callable, Sequence

import structlog

from mqueue import paths
from mqueue.broker.config import Settings, checked_secret
from mqueue.broker.http import Authenticator, HttpServer
from mqueue.errors import MQueueError

Read = Callable[[], Settings]

logger = structlog.get_logger(__name__)


class Reload:
    """`read()` reads the settings as the start did. `told(secret)` is called after another secret counts."""

    def __init__(
        self, read: Read, secret: str, authenticator: Authenticator, servers: Sequence[HttpServer], told: Callable[[str], None]
    ) -> None:
        self._read = read
        self._secret = secret
        self._authenticator = authenticator
        self._servers = servers
        self._told = told

    async def run(self, asked: asyncio.Event) -> None:
        """Reloads whenever `asked` is set; signals that come meanwhile are one."""
        while True:
            await asked.wait()
            asked.clear()
            await self._once()

    async def _once(self) -> None:
        if all([await self._read_secret(), self._read_certificates()]):
            logger.info("SIGHUP: certificates and secret were read again")

    async def _read_secret(self) -> bool:
        try:
            secret = await asyncio.to_thread(self._find_secret)
        except (MQueueError, ValueError, OSError) as error:
            logger.error("SIGHUP: the secret stays as it was", reason=str(error))
            return False
        if secret != self._secret:
            self._authenticator.change(secret)
            self._secret = secret
            await asyncio.to_thread(self._tell, secret)
            logger.info("another secret counts from now on; tokens of the old one are refused")
        return True

    def _read_certificates(self) -> bool:
        try:
            for server in self._servers:
                server.reload_certificate()
        except OSError as error:  # ssl.SSLError is one
            logger.error("SIGHUP: the certificate stays as it was", reason=str(error))
            return False
        return True

    def _find_secret(self) -> str:
        settings = self._read()
        secret = settings.jwt_secret or paths.read_jwt_secret(settings.data_dir)
        if secret is None:
            raise ValueError(f"there is none in {settings.data_dir / paths.SECRET_FILE}, and JWT_SECRET is not set")
        return checked_secret(secret)

    def _tell(self, secret: str) -> None:
        try:
            self._told(secret)
        except OSError as error:
            logger.error("SIGHUP: the token for this machine could not be written", reason=str(error))
