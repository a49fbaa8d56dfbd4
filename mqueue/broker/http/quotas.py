"""Enqueues a minute are counted for each namespace that has a quota, in fixed windows in a storage that all brokers
share.

The quota is a courtesy among tenants, not a promise of the queue: when its storage fails, enqueues go through.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import structlog
from limits import RateLimitItemPerMinute
from limits.aio.strategies import FixedWindowRateLimiter
from limits.storage import storage_from_string

from mqueue.clock import Clock, SystemClock
from mqueue.errors import QuotaExceeded
from mqueue.message import REQUEST_KEY_S, RequestKey

WINDOW_S = 60.0
STORAGE_TIMEOUT_S = 0.5
BLIND_S = 5.0  # after a failure the storage is left alone this long
LOG_EVERY_S = 60.0
PAID_MAX = 10_000  # requests remembered

log = structlog.get_logger(__name__)


class Quotas:
    """Counts enqueues. `quotas`: messages a minute by namespace. `storage`: a URI of the `limits` library, such as
    `async+redis://host:6379`. `options`: of its connections.
    """

    def __init__(
        self, quotas: Mapping[str, int], storage: str, clock: Clock | None = None, *, options: Mapping[str, Any] | None = None
    ) -> None:
        self._limits = {namespace: RateLimitItemPerMinute(count) for namespace, count in quotas.items()}
        self._clock = clock or SystemClock()
        self._blind_until = self._log_after = float("-inf")
        self._paid: OrderedDict[RequestKey, float] = OrderedDict()  # until when, soonest first
        if self._limits:
            backend = storage_from_string(storage, implementation="redispy", key_prefix="mqueue:quota", **(options or {}))
            self._window = FixedWindowRateLimiter(backend)

    async def take(self, counts: Mapping[str, int], request: RequestKey | None = None) -> None:
        """Count these messages by namespace, all or none. Raises QuotaExceeded with the seconds until the window ends.

        A request with a key is counted once, however often it is sent to this broker: the engine enqueues it once.
        Looking and counting are two steps: requests that race for the last places may all be refused.
        """
        if not self._limits:
            return
        limited = {namespace: count for namespace, count in counts.items() if namespace in self._limits}
        if not limited or self._clock.monotonic() < self._blind_until or self._has_paid(request):
            return
        for namespace, count in limited.items():
            if count > (limit := self._limits[namespace].amount):
                raise QuotaExceeded(f"{count} messages at once; namespace {namespace} may enqueue {limit} a minute", retry_after=WINDOW_S)
        try:
            async with asyncio.timeout(STORAGE_TIMEOUT_S):
                refused = await self._take(limited)
                retry_after = await self._seconds_left(refused) if refused else 0.0
        except Exception as error:  # whatever the storage's library raises
            self._storage_failed(error)
            return
        if refused:
            limit = self._limits[refused].amount
            raise QuotaExceeded(f"namespace {refused} may enqueue {limit} messages a minute", retry_after=retry_after)
        if request is not None:
            self._remember(request)

    def _has_paid(self, request: RequestKey | None) -> bool:
        return request is not None and self._clock.monotonic() < self._paid.get(request, float("-inf"))

    def _remember(self, request: RequestKey) -> None:
        self._paid.pop(request, None)
        self._paid[request] = self._clock.monotonic() + REQUEST_KEY_S
        if len(self._paid) > PAID_MAX:
            self._paid.popitem(last=False)

    async def _take(self, counts: Mapping[str, int]) -> str | None:
        """Returns the namespace whose quota does not allow it."""
        for step in (self._window.test, self._window.hit):
            for namespace, count in counts.items():
                if not await step(self._limits[namespace], namespace, cost=count):
                    return namespace
        return None

    async def _seconds_left(self, namespace: str) -> float:
        ends_at = (await self._window.get_window_stats(self._limits[namespace], namespace)).reset_time
        return min(WINDOW_S, max(1.0, ends_at - self._clock.wall_us() / 1e6))

    def _storage_failed(self, error: Exception) -> None:
        now = self._clock.monotonic()
        self._blind_until = now + BLIND_S
        if now >= self._log_after:
            self._log_after = now + LOG_EVERY_S
            log.warning("quotas are not enforced: their storage fails", error=type(error).__name__)
