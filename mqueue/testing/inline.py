"""Every enqueue runs its handler at once."""

from collections.abc import Iterator, Sequence

from mqueue import wire
from mqueue.errors import NotFound
from mqueue.testing.clock import ManualClock
from mqueue.testing.enqueued import Recorder
from mqueue.testing.handlers import job_of, run, run_async
from mqueue.testing.memory.broker import MemoryBroker
from mqueue.worker.tasks.app import MQueue
from mqueue.worker.tasks.job import Job


class Inline(Recorder):
    """What a handler raises, the enqueue raises, whatever its kind: nothing is tried again.

    Options (`delay`, …) and limits change nothing, and are recorded. Handlers run in this process, with
    middleware around them.
    """

    def __init__(self) -> None:
        super().__init__()
        self._last_id = 0
        self._results: dict[int, bytes] = {}

    def carry(self, app: MQueue, items: Sequence[wire.EnqueueItem]) -> list[int]:
        ids = []
        for id, job in self._jobs(app, items):
            if (error := run(job)) is not None:
                raise error
            self._keep(id, job)
            ids.append(id)
        return ids

    async def carry_async(self, app: MQueue, items: Sequence[wire.EnqueueItem]) -> list[int]:
        ids = []
        for id, job in self._jobs(app, items):
            if (error := await run_async(job)) is not None:
                raise error
            self._keep(id, job)
            ids.append(id)
        return ids

    def state_of(self, id: int) -> wire.Status | None:
        """All jobs that were enqueued are over."""
        return None

    def result_of(self, id: int) -> bytes:
        if id not in self._results:
            raise NotFound(f"no message {id}, and no result of it: it left none")
        return self._results[id]

    def cancel(self, id: int) -> wire.Cancel:
        return wire.Cancel(id, "gone")

    def dead_letters(self, topic: str, *, namespace: str, limit: int, after: int) -> list[wire.DeadItem]:
        """There are none: what fails, the test hears at once."""
        return []

    def _keep(self, id: int, job: Job) -> None:
        if job.result is not None:
            self._results[id] = job.result

    def _jobs(self, app: MQueue, items: Sequence[wire.EnqueueItem]) -> Iterator[tuple[int, Job]]:
        for item in items:
            self._last_id += 1
            made = self.record(app, self._last_id, item)
            [message] = _deliver(item, made.id)
            yield made.id, job_of(message, made.task, list(made.args), dict(made.kwargs))


def _deliver(item: wire.EnqueueItem, id: int) -> list[wire.Message]:
    """Returns the message as a worker gets it, due or not."""
    broker = MemoryBroker(ManualClock(), first_id=id)
    broker.enqueue_many([item])
    return [broker.lease(stored) for stored in broker.live()]
