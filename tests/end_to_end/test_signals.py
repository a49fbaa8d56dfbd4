"""What a broker makes of signals."""

import signal
import subprocess

import pytest

from tests.processes.broker import Broker


@pytest.mark.parametrize("again", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_that_comes_twice_is_one(again: signal.Signals) -> None:
    """As where a process manager tells the whole group: it ends in order all the same."""
    with Broker() as broker:
        pid = broker.pid
        process = broker._process
        assert process is not None
        process.send_signal(signal.SIGTERM)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.02)
        process.send_signal(again)
        assert process.wait(35) == 0
        assert broker.postgres_pid() is None, "its stores ended with it"
        assert pid == process.pid and "all that this broker had taken is in PostgreSQL" in broker.last_words()
