"""Can this worker claim work? That is known from the polls that the broker answers, and from a check where none was
answered for a while.

A poll that waits tells nothing for 20 s, and a worker whose slots are all busy does not poll: both are checked on every
CHECK_S. The check is a poll that asks for nothing (the token, the way there) and the broker's own `/ready` (the shards
behind it). It does not count while polls fail: then the next answered poll is what says that work can be claimed again.

A connection that the network has forgotten would be waited on for long, and a pool has several of them: after a check
without an answer the next one takes a new connection at once. If that is answered, what is under way on the old ones is
given up. (An answer that says what is wrong, a shard that recovers say, has come over a good connection.)
"""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from mqueue import wire
from mqueue.clock import Clock
from mqueue.worker.polling.fetcher import Poll
from mqueue.worker.traces import summary

CHECK_S = 2.0  # after the last answer
AGAIN_S = 1.0  # after a check that failed
CHECK_TIMEOUT_S = 2.0
DOUBT_S = 5.0  # without an answer: the polls that wait are given up
SILENT_S = 7.0  # without an answer: no longer ready

log = structlog.get_logger("mqueue.worker")


class Reach:
    """It knows whether the broker answers.

    `check()` gives what is wrong, or None; `renew()`: later calls take new connections; `doubt()` gives up those that
    are under way; `resume()`: there are good answers again. `problem` may be called from any thread.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._good_at: float | None = None
        self._failing = False
        self._reason = "no poll has been answered yet"

    def watched(self, poll: Poll) -> Poll:
        """Wraps `poll`, so that its answers are noted."""

        async def noted(request: wire.Poll) -> wire.Polled:
            try:
                polled = await poll(request)
            except Exception as error:
                if request.settle:  # the error may be about one of the settles; a fetch without any follows
                    raise
                self._failing, self._reason = True, summary(error)
                raise
            self._failing = False
            self._good()
            return polled

        return noted

    def problem(self) -> str | None:
        """Says why no work can be claimed, or None."""
        if self._good_at is None:
            return self._reason
        silent = self._clock.monotonic() - self._good_at
        return f"no poll answered for {silent:.0f} s: {self._reason}" if silent >= SILENT_S else None

    async def keep(
        self,
        check: Callable[[], Awaitable[str | None]],
        renew: Callable[[], None],
        doubt: Callable[[], Awaitable[None]],
        resume: Callable[[], None],
    ) -> None:
        """Checks now and then, until cancelled."""
        began = self._clock.monotonic()
        failed = unanswered = 0  # checks in a row
        while True:
            since = self._clock.monotonic() - (began if self._good_at is None else self._good_at)
            if since < CHECK_S and self._good_at is not None:
                await asyncio.sleep(CHECK_S - since)
                continue
            answered, wrong = await self._ask(check)
            if not answered or unanswered:  # the calls made in this silence, too, may have connections that lead nowhere
                renew()
            if (answered and unanswered) or (not answered and since >= DOUBT_S):
                await doubt()
            unanswered = 0 if answered else unanswered + 1
            if wrong is None:
                if failed:
                    log.info("the broker answers checks again", failed=failed)
                    resume()
                failed = 0
                if not self._failing:
                    self._good()
                    continue
            else:
                failed += 1
                self._reason = wrong
                if failed == 1:
                    log.warning("no good answer to a check", error=wrong)
                if unanswered == 1:
                    continue
            await asyncio.sleep(CHECK_S if wrong is None else AGAIN_S)

    async def _ask(self, check: Callable[[], Awaitable[str | None]]) -> tuple[bool, str | None]:
        """Was there an answer, whatever it says? The second value is what is wrong, or None."""
        try:
            async with asyncio.timeout(CHECK_TIMEOUT_S):
                return True, await check()
        except TimeoutError:
            return False, f"the broker did not answer a check within {CHECK_TIMEOUT_S:g} s"
        except Exception as error:
            return False, summary(error)

    def _good(self) -> None:
        self._good_at, self._reason = self._clock.monotonic(), "the broker does not answer"


def fetchable(shards: wire.Ready) -> str | None:
    """Says what keeps a fetch from being served, or None. A full log or Redis does not: they stop enqueues only."""
    for shard in shards.shards:
        if shard.mode not in ("hot", "cold"):
            return f"the broker's shard {shard.shard} is {shard.mode}"
        store, state = ("Redis", shard.redis) if shard.mode == "hot" else ("PostgreSQL", shard.postgres)
        if state not in ("ok", "full"):
            return f"the broker's shard {shard.shard}: {store} is {state}"
    return None
