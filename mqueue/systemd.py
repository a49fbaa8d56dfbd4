"""What systemd asks of a service with `Type=notify`: that it says when it is ready, and that it lives. Without systemd
nothing happens.

The protocol is a datagram to the socket that NOTIFY_SOCKET names: sd_notify(3), sd_watchdog_enabled(3).
"""

import os
import socket
from collections.abc import MutableMapping
from contextlib import suppress


class Notify:
    """It takes what systemd has put into `environ` out of it: the address is for this process, not for its children."""

    def __init__(self, environ: MutableMapping[str, str] = os.environ) -> None:
        address = environ.pop("NOTIFY_SOCKET", "")
        watched_us, pid = environ.pop("WATCHDOG_USEC", ""), environ.pop("WATCHDOG_PID", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        is_watched = self._address and watched_us.isdecimal() and pid in ("", str(os.getpid()))
        self.alive_every_s = int(watched_us) / 2e6 if is_watched else 0.0  # 0: nobody waits to hear it

    def ready(self) -> None:
        self._tell("READY=1")

    def stopping(self) -> None:
        self._tell("STOPPING=1")

    def alive(self) -> None:
        """To be said every `alive_every_s` seconds."""
        self._tell("WATCHDOG=1")

    def _tell(self, state: str) -> None:
        if self._address:
            with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.setblocking(False)
                sender.sendto(state.encode(), self._address)
