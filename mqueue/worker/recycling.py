"""A worker stops by itself when it has run for long enough: after so many jobs, or when it holds so much memory.
Another takes its place.
"""

from mqueue.worker.memory import MB, MEMORY, held_by

LOOK_S = 1.0  # between two looks at the memory


class Recycling:
    """It knows the limits of a worker. `max_jobs`: that ended, whatever their outcome. `max_memory_mb`: MiB that this
    process holds, its pool of processes not counted.

    Raises ValueError for limits below 1, or a limit of memory on a system that does not tell it.
    """

    def __init__(self, max_jobs: int | None = None, max_memory_mb: float | None = None) -> None:
        for name, limit in (("max_jobs", max_jobs), ("max_memory_mb", max_memory_mb)):
            if limit is not None and not limit >= 1:
                raise ValueError(f"{name} is at least 1, not {limit}")
        if max_memory_mb is not None and not MEMORY.exists():
            raise ValueError(f"max_memory_mb needs {MEMORY}, which this system does not have")
        self._max_jobs = max_jobs
        self._max_memory_mb = max_memory_mb

    @property
    def looks(self) -> bool:
        """Is there a limit that must be looked at now and then?"""
        return self._max_memory_mb is not None

    def after(self, jobs: int) -> str | None:
        """Says why to stop after so many jobs, or None."""
        if self._max_jobs is not None and jobs >= self._max_jobs:
            return f"max_jobs={self._max_jobs} have ended"
        return None

    def now(self) -> str | None:
        """Says why to stop now, by the memory that is held, or None."""
        if self._max_memory_mb is None:
            return None
        try:
            held = held_by(MEMORY) / MB
        except OSError:  # no file can be opened now: the next look will tell
            return None
        return f"it holds {held:.0f} MiB, more than max_memory_mb={self._max_memory_mb:g}" if held > self._max_memory_mb else None
