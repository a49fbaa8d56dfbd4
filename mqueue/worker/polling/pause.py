"""Something that failed is left alone for a while."""

from dataclasses import dataclass

from mqueue import backoff

PAUSE_S = 0.1
PAUSE_MAX_S = 3.0
PAUSE_ASKED_MAX_S = 30.0  # as long as the broker may ask for


@dataclass(slots=True)
class Pause:
    """It lasts until `until` (loop time), which is later the more often it has failed in a row."""

    failed: int = 0
    until: float = 0.0
    trying: bool = False  # a try is under way

    def extend(self, now: float, asked: float | None, jitter: float) -> None:
        self.failed += 1
        self.until = now + pause_s(self.failed, asked, jitter)


def pause_s(failed: int, asked: float | None, jitter: float) -> float:
    """Gives seconds after `failed` (≥ 1) failures in a row. `asked`: the broker's Retry-After, `jitter` in [0, 1)."""
    return max(backoff.pause_s(failed, jitter, PAUSE_S, PAUSE_MAX_S), min(asked or 0.0, PAUSE_ASKED_MAX_S))
