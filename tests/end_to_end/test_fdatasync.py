"""As the kernel sees it: no enqueue is answered before its fdatasync. A killed process cannot show that, for the page cache stays."""

import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from .api import Http
from .broker import Broker, until

pytestmark = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is missing")

CALLS = "fdatasync,write,writev,sendto,sendmsg"
SYNCED = re.compile(r"fdatasync.*= 0$|<\.\.\. fdatasync resumed>.*= 0$")
ANSWER = re.compile(r'"HTTP/1\.1 200 OK')
COUNT = 30


def test_no_enqueue_is_answered_before_its_fdatasync(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    with Broker() as broker:
        http = Http(broker.url, broker.token)
        http.put(b"first")  # what happens once has happened
        command = ["strace", "-f", "-s", "64", "-e", f"trace={CALLS}", "-o", str(trace), "-p", str(broker.pid)]
        strace = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        try:
            assert strace.stderr is not None
            said = strace.stderr.readline()
            if "attached" not in said:
                pytest.skip(f"strace may not attach here: {said.strip()}")
            for _ in range(COUNT):
                http.put(b"x")
                time.sleep(0.01)  # so that one answer stands between two syncs
            until(lambda: len(ANSWER.findall(trace.read_text())) >= COUNT, what="the trace is written")
        finally:
            strace.terminate()
            strace.wait()
    synced, answers, early = 0, 0, 0
    for line in trace.read_text().splitlines():
        if SYNCED.search(line):
            synced += 1
        elif ANSWER.search(line):
            answers += 1
            early += not synced
            synced = 0
    assert answers >= COUNT
    assert early == 0
