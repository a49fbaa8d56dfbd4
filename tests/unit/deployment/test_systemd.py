"""systemd hears when a service is ready, stops, and lives; nobody hears it where there is no systemd."""

import os
import socket
from pathlib import Path

from mqueue.systemd import Notify


def test_it_tells_the_socket_and_its_children_know_of_none(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(str(tmp_path / "s"))
        heard.settimeout(5)
        environ = {"NOTIFY_SOCKET": str(tmp_path / "s"), "WATCHDOG_USEC": "60000000", "WATCHDOG_PID": str(os.getpid()), "HOME": "/"}
        notify = Notify(environ)
        assert environ == {"HOME": "/"}
        assert notify.alive_every_s == 30
        for tell in (notify.ready, notify.alive, notify.stopping):
            tell()
        assert [heard.recv(100) for _ in range(3)] == [b"READY=1", b"WATCHDOG=1", b"STOPPING=1"]


def test_an_abstract_socket_is_one(tmp_path: Path) -> None:
    name = f"mqueue-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind("\0" + name)
        heard.settimeout(5)
        Notify({"NOTIFY_SOCKET": "@" + name}).ready()
        assert heard.recv(100) == b"READY=1"


def test_nobody_is_told_where_nobody_asks(tmp_path: Path) -> None:
    Notify({}).ready()
    Notify({"NOTIFY_SOCKET": str(tmp_path / "gone")}).ready()
    assert Notify({"WATCHDOG_USEC": "60000000"}).alive_every_s == 0
    assert Notify({"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "1"}).alive_every_s == 0
