"""In a test, handles ask the test for a job's state, result and end."""

import math
from typing import Protocol

from mqueue import message as m
from mqueue import wire
from mqueue.errors import Pending


class Asked(Protocol):
    def state_of(self, id: int) -> wire.Status | None:
        """Returns its state; None where nothing is known of it."""
        ...

    def result_of(self, id: int) -> bytes:
        """Returns its result. Raises Pending, JobFailed, NotFound."""
        ...

    def cancel(self, id: int) -> wire.Cancel: ...

    def dead_letters(self, topic: str, *, namespace: str, limit: int, after: int) -> list[wire.DeadItem]: ...


class Answers:
    """It stands in for a Client, for handles and Django's results. Nobody waits, since nothing would come meanwhile:
    the time is over at once.
    """

    def __init__(self, asked: Asked) -> None:
        self._asked = asked

    def message(self, id: int) -> wire.Status | None:
        return self._asked.state_of(id)

    def cancel(self, id: int) -> wire.Cancel:
        return self._asked.cancel(id)

    def dead_letters(self, topic: str, *, namespace: str = m.DEFAULT_NAMESPACE, limit: int = 100, after: int = 0) -> list[wire.DeadItem]:
        return self._asked.dead_letters(topic, namespace=namespace, limit=limit, after=after)

    def result(
        self, id: int, *, topic: str | None = None, namespace: str = m.DEFAULT_NAMESPACE, wait: float = 0.0, within: float = math.inf
    ) -> bytes:
        """A job that has not run raises Pending for who does not wait, TimeoutError for who would wait for so long,
        RuntimeError for who would wait for ever. Raises JobFailed, NotFound.
        """
        try:
            return self._asked.result_of(id)
        except Pending as early:
            if wait <= 0:
                raise
            ends = RuntimeError if within == math.inf else TimeoutError
            raise ends(f"{early.detail}: it runs when the test calls drain()") from None


class AsyncAnswers:
    def __init__(self, asked: Asked) -> None:
        self._answers = Answers(asked)

    async def message(self, id: int) -> wire.Status | None:
        return self._answers.message(id)

    async def cancel(self, id: int) -> wire.Cancel:
        return self._answers.cancel(id)

    async def dead_letters(self, topic: str, *, namespace: str = m.DEFAULT_NAMESPACE, limit: int = 100, after: int = 0) -> list[wire.DeadItem]:
        return self._answers.dead_letters(topic, namespace=namespace, limit=limit, after=after)

    async def result(
        self, id: int, *, topic: str | None = None, namespace: str = m.DEFAULT_NAMESPACE, wait: float = 0.0, within: float = math.inf
    ) -> bytes:
        return self._answers.result(id, topic=topic, namespace=namespace, wait=wait, within=within)
