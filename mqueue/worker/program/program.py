"""The command `mqueue worker` runs one worker in this process, or a fleet of them under it, and the probe that shows
how they are.
"""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from mqueue.worker import status
from mqueue.worker.program.options import Options
from mqueue.worker.program.probe import Probe
from mqueue.worker.program.work import on_signals, work

PROBE_HOST = "0.0.0.0"  # an orchestrator asks from outside, at the pod's address


def run(
    modules: Sequence[str],
    *,
    processes: int | None = None,
    reload: bool = False,
    probe_host: str = PROBE_HOST,
    probe_port: int | None = None,
    **options: Any,
) -> int:
    """Runs `mqueue worker` until SIGTERM or SIGINT, and returns the exit code. `options`: of `Options`. Raises
    MQueueError (WorkerError, NoEndpoint, …).

    `processes`: so many under one parent; None: this process alone.
    """
    chosen = msgspec.convert({"modules": modules, **options}, Options)
    if processes is not None or reload:
        return asyncio.run(_lead(chosen, processes or 1, reload, probe_host, probe_port))
    return work(chosen, lambda worker: probing(probe_host, probe_port, lambda: [worker.status()]))


async def _lead(options: Options, processes: int, reload: bool, probe_host: str, probe_port: int | None) -> int:
    from mqueue.worker.program.changes import changes
    from mqueue.worker.program.fleet import Fleet

    fleet = Fleet(options, processes, changes=changes(Path.cwd()) if reload else None)
    on_signals(fleet.stop, fleet.retire)
    with probing(probe_host, probe_port, fleet.statuses, fleet.ended):
        return await fleet.run()


@contextmanager
def probing(
    host: str, port: int | None, workers: Callable[[], Sequence[status.Status]], ended: Mapping[str, int] | None = None
) -> Iterator[Probe | None]:
    """A probe shows what `workers` says then; there is none without a port. `ended`: jobs by outcome of processes that
    are gone.
    """
    if port is None:
        yield None
        return
    pages = {
        "/live": status.live,
        "/ready": lambda: status.ready(workers()),
        "/metrics": lambda: status.metrics(workers(), ended or {}),
    }
    probe = Probe(host, port, pages)
    probe.start()
    try:
        yield probe
    finally:
        probe.stop()
