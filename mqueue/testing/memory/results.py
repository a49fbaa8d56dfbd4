"""The broker in memory keeps what acks have left, each until its time is over."""

from dataclasses import dataclass

from mqueue import message as m
from mqueue import wire
from mqueue.clock import Clock


@dataclass(frozen=True, slots=True)
class Kept:
    """It is a result, and whose it is. Times: µs since 1970."""

    name: m.TopicName
    value: bytes
    stored_us: int
    until_us: int


class Results:
    """They are kept by id alone: in memory nobody else makes up ids."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._kept: dict[int, Kept] = {}

    def keep(self, item: wire.SettleItem, verdict: wire.Verdict) -> None:
        """Keeps the result of an ack. One that is `gone` may repeat an ack whose answer got lost:
        what is there stands.
        """
        if item.result is None or verdict.status == "stale":
            return
        now = self._clock.wall_us()
        ttl = m.RESULT_TTL_S if item.result_ttl is None else item.result_ttl
        kept = Kept(m.TopicName(item.namespace, item.topic), item.result, now, now + int(ttl * 1e6))
        if verdict.status == "ok":
            self._kept[item.id] = kept
        else:
            self._kept.setdefault(item.id, kept)

    def find(self, id: int) -> Kept | None:
        kept = self._kept.get(id)
        return kept if kept is not None and kept.until_us > self._clock.wall_us() else None
