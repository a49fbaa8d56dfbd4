"""The systems that are compared: the module of each in `benchmarks/peers`, and the store that it runs on."""

from dataclasses import dataclass
from typing import Literal

Store = Literal["broker", "redis", "postgresql"]
Environment = Literal["own", "peers", "baseline"]

DURABILITY: dict[Store, str] = {
    "broker": "log, fsynced before the answer",
    "redis": "Redis, appendfsync everysec: up to 1 s lost",
    "postgresql": "PostgreSQL, committed with fsync",
}


@dataclass(frozen=True, slots=True)
class System:
    """`environment` says which interpreter has its packages."""

    key: str
    name: str
    module: str
    store: Store
    environment: Environment = "peers"


OURS = (
    System("mqueue", "mqueue, async client", "with_mqueue", "broker", "own"),
    System("mqueue-sync", "mqueue, sync client", "with_mqueue_sync", "broker", "own"),
    System("mqueue-batch", "mqueue, sync client, batch=True", "with_mqueue_batch", "broker", "own"),
)
PEERS = (
    System("celery", "Celery", "with_celery", "redis"),
    System("dramatiq", "Dramatiq", "with_dramatiq", "redis"),
    System("rq", "RQ", "with_rq", "redis"),
    System("taskiq", "taskiq", "with_taskiq", "redis"),
    System("saq", "SAQ", "with_saq", "redis"),
    System("huey", "Huey", "with_huey", "redis"),
    System("procrastinate", "procrastinate", "with_procrastinate", "postgresql"),
    System("pgqueuer", "PgQueuer", "with_pgqueuer", "postgresql"),
    System("pgmq", "pgmq (SQL)", "with_pgmq", "postgresql"),
    System("skip-locked", "bare PostgreSQL, SKIP LOCKED", "with_skip_locked", "postgresql", "own"),
)
BASELINE = tuple(System(f"{ours.key}@baseline", f"{ours.name} (before)", ours.module, "broker", "baseline") for ours in OURS)
ALL = {system.key: system for system in (*OURS, *BASELINE, *PEERS)}
