"""A worker process, this one or one of a fleet, gets what `mqueue worker` was told."""

from msgspec import Struct


class Options(Struct, frozen=True, kw_only=True):
    """They say what a worker runs, and how: as `mqueue worker` has it."""

    modules: tuple[str, ...]
    namespace: str | None = None
    topics: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    concurrency: int = 20
    url: str | None = None
    token: str | None = None
    grace: float = 30.0
    max_jobs: int | None = None
    max_memory_mb: float | None = None
    name: str | None = None
