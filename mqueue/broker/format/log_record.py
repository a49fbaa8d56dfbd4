"""A LogRecord is one record of a broker's log: `wal/frame.py` writes it as bytes, and `entries.py`
gives it a payload.
"""

from typing import NamedTuple

ENQUEUE, OUTCOME, VOID = 1, 2, 3  # kinds since version 1 of the log, which itself does not look at them


class LogRecord(NamedTuple):
    """One record. `sequence`: the number of its batch. `kind`: ENQUEUE, OUTCOME or VOID. `payload`: bytes, laid out in
    `entries.py`.
    """

    sequence: int
    epoch: int
    kind: int
    payload: bytes
