"""As the kernel sees it: no enqueue is answered before its fdatasync. A killed process cannot show that, for the page
cache stays.
"""

import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.processes.api import Http
from tests.processes.broker import Broker
from tests.processes.stores import Stores
from tests.waiting import wait_until

pytestmark = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is missing")

CALLS = "fdatasync,write,writev,sendto,sendmsg"
SYNCED = re.compile(r"fdatasync.*= 0$|<\.\.\. fdatasync resumed>.*= 0$")
ANSWER = re.compile(r'"HTTP/1\.1 200 OK')
COUNT = 30


@pytest.fixture
def stores(data_dir: Path) -> Iterator[Stores]:
    """Not the broker's children: their own fdatasyncs would be traced with it."""
    stores = Stores(data_dir)
    yield stores
    stores.close()


def test_no_enqueue_is_answered_before_its_fdatasync(stores: Stores, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    # -D: the broker stays our child, and lets its tracer attach whatever the system allows others
    strace = ("strace", "-D", "-f", "-s", "64", "-e", f"trace={CALLS}", "-o", str(trace))
    with Broker(env=stores.environment(), under=strace) as broker:
        http = Http(broker.url, broker.token)
        http.put(b"first")  # what happens once has happened
        before = len(trace.read_text().splitlines())
        for _ in range(COUNT):
            http.put(b"x")
            time.sleep(0.01)  # so that one answer stands between two syncs
        wait_until(lambda: len(ANSWER.findall("\n".join(_lines(trace, before)))) >= COUNT, "the trace is written")
        lines = _lines(trace, before)
    synced, answers, early = 0, 0, 0
    for line in lines:
        if SYNCED.search(line):
            synced += 1
        elif ANSWER.search(line):
            answers += 1
            early += not synced
            synced = 0
    assert answers >= COUNT
    assert early == 0


def _lines(trace: Path, start: int) -> list[str]:
    return trace.read_text().splitlines()[start:]
