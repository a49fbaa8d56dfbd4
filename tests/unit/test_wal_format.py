"""The format does not change by accident: the page, the golden file and the code say the same."""

import re
import shutil
import uuid
from pathlib import Path

import pytest

from mqueue.broker.wal import ENQUEUE, OUTCOME, VOID, LogRecord, ShardLog, WalCorrupt
from mqueue.broker.wal.frame import encode
from mqueue.broker.wal.segment import VERSION, Header
from tests import ROOT

PAGE = ROOT / "docs" / "wal-format.md"
GOLDEN = Path(__file__).parent / "golden" / "v2.wal"
OLDER = GOLDEN.with_name("v1.wal")
WHO = uuid.UUID("6d717565-7565-4000-8000-000000000001")
RECORDS = [LogRecord((1 << 40) + 1, 7, ENQUEUE, b"hello"), LogRecord((1 << 40) + 1, 7, VOID, b"")]


def example() -> bytes:
    header = Header(3, WHO, 0)
    return header.encode() + b"".join(encode(record, header.seed) for record in RECORDS)


def test_the_golden_file_is_what_is_written() -> None:
    assert GOLDEN.read_bytes() == example()
    assert (VERSION, ENQUEUE, OUTCOME, VOID) == (2, 1, 2, 3)


def test_the_golden_file_is_read(tmp_path: Path) -> None:
    shutil.copy(GOLDEN, tmp_path / "0000000000000001.wal")
    log = ShardLog.open(tmp_path, 3, WHO)
    assert list(log.records(0)) == RECORDS
    log.close()


def test_an_older_version_is_read_and_goes_on_in_a_segment_of_this_one(tmp_path: Path) -> None:
    shutil.copy(OLDER, tmp_path / "0000000000000001.wal")
    log = ShardLog.open(tmp_path, 3, WHO)
    later = LogRecord(RECORDS[-1].sequence + 1, 7, ENQUEUE, b"later")
    log.append(later)
    log.close()
    assert [(path.name, path.read_bytes()[6]) for path in sorted(tmp_path.glob("*.wal"))] == [
        ("0000000000000001.wal", 1), ("0000000000000002.wal", 2),
    ]  # fmt: skip
    again = ShardLog.open(tmp_path, 3, WHO)
    assert list(again.records(0)) == [*RECORDS, later]
    again.close()
    assert len(list(tmp_path.glob("*.wal"))) == 2


def test_the_page_shows_the_golden_file() -> None:
    (block,) = re.findall(r"```hex\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert bytes.fromhex("".join(line.split("  ")[0] for line in block.splitlines())) == GOLDEN.read_bytes()


@pytest.mark.parametrize(("at", "byte", "says"), [(0, ord("X"), "magic"), (6, 1, "checksum"), (36, 0, "checksum")])
def test_another_header_is_refused(tmp_path: Path, at: int, byte: int, says: str) -> None:
    data = bytearray(GOLDEN.read_bytes())
    data[at] = byte
    (tmp_path / "0000000000000001.wal").write_bytes(data)
    with pytest.raises(WalCorrupt, match=says):
        ShardLog.open(tmp_path, 3, WHO)


def test_a_later_version_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "0000000000000001.wal").write_bytes(Header(3, WHO, 0, VERSION + 1).encode())
    with pytest.raises(WalCorrupt, match="version 3; this broker reads versions up to 2"):
        ShardLog.open(tmp_path, 3, WHO)
