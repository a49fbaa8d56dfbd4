"""Workers tell this to the broker in memory, and it tells them who is cancelled."""

from collections.abc import Sequence

import msgspec

from mqueue import message as m
from mqueue import wire
from mqueue.clock import Clock
from mqueue.errors import Invalid
from mqueue.schedule import moment


class Told:
    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._workers: dict[str, tuple[wire.Worker, int]] = {}  # by name, and when (µs since 1970)
        self._cancels: list[tuple[int, str]] = []  # of running messages: id, namespace

    def hear(self, worker: wire.Worker) -> None:
        self._workers[worker.name] = worker, self._clock.wall_us()
        if worker.state == "stopped":
            del self._workers[worker.name]

    def workers(self, namespace: str | None) -> list[wire.Worker]:
        since_us = self._clock.wall_us() - int(m.WORKER_UNHEARD_S * 1e6)
        heard = [(worker, us) for _, (worker, us) in sorted(self._workers.items()) if us > since_us]
        return [
            msgspec.structs.replace(worker, seen_at=moment(us))
            for worker, us in heard
            if namespace is None or any(topic.startswith(f"{namespace}/") for topic in worker.topics)
        ]

    def cancel(self, id: int, namespace: str) -> None:
        self._cancels.append((id, namespace))

    def cancelled(self, namespaces: Sequence[str], since: str | None) -> wire.Cancelled:
        """Returns the ids cancelled after `since`. Raises Invalid for a `since` that no answer had."""
        if since is not None and not since.isdecimal():
            raise Invalid("since: give what the last answer had", field="since")
        new = self._cancels[int(since or 0) :]
        return wire.Cancelled(str(len(self._cancels)), [id for id, namespace in new if namespace in namespaces])
