"""A task for processes, in a module whose import waits for a gate there, and is not stopped by what it is asked."""

import os
from contextlib import suppress
from pathlib import Path

from mqueue import MQueue
from tests.waiting import wait_until

app = MQueue()

if gate := os.environ.get("TEST_IMPORT_GATE"):
    Path(gate + ".waits").touch()
    with suppress(KeyboardInterrupt):
        wait_until(Path(gate).exists)


@app.task(topic="stubborn", executor="process", max_retries=0)
def note(file: str) -> None:
    Path(file).touch()
