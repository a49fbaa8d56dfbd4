"""Delays grow with every failure: those of retries, and of whoever tries again itself. The functions are pure; the
jitter, in [0, 1), is passed in.
"""

BASE_US = 1_000_000
CAP_US = 3_600_000_000
SPREAD = 0.25


def delay_us(attempts: int, jitter: float, base_us: int = BASE_US, cap_us: int = CAP_US, spread: float = SPREAD) -> int:
    """Returns the delay before the next delivery after `attempts` failed ones (≥ 1): 1 s × 2^(attempts-1), at most 1 h.

    `jitter` shortens it by up to a quarter (`spread`), so that jobs that failed together do not come back together.
    """
    full = min(cap_us, base_us << min(attempts - 1, 32))
    return int(full * (1.0 - jitter * spread))


def pause_s(failed: int, jitter: float, least_s: float, most_s: float) -> float:
    """Returns the seconds to wait after `failed` tries in a row (≥ 1): `least_s`, twice as long each
    time, at most `most_s`.

    `jitter` chooses between half of that and all of it, so that callers that failed together do not come back together.
    """
    full: float = min(most_s, least_s * 2 ** min(failed - 1, 32))
    return full * (1.0 + jitter) / 2
