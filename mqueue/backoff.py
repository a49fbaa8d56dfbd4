"""Delays that grow: of retries, and of whoever tries again itself. Pure; the jitter is passed in, in [0, 1)."""

BASE_US = 1_000_000
CAP_US = 3_600_000_000
SPREAD = 0.25


def delay_us(attempts: int, jitter: float, base_us: int = BASE_US, cap_us: int = CAP_US, spread: float = SPREAD) -> int:
    """Delay before the next delivery after `attempts` failed ones (≥ 1): 1 s × 2^(attempts-1), at most 1 h.

    `jitter` in [0, 1) shortens it by up to a quarter (`spread`), so that what failed together does not come back
    together.
    """
    full = min(cap_us, base_us << min(attempts - 1, 32))
    return int(full * (1.0 - jitter * spread))


def pause_s(failed: int, jitter: float, least_s: float, most_s: float) -> float:
    """Seconds to wait after `failed` tries in a row (≥ 1): `least_s`, twice as long each time, at most `most_s`.

    `jitter` decides how much of that it is, from half on: what fell together does not come back together.
    """
    full: float = min(most_s, least_s * 2 ** min(failed - 1, 32))
    return full * (1.0 + jitter) / 2
