"""What a transaction enqueues is sent in one go when it has committed, except what was enqueued in a savepoint
that was rolled back.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from django.tasks.base import TaskResult

from mqueue import wire


class Due(NamedTuple):
    message: wire.EnqueueItem
    result: TaskResult


Send = Callable[[list[Due]], None]


class Outbox:
    """It belongs to one transaction and one backend. It is nowhere but among the transaction's hooks,
    and goes where they go.

    Which tasks were rolled back shows only when Django runs the hooks. So each task has two hooks. The first gathers
    it; the rollback of a savepoint around it takes that hook away. The second sends; no rollback takes it away, and
    only the last one of all does send.
    """

    def __init__(self, alias: str, send: Send) -> None:
        self.alias = alias
        self._send = send
        self._gathered: list[Due] = []
        self._last: _Turn | None = None

    def add(self, connection: Any, due: Due) -> None:
        connection.on_commit(partial(self._gathered.append, due))
        self._last = _Turn(self)
        connection.on_commit(self._last)
        around, *_ = connection.run_on_commit[-1]  # the savepoints that would take it away
        around.clear()

    def turn(self, turn: "_Turn") -> None:
        if turn is self._last:
            due, self._gathered[:] = list(self._gathered), []
            if due:
                self._send(due)


class _Turn:
    """Each task has a hook of its own, so that an outbox knows which one it is."""

    def __init__(self, outbox: Outbox) -> None:
        self.outbox = outbox

    def __call__(self) -> None:
        self.outbox.turn(self)


def of(connection: Any, alias: str, send: Send) -> Outbox:
    """Returns the outbox of the transaction that `connection` is in."""
    for _, hook, *_ in reversed(connection.run_on_commit):
        if isinstance(hook, _Turn) and hook.outbox.alias == alias:
            return hook.outbox
    return Outbox(alias, send)
