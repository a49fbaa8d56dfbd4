"""An event loop without time or I/O: its clock jumps to the next timer when nobody has anything to do; so a run depends
on its seed alone.

Everything runs for an *owner*, one life of one broker, found through a context variable: children of its tasks and its
timers inherit it. A paused owner's turns wait until it goes on (SIGSTOP); a dead one's tasks are cancelled and all they
still call raises Killed.
"""

import asyncio
import contextvars
import random
from collections.abc import Callable, Coroutine
from heapq import heappop
from typing import Any

DISK_S = (0.0001, 0.002)  # what a job of a thread takes


class Killed(BaseException):
    """The process is no more. Not an Exception: nothing of the product may catch it."""


class Stuck(AssertionError):
    """Nobody has anything to do, and nobody ever will."""


class Owner:
    """One life of a broker."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.alive = True
        self.paused = False
        self.parked: list[asyncio.Handle] = []
        self.tasks: dict[asyncio.Task[Any], None] = {}  # in order
        self.disk_s = 0.0  # on top, for a slow disk
        self.context = contextvars.copy_context()
        self.context.run(OWNER.set, self)

    def check(self) -> None:
        if not self.alive:
            raise Killed(self.name)


OWNER: contextvars.ContextVar[Owner | None] = contextvars.ContextVar("owner", default=None)


class VirtualLoop(asyncio.BaseEventLoop):
    _ready: Any
    _scheduled: Any

    def __init__(self, rng: random.Random) -> None:
        super().__init__()
        self._now = 0.0
        self._rng = rng
        self.turns = 0
        self.set_exception_handler(lambda loop, context: self._unhandled(context))
        self.complaints: list[str] = []

    def time(self) -> float:
        return self._now

    def _process_events(self, event_list: Any) -> None: ...

    def _write_to_self(self) -> None: ...

    def _run_once(self) -> None:
        scheduled, ready = self._scheduled, self._ready
        while scheduled and scheduled[0]._cancelled:
            heappop(scheduled)._scheduled = False
        if not ready:
            if not scheduled:
                raise Stuck
            self._now = max(self._now, scheduled[0]._when)
        while scheduled and scheduled[0]._when <= self._now:
            handle = heappop(scheduled)
            handle._scheduled = False
            ready.append(handle)
        for _ in range(len(ready)):
            handle = ready.popleft()
            if handle._cancelled:
                continue
            owner = handle._context.get(OWNER)
            if owner is not None and owner.paused and owner.alive:
                owner.parked.append(handle)
                continue
            self.turns += 1
            handle._run()

    def resume(self, owner: Owner) -> None:
        owner.paused = False
        self._ready.extend(owner.parked)
        owner.parked.clear()

    def create_task(self, coro: Any, *, name: Any = None, context: Any = None, **more: Any) -> Any:
        task = super().create_task(coro, name=name, context=context)
        owner = context[OWNER] if context is not None and OWNER in context else OWNER.get()
        if owner is not None:
            owner.tasks[task] = None
            task.add_done_callback(lambda task: owner.tasks.pop(task, None))
            if not owner.alive:
                task.cancel()
        return task

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]
        """A job of a thread: all of it at one moment, a little later."""
        future = self.create_future()
        self.later(func, *args, done=future)
        return future

    def later(self, func: Callable[..., Any], *args: Any, done: asyncio.Future[Any]) -> None:
        owner = OWNER.get()

        def run() -> None:
            if owner is not None and not owner.alive:
                done.cancel()
                return
            try:
                result = func(*args)
            except BaseException as error:
                if not done.done():
                    done.set_exception(error)
            else:
                if not done.done():
                    done.set_result(result)

        self.call_later(self._rng.uniform(*DISK_S) + (owner.disk_s if owner is not None else 0.0), run)

    def kill(self, owner: Owner) -> None:
        """No turn of it has any effect from here on."""
        owner.alive = False
        self.resume(owner)
        for task in list(owner.tasks):
            task.cancel()

    def _unhandled(self, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if not isinstance(error, Killed) and "never retrieved" not in context["message"]:
            self.complaints.append(f"{context['message']}: {error!r}")


async def elapse(seconds: float) -> None:
    """Virtual seconds go by. Raises TypeError on a loop on which somebody would have to wait."""
    if not isinstance(asyncio.get_running_loop(), VirtualLoop):
        raise TypeError("only the simulation's own clock jumps")
    await asyncio.sleep(seconds)


class Thread:
    """The log's own thread: its jobs come one after the other."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop

    def call(self, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
        return self._loop.run_in_executor(None, func, *args)

    def submit(self, func: Callable[[], None]) -> None:
        self._loop.run_in_executor(None, func)

    def close(self) -> None: ...


def run(loop: VirtualLoop, main: Coroutine[Any, Any, Any]) -> Any:
    asyncio.set_event_loop(loop)
    try:
        return loop.run_until_complete(main)
    finally:
        for task in asyncio.all_tasks(loop):
            task.cancel()
        try:
            loop.run_until_complete(asyncio.sleep(0.01))
        except (Stuck, RuntimeError):
            pass
        asyncio.set_event_loop(None)
        loop.close()
