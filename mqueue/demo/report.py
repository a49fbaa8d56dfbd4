"""The report holds the worker's own notes and the broker's dead letters against what was queued. It is pure."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from mqueue.demo.load import Queued


@dataclass(frozen=True, slots=True)
class Run:
    """It is one start of a job, as its worker noted it."""

    id: int
    attempt: int
    started_us: int
    outcome: str


@dataclass(frozen=True, slots=True)
class Tally:
    """`starts` has the first one by id. `twice` counts ids done more than once (which at-least-once allows: after a
    lease that ended, for example).
    """

    queued: Mapping[int, Queued]
    done: frozenset[int]
    dead: frozenset[int]
    starts: Mapping[int, int]
    retries: int
    twice: int

    @property
    def missing(self) -> int:
        return len(self.queued) - len(self.done | self.dead)

    @property
    def complete(self) -> bool:
        """Has each job exactly one end?"""
        return not self.missing and not self.done & self.dead


def parse(lines: Iterable[str]) -> list[Run]:
    """Returns the worker's notes. A last line cut short is left out."""
    runs = []
    for line in lines:
        if line.endswith("\n"):
            id, attempt, started_us, outcome = line.split()
            runs.append(Run(int(id), int(attempt), int(started_us), outcome))
    return runs


def tally(queued: Mapping[int, Queued], runs: Iterable[Run], dead: Iterable[int]) -> Tally:
    """Counts what became of the jobs that were queued; jobs of others, such as those of an earlier demo on the same
    data dir, do not count.
    """
    mine = [run for run in runs if run.id in queued]
    done = Counter(run.id for run in mine if run.outcome == "done")
    starts: dict[int, int] = {}
    for run in mine:
        starts[run.id] = min(run.started_us, starts.get(run.id, run.started_us))
    return Tally(
        queued=queued,
        done=frozenset(done),
        dead=frozenset(id for id in dead if id in queued),
        starts=starts,
        retries=sum(1 for run in mine if run.attempt > 1),
        twice=sum(1 for count in done.values() if count > 1),
    )


def busiest_second(runs: Iterable[Run]) -> int:
    """Returns the most starts within one second."""
    times = sorted(run.started_us for run in runs)
    return max((bisect_left(times, time + 1_000_000) - at for at, time in enumerate(times)), default=0)


def lines(t: Tally, runs: Iterable[Run], enqueue_s: float) -> list[str]:
    """Returns the report for a reader. `enqueue_s`: how long it took to queue the bulk."""
    bulk = [id for id, job in t.queued.items() if job.kind != "single"]
    at_once = [id for id in bulk if not t.queued[id].delayed]
    priorities = sorted({t.queued[id].priority for id in bulk})
    by_priority = {p: _waits(t, [id for id in at_once if t.queued[id].priority == p]) for p in priorities}
    shown = [
        f"queued      {len(t.queued):>7,}   the bulk at {len(bulk) / enqueue_s:,.0f} a second, each batch fsynced before its answer",
        f"processed   {len(t.done):>7,}   {busiest_second(runs):,} of all starts within the busiest second",
        f"retried     {t.retries:>7,}   a failed job comes back after about a second, then after longer",
        f"dead        {len(t.dead):>7,}   out of retries: in the dead letter queue, with their errors",
    ]
    if t.twice:
        shown.append(f"twice       {t.twice:>7,}   delivered again after they were done")
    shown += ["", "enqueue to start           p50         p99"]
    shown += [f"  priority {p:<2} in the bulk  {_spread(waits)}" for p, waits in by_priority.items() if waits]
    for name, ids in (
        ("delayed, past its time", [id for id in bulk if t.queued[id].delayed]),
        ("one job, idle queue", [id for id, job in t.queued.items() if job.kind == "single"]),
    ):
        if waits := _waits(t, ids):
            shown.append(f"  {name:<22}  {_spread(waits)}")
    return shown


def _waits(t: Tally, ids: Iterable[int]) -> list[int]:
    """Returns the µs from when each could start to when it did, sorted."""
    return sorted(t.starts[id] - t.queued[id].due_us for id in ids if id in t.starts)


def _spread(waits: Sequence[int]) -> str:
    return f"{median(waits) / 1000:>8,.1f} ms {waits[min(len(waits) - 1, len(waits) * 99 // 100)] / 1000:>8,.1f} ms"
