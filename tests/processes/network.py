"""A network between clients and a broker: a proxy, on a thread and a loop of its own."""

import asyncio
import threading
from collections.abc import Callable
from typing import Self

from mqueue.torture.proxy import Healed, Proxy


class Network:
    """To 127.0.0.1:`target`; it can be harmed as `Proxy` can."""

    def __init__(self, target: int) -> None:
        self._proxy = Proxy(target)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self.url = ""

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._proxy.start(), self._loop).result(10)
        self.url = f"http://127.0.0.1:{self._proxy.port}"
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._proxy.close(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def cut(self) -> None:
        self._do(self._proxy.cut)

    def stall(self) -> None:
        self._do(self._proxy.stall)

    def heal(self, stalled: Healed) -> None:
        self._do(lambda: self._proxy.heal(stalled))

    def _do(self, work: Callable[[], None]) -> None:
        async def on_loop() -> None:
            work()

        asyncio.run_coroutine_threadsafe(on_loop(), self._loop).result(10)
