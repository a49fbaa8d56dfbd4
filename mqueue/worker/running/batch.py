"""A task with `batch=100` gives its handler a list of items, one from each message.

Messages are gathered until there are enough, or the first has waited for `batch_wait`. The batch is one job, in one
slot, from its first message on: a worker never holds a batch that it could not start. What its handler returns is a
verdict for each item.
"""

from collections.abc import Callable, Hashable, Sequence

from mqueue.worker.tasks.job import Current, Job


class BadVerdicts(TypeError):
    """What the handler of a batch returned is neither None nor a list with one verdict for each item."""


def verdicts(returned: object, size: int) -> list[BaseException | None]:
    """Reads what became of each item: None, or as if its handler had raised that. Raises BadVerdicts, which is then
    what became of all.
    """
    if returned is None:
        return [None] * size
    if not isinstance(returned, list | tuple):
        raise BadVerdicts(f"a batch's handler returns None, or a list of {size} verdicts, not a {type(returned).__name__}")
    if len(returned) != size:
        raise BadVerdicts(f"the handler returned {len(returned)} verdicts for a batch of {size}")
    return [_verdict(index, each) for index, each in enumerate(returned)]


def _verdict(index: int, verdict: object) -> BaseException | None:
    if verdict is None or verdict is True:
        return None
    if isinstance(verdict, BaseException):
        return verdict
    return BadVerdicts(f"the verdict on item {index} is a {type(verdict).__name__}: None and True mean done, an exception what failed")


def failed_items(job: Current) -> list[tuple[Current, BaseException]]:
    """Tells middleware, once the handler of a batch has returned, which items it says have failed or are put off, and
    how.
    """
    return [(each, verdict) for each, verdict in zip(job.batch, job._job.verdicts, strict=False) if verdict is not None]


def job_of(jobs: Sequence[Job]) -> Job:
    """Makes one job of all these, of the same task: what it tells of itself is what the first does."""
    first = jobs[0]
    job = Job(first.message, first.task, [[item for each in jobs for item in each.args]], {}, first.lease)
    job.batch, job.began = tuple(jobs), first.began
    return job


class Gatherer:
    """It holds the batches that are being gathered, at most one for each source. `begin(jobs)` is called with each one
    that is complete.
    """

    def __init__(self, begin: Callable[[Sequence[Job]], None]) -> None:
        self._begin = begin
        self._open: dict[Hashable, list[Job]] = {}

    def add(self, source: Hashable, jobs: Sequence[Job], size: int) -> int:
        """Adds to the source's batch. Returns how many more it wants; 0: it has begun, or there is none."""
        gathered = self._open.setdefault(source, [])
        gathered += jobs
        room = size - len(gathered) if gathered else 0
        if room <= 0:
            self.begin(source)
        return max(0, room)

    def begin(self, source: Hashable) -> None:
        """The batch begins with what there is."""
        if jobs := self._open.pop(source, []):
            self._begin(jobs)

    def give_up(self) -> list[list[Job]]:
        """Gives back the batches that have not begun, and will not."""
        given_up = [jobs for jobs in self._open.values() if jobs]
        self._open = {}
        return given_up
