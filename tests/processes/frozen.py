"""A server held still by SIGSTOP: none of its processes runs, all of its connections stay open."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psutil


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    """First the one that makes the others, so that none is missed."""
    parent = psutil.Process(pid)
    stopped = [parent]
    try:
        parent.suspend()
        for child in parent.children(recursive=True):
            stopped.append(child)
            with suppress(psutil.NoSuchProcess):
                child.suspend()
        yield
    finally:
        for process in reversed(stopped):
            with suppress(psutil.NoSuchProcess):
                process.resume()
