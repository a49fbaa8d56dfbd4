"""That a worker stops, and how fast: a word gives what runs its grace, a second one none; after long enough it waits
for its jobs.
"""

import asyncio


class Stopping:
    """Events of the worker's loop. `began`: fetch no more. `told`: from now on the grace counts. `hurry`: it is
    over.
    """

    def __init__(self) -> None:
        self.began = asyncio.Event()
        self.told = asyncio.Event()
        self.hurry = asyncio.Event()

    def tell(self) -> None:
        """Somebody says so: the first time stop, the second time now."""
        if self.told.is_set():
            self.hurry.set()
        self.retire()

    def retire(self) -> None:
        """Stop; said again it means no more."""
        self.told.set()
        self.began.set()

    def recycle(self) -> None:
        """Nobody is waiting for the end: jobs may take their time."""
        self.began.set()
