"""The two servers that all runs share, and a folder in memory for the disks."""

import asyncio
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType

from mqueue.broker.embedded import EmbeddedStores, StoreUrls

from .cache import Redis
from .mutations import SEEDS, Mutation, broken
from .periodic import FAULTS, Periodic
from .store import Postgres
from .world import World

MEMORY = Path("/dev/shm")


class Servers:
    """Connections to servers that run."""

    def __init__(self, urls: StoreUrls) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="mq-disks-", dir=MEMORY if MEMORY.is_dir() else None))
        self.redis = Redis(urls, lambda: 0)
        self._postgres = Postgres(urls.database_urls[0], lambda: 0)

    def world(self, seed: int, kinds: Sequence[str] = (), trace: Callable[[str], object] | None = None) -> World:
        return World(seed, self.folder, self.redis, self._postgres, kinds=kinds, trace=trace)

    def periodic(self, seed: int, trace: Callable[[str], object] | None = None) -> Periodic:
        return Periodic(seed, self.folder, self.redis, self._postgres, kinds=FAULTS, trace=trace)

    def notices(self, mutation: Mutation) -> tuple[int | None, str]:
        """The first seed that fails without this rule, and with what; None where none does."""
        for seed in range(SEEDS):
            try:
                with broken(mutation, self.redis):
                    self.world(seed, mutation.faults).run()
            except Exception as error:
                self.world(seed, mutation.faults).run()  # with the rule it is fine
                return seed, str(error).partition(": ")[2][:160] or repr(error)
        return None, ""

    def close(self) -> None:
        self._postgres.close()
        self.redis.client.close()
        shutil.rmtree(self.folder, ignore_errors=True)


class Stage:
    """Servers of its own. `against`: a revision whose scripts are asked, too."""

    def __init__(self, against: str = "") -> None:
        self._against = against
        self._second: EmbeddedStores | None = None

    def __enter__(self) -> Servers:
        self._folder = Path(tempfile.mkdtemp(prefix="mq-"))
        self._folder.chmod(0o711)
        self._runner = asyncio.Runner()
        self._stores = EmbeddedStores(self._folder, 1)
        self._servers = Servers(self._runner.run(self._stores.start()))
        if self._against:
            second = self._folder / "second"
            second.mkdir(mode=0o711)
            self._second = EmbeddedStores(second, 1)
            self._servers.redis.compare_with(self._runner.run(self._second.start()), self._against)
        return self._servers

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._servers.close()
        for stores in (self._stores, self._second):
            if stores is not None:
                self._runner.run(stores.stop())
        self._runner.close()
        shutil.rmtree(self._folder, ignore_errors=True)
