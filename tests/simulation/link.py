"""What lies between a broker and a store: each call takes a while, and may fail before its effect, or after it.

The effect itself is one moment: a script, a statement, a transaction. Nothing else happens in the simulation meanwhile.
"""

import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Literal

from .loop import Owner, elapse

DROPPED_S = 5.0  # until a caller whose packets vanish gives up
Fate = Literal["ok", "before", "after"]


class Server:
    """What all links to one store share. `up`: it answers at all."""

    def __init__(self, name: str, lost: Callable[[str], Exception]) -> None:
        self.name = name
        self.lost = lost
        self.up = True


class Link:
    """`cut`: no, reset (calls fail at once), drop (they hang first). `flaky`: how many calls fail. `slow_s`: at most,
    on top of each.
    """

    def __init__(self, server: Server, owner: Owner, rng: random.Random, tell: Callable[[str], None]) -> None:
        self.server = server
        self.owner = owner
        self.cut: Literal["", "reset", "drop"] = ""
        self.flaky = 0.0
        self.slow_s = 0.0
        self._rng = rng
        self._tell = tell

    @asynccontextmanager
    async def call(self, name: str) -> AsyncIterator[None]:
        """The effect is the body, which must not wait."""
        await self._travel()
        fate = self._fate()
        if fate == "before":
            await self._fail(name, "before")
        yield
        self._tell(f"{self.server.name}.{name}" + (" answer lost" if fate == "after" else ""))
        if fate == "after":
            await self._fail(name, "after")
        await self._travel()
        if self.cut or not self.server.up:
            await self._fail(name, "after")

    def _fate(self) -> Fate:
        if self.cut or not self.server.up:
            return "before"
        if self.flaky and self._rng.random() < self.flaky:
            return self._rng.choice(["before", "after"])
        return "ok"

    async def _fail(self, name: str, when: str) -> None:
        if self.cut == "drop":
            await self._pause(DROPPED_S)
        raise self.server.lost(f"{name}: lost {when} its effect")

    async def _travel(self) -> None:
        seconds = self._rng.uniform(0.0001, 0.001)
        if self.slow_s:
            seconds += self._rng.random() * self.slow_s
        elif self._rng.random() < 0.01:
            seconds += self._rng.random() * 0.3
        await self._pause(seconds)

    async def _pause(self, seconds: float) -> None:
        self.owner.check()
        await elapse(seconds)
        self.owner.check()
