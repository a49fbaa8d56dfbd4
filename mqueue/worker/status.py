"""A worker tells of itself, and its probe shows pages about one or several."""

from collections import Counter
from collections.abc import Mapping, Sequence

from msgspec import Struct


class Status(Struct, frozen=True, tag=True):
    """It tells how a worker is. `problem`: why it cannot claim work, None where it can. `counts`: jobs so far by
    outcome. `running`: jobs now, of `slots`.
    """

    problem: str | None
    counts: Mapping[str, int]
    running: int
    slots: int


Page = tuple[int, str]  # HTTP status, text


def live() -> Page:
    """The process answers, so it lives."""
    return 200, "live\n"


def ready(workers: Sequence[Status]) -> Page:
    """They are ready only where all of them are."""
    problems = [each.problem for each in workers if each.problem is not None]
    if not problems and workers:
        return 200, "ready\n"
    of = f" ({len(problems)} of {len(workers)} processes)" if len(workers) > 1 else ""
    return 503, f"not ready: {problems[0] if problems else 'no process runs'}{of}\n"


def metrics(workers: Sequence[Status], ended: Mapping[str, int]) -> Page:
    """Shows their numbers in the text format of Prometheus. `ended`: jobs by outcome of processes that are gone."""
    jobs = Counter(ended)
    for each in workers:
        jobs.update(each.counts)
    lines = ["# HELP mqueue_worker_jobs_total Jobs that ended, by outcome.", "# TYPE mqueue_worker_jobs_total counter"]
    lines += [f'mqueue_worker_jobs_total{{outcome="{outcome}"}} {number}' for outcome, number in sorted(jobs.items())]
    for name, text, number in (
        ("running", "Jobs that run now.", sum(each.running for each in workers)),
        ("slots", "Jobs that may run at the same time.", sum(each.slots for each in workers)),
        ("processes", "Processes that run jobs.", len(workers)),
        ("ready", "1 where work can be claimed.", int(ready(workers)[0] == 200)),
    ):
        lines += [f"# HELP mqueue_worker_{name} {text}", f"# TYPE mqueue_worker_{name} gauge", f"mqueue_worker_{name} {number}"]
    return 200, "\n".join(lines) + "\n"
