"""This decides when a failed call is sent again, and after how long. It is pure; the jitter is passed in."""

from mqueue.errors import InFlight, MQueueError, Unavailable

RETRIES = 3  # after the first attempt
PAUSE_S = 0.2  # before the first retry; doubles
PAUSE_MAX_S = 30.0  # if a broker asks for more, the caller gets the error


def pause_s(failed: int, error: MQueueError, jitter: float) -> float | None:
    """Returns the seconds to wait after `failed` attempts (≥ 1) the last of which raised `error`; None: give up.

    `jitter` in [0, 1) spreads the pause between once and twice its length, never below what the broker asked for.
    """
    if failed > RETRIES or not isinstance(error, Unavailable | InFlight):
        return None
    least = max(PAUSE_S * 2 ** (failed - 1), error.retry_after or 0.0)
    return None if least > PAUSE_MAX_S else least * (1.0 + jitter)
